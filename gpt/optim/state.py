"""State of optimisers, by parameter name, as checkpoints hold it: tensors, and plain numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

Numbers = dict[str, Any]  # as JSON can hold them


def optimizer_state(
    optimizers: Sequence[torch.optim.Optimizer], named_parameters: Iterable[tuple[str, Parameter]]
) -> tuple[dict[str, Tensor], Numbers]:
    """Return the tensors of a state, each under "<key>.<parameter>", and its plain numbers.

    Plain numbers are those that an optimiser keeps beside a parameter or in a group, such as a
    count of steps.
    """
    tensors: dict[str, Tensor] = {}
    numbers: Numbers = {"groups": [[_plain(g) for g in o.param_groups] for o in optimizers]}
    for name, parameter in named_parameters:
        for optimizer in optimizers:
            state = optimizer.state.get(parameter, {})
            tensors |= {
                f"{key}.{name}": value.contiguous()
                for key, value in state.items()
                if isinstance(value, Tensor)
            }
            numbers |= {f"{key}.{name}": value for key, value in _plain(state).items()}
    return tensors, numbers


def load_optimizer_state(
    optimizers: Sequence[torch.optim.Optimizer],
    named_parameters: Iterable[tuple[str, Parameter]],
    tensors: Mapping[str, Tensor],
    numbers: Numbers,
) -> None:
    """Restore what `optimizer_state` returned; tensors go to their parameter's device."""
    for optimizer, saved in zip(optimizers, numbers.get("groups", []), strict=False):
        for group, values in zip(optimizer.param_groups, saved, strict=True):
            group.update(values)
    parameters = dict(named_parameters)
    owners = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    for key, value in {**numbers, **tensors}.items():
        kind, _, name = key.partition(".")
        if name in parameters:
            parameter = parameters[name]
            there = value.to(parameter.device) if isinstance(value, Tensor) else value
            owners[parameter].state[parameter][kind] = there


def _plain(values: Mapping[str, Any]) -> Numbers:
    return {key: value for key, value in values.items() if isinstance(value, bool | int | float)}
