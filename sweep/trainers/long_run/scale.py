"""A configuration at another size: settings that were tuned small, for a model that is trained big.

    width, depth   parametrization = completep with the tuned shape as its base, see
                   gpt.optim.parametrization; the size of a head is kept, n_head follows
    steps          with s = new steps / old steps: weight_decay / s; learning_rate stays; warm-up
                   and evaluations keep their share
    batch_size     nothing: at equal steps a larger batch is more text with less noise

So learning rate times weight decay times steps stays what it was: weights are an average over the
same share of the run (Wang and Aitchison 2024, arXiv:2405.13698). The learning rate stays because
its optimum does, from a sweep's 200 steps to 1,600 (tests/benchmarks/longer_runs.json). The rule of
the stochastic differential equation behind AdamW, learning_rate times s ** -0.5 and 1 - beta1 and
1 - beta2 over s (Malladi et al. 2022, arXiv:2205.10287; Mlodozeniec et al. 2025, arXiv:2512.22382),
ends at a perplexity 28 % higher there, with the best of its own rates.
"""

import re
from collections.abc import Mapping
from typing import Any

import psutil
import torch

from gpt.config import TrainConfig, train_config
from gpt.errors import InputError
from gpt.model import num_params
from gpt.optim.parametrization import COMPLETEP_OPTIMIZERS
from sweep.study.format import number
from sweep.trainers.memory import estimate_memory

SCALABLE = ("n_layer", "n_embd", "n_head", "steps", "batch_size")
_SHAPE = ("n_layer", "n_embd", "n_head")
EXAMPLE = "n_layer=12,n_embd=512,steps=20000"

Scale = Mapping[str, int]


def read_scale(text: str) -> dict[str, int]:
    """Read NAME=NUMBER,...: what is to have which size.

    Raises:
        InputError: another name than those in SCALABLE, one that comes twice, or no number from 1.
    """
    scale: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in SCALABLE:
            raise InputError(
                f"--scale must be such as {EXAMPLE}, with names of {', '.join(SCALABLE)}, "
                f"but got {part.strip()!r}."
            )
        if name in scale:
            raise InputError(f"--scale must give {name} once, but got it twice.")
        if not re.fullmatch("0*[1-9][0-9]{0,11}", value):
            raise InputError(
                f"--scale {name} must be a whole number of at least 1, but got {value!r}."
            )
        scale[name] = int(value)
    return scale


def scaled(config: TrainConfig, scale: Scale) -> TrainConfig:
    """Return the configuration at another size, with all that transfers adapted to it.

    Args:
        config: As it was tuned. Its own base shape is kept, if it has one.
        scale: See read_scale; what it does not name stays.

    Raises:
        InputError: the width does not divide into heads, or the optimiser's scaling is not known.
    """
    values: dict[str, Any] = config.model_dump()
    if any(scale.get(name, values[name]) != values[name] for name in _SHAPE):
        values |= _shape(config, scale)
    if "batch_size" in scale:
        values["batch_size"] = scale["batch_size"]
    if "steps" in scale:
        values |= _duration(config, scale["steps"])
    return train_config(values, where="--scale")


def _shape(config: TrainConfig, scale: Scale) -> dict[str, Any]:
    if config.optimizer not in COMPLETEP_OPTIMIZERS:
        raise InputError(
            f"--scale of the shape must have an optimizer whose scaling is known, "
            f"{' or '.join(COMPLETEP_OPTIMIZERS)}, but the configuration has {config.optimizer}; "
            f"tune at the final shape, or with one of these."
        )
    n_embd = scale.get("n_embd", config.n_embd)
    head_size = config.n_embd // config.n_head
    n_head = scale.get("n_head", n_embd // head_size)
    size = head_size if "n_head" not in scale else n_head
    if n_embd % size:
        what = "n_head" if "n_head" in scale else "the size of a head"
        near = max(size, n_embd // size * size)
        raise InputError(
            f"--scale n_embd must be a multiple of {what}, {size}, but got {n_embd}; "
            f"{near} and {near + size} are."
        )
    completep = config.parametrization == "completep"
    own = {"base_n_embd": config.n_embd, "base_n_layer": config.n_layer}
    if not completep or config.base_n_embd is None:
        own["base_n_head"] = config.n_head
    base = {
        name: value for name, value in own.items() if not completep or getattr(config, name) is None
    }
    shape = {"n_embd": n_embd, "n_head": n_head, "n_layer": scale.get("n_layer", config.n_layer)}
    return {"parametrization": "completep", **base, **shape}


def _duration(config: TrainConfig, steps: int) -> dict[str, Any]:
    ratio = steps / config.max_steps
    return {
        "max_steps": steps,
        "weight_decay": config.weight_decay / ratio,
        "warmup_steps": min(round(config.warmup_steps * ratio), steps - 1),
        "eval_interval": max(1, round(config.eval_interval * ratio)),
    }


def changes_in_words(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Return lines that say what a scaled configuration has otherwise, and why."""
    lines = [f"scaled: {num_params(old):,} -> {num_params(new):,} parameters"]
    shape = [f"{name} {_change(old, new, name)}" for name in _SHAPE if _differs(old, new, name)]
    if shape:
        ratios = new.scaling
        lines.append(f"  {', '.join(shape)} by CompleteP: {_multipliers(new)}")
        if ratios.width < 1 or ratios.depth < 1:
            lines.append("  smaller than what was tuned: nobody has checked that this transfers")
    names = ("max_steps", "weight_decay")
    shares = ("warmup_steps", "eval_interval")
    if _differs(old, new, "max_steps"):
        changed = [f"{name} {_change(old, new, name)}" for name in names + shares]
        lines.append(f"  {', '.join(changed)}")
    if _differs(old, new, "batch_size"):
        lines.append(f"  batch_size {_change(old, new, 'batch_size')}, {new.max_steps:,} steps")
    return lines


def _multipliers(config: TrainConfig) -> str:
    scaling = config.scaling
    matrices = scaling.muon_matrices if config.optimizer == "muon" else scaling.adamw_matrices
    return (
        f"of blocks' matrices the learning rate x {matrices:.3g}, the weight decay x "
        f"{1 / matrices:.3g}, first weights x {scaling.matrix_std:.3g}; residual branches x "
        f"{scaling.residual:.3g}, logits x {scaling.output:.3g}"
    )


def _differs(old: TrainConfig, new: TrainConfig, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))


def _change(old: TrainConfig, new: TrainConfig, name: str) -> str:
    before, after = getattr(old, name), getattr(new, name)
    if isinstance(before, int):
        return f"{before:,} -> {after:,}"
    return f"{number(before)} -> {number(after)}"


def check_memory(config: TrainConfig) -> str:
    """Return a line with the memory that a run is estimated to need, and what is free.

    Raises:
        InputError: it needs more than is free.
    """
    needed, free = estimate_memory(config).peak, available_memory(config.device)
    if needed > free:
        raise InputError(
            f"a run of {num_params(config):,} parameters and {config.batch_size} sequences of "
            f"{config.block_size} tokens must fit into memory, but needs about {needed / 1e9:.1f} "
            f"GB where {free / 1e9:.1f} GB are free; scale less, or with a smaller batch_size."
        )
    return f"memory: about {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB that are free"


def available_memory(device: str) -> int:
    """Bytes that are free on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return int(psutil.virtual_memory().available)
