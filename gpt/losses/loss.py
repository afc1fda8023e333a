"""A training loss: its cost per token, its options, its link function.

Shapes: N tokens, V classes. The losses themselves are in gpt.losses.functional.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpt.losses import link_functions
from gpt.losses.logit_stats import LogitStats
from gpt.losses.options import Option, checked_options

IGNORE_INDEX = -1  # nanoGPT's mark for "no target here"


@dataclass(frozen=True)
class Loss:
    """A training loss; calling it computes the loss of given logits.

    Attributes:
        per_token: LogitStats and options -> the cost of each token, shape (n,).
        options: The options it takes, by name.
        link_function: p, f and options -> the probabilities that minimise the loss, see
            gpt.losses.link_functions; None where they are p itself.
    """

    per_token: Callable[..., Tensor]
    options: Mapping[str, Option] = field(default_factory=dict)
    link_function: Callable[..., Tensor] | None = None

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        reduction: str = "mean",
        ignore_index: int = IGNORE_INDEX,
        **options: float,
    ) -> Tensor:
        """Compute the loss, with the arguments of torch.nn.functional.cross_entropy.

        Args:
            logits: Unnormalised scores f, shape (N, V); half precision is summed in float32.
            targets: True token ids y, shape (N,), each in [0, V) or ignore_index.
            reduction: "mean" over the tokens that count (NaN if there are none), "sum", or "none"
                for shape (N,), with 0 for those that do not count.
            ignore_index: Targets with this value do not count.
            options: Options of the loss; those not given have their defaults.

        Raises:
            ValueError: one line that names the argument, what must hold and what came instead.
        """
        check_reduction(reduction, ("mean", "sum", "none"))
        check_floating("logits", logits)
        if logits.dim() != 2:
            raise ValueError(f"logits must be (N, V), but got {tuple(logits.shape)}.")
        check_targets(targets, len(logits), logits.shape[1], ignore_index)
        counts = targets != ignore_index
        f = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        stats = LogitStats(f, targets.where(counts, 0))
        per_token = self.per_token(stats, **self.checked(options)).where(counts, 0.0)
        if reduction == "none":
            return per_token
        return per_token.sum() / counts.sum() if reduction == "mean" else per_token.sum()

    def probabilities(self, p: Tensor, logits: Tensor, options: Mapping[str, float]) -> Tensor:
        """Return the model's probabilities under the loss's own link function.

        Args:
            p: softmax(logits), shape (..., V).
            logits: Unnormalised scores f, shape (..., V).
            options: Options of the loss.

        Returns:
            Shape (..., V), each row adds up to 1; p itself where softmax is the link function.
        """
        pi = self.unnormalised(p, logits.clone(), options)
        return p if pi is p else pi.div_(pi.sum(-1, keepdim=True))

    def unnormalised(self, p: Tensor, logits: Tensor, options: Mapping[str, float]) -> Tensor:
        """Return `probabilities` before the division of each row by its sum, shape (..., V).

        This saves a pass over all where one value of a row is needed. May overwrite the logits.
        """
        if self.link_function is None:
            return p
        pi = self.link_function(p, logits, **self.checked(options))
        return p if pi is p else link_functions.floored(pi, p)

    def checked(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return these options with the defaults of all others.

        Raises:
            ValueError: an option that the loss does not take, or a value that it may not have.
        """
        return checked_options(self.per_token.__name__, self.options, options)


def check_reduction(reduction: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless `reduction` is known."""
    if reduction not in known:
        raise ValueError(f"reduction must be one of {', '.join(known)}, but got {reduction!r}.")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless `tensor` holds floating-point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating-point numbers, but got {tensor.dtype}.")


def check_targets(targets: Tensor, n_tokens: int, n_classes: int, ignore_index: int) -> None:
    """Raise ValueError unless targets are (N,) integers, each in [0, V) or ignore_index.

    Their range is checked on the CPU only: on CUDA a check would stop the queue, and the kernels
    assert it themselves.
    """
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be integers, but got {targets.dtype}.")
    if targets.shape != (n_tokens,):
        raise ValueError(f"targets must be ({n_tokens},), but got {tuple(targets.shape)}.")
    if targets.device.type != "cpu":
        return
    outside = ((targets < 0) | (targets >= n_classes)) & (targets != ignore_index)
    if outside.any():
        raise ValueError(
            f"targets must be in [0, {n_classes}) or ignore_index {ignore_index}, "
            f"but got {targets[outside][0].item()}."
        )
