"""Tests that every loss must pass, for one that is not ours: `squen-sweep check my_losses.py`.

Each runs in float64 on random logits, with the loss's options at their defaults and at both ends of
their ranges. Add a test by adding a function to LOSS_CHECKS; an error fails it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpt.losses.functional import LOSSES
from gpt.losses.loss import IGNORE_INDEX

OptionValues = dict[str, Any]  # of a loss: numbers by name
Check = Callable[[str, OptionValues], None]  # of the loss of this name

MAX_CHARACTERS = 160  # of a message
TOKENS, CLASSES, WIDTH = 6, 5, 4


class LossCheck(NamedTuple):
    """The outcome of one test of a loss."""

    name: str
    fault: str | None  # in one line; None: it passed


def check_losses(names: list[str]) -> Iterator[tuple[str, LossCheck]]:
    """Run every test on each of these losses.

    Args:
        names: In LOSSES.

    Yields:
        The loss's name and an outcome.
    """
    for name in names:
        for what, check in LOSS_CHECKS.items():
            yield name, LossCheck(what, _fault(name, check))


def _fault(name: str, check: Check) -> str | None:
    for options in _options_to_try(name):
        try:
            check(name, options)
        except Exception as error:  # whatever a stranger's code raises
            given = ", ".join(f"{key}={value:g}" for key, value in options.items())
            said = " ".join(str(error).split())[:MAX_CHARACTERS] or "it does not hold"
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            return f"{kind}{said}" + (f" (with {given})" if given else "")
    return None


def _options_to_try(name: str) -> list[OptionValues]:
    """Return the defaults, and the ends of the ranges that are searched."""
    options = LOSSES[name].options
    ends = [{key: getattr(one, end) for key, one in options.items()} for end in ("low", "high")]
    return [{key: one.default for key, one in options.items()}, *ends]


def _scores(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(TOKENS, CLASSES, generator=generator, dtype=torch.float64)
    return logits, torch.randint(CLASSES, (TOKENS,), generator=generator)


def gradient(name: str, options: OptionValues) -> None:
    """Compare the gradient with finite differences."""
    logits, targets = _scores()
    value = LOSSES[name](logits, targets, **options)
    assert value.isfinite(), f"the loss is {value.item()}"
    right = torch.autograd.gradcheck(
        lambda f: LOSSES[name](f, targets, **options),
        logits.requires_grad_(),
        atol=1e-8 * max(1.0, abs(value.item())),
        raise_exception=False,
    )
    assert right, "it is not the derivative that finite differences show"


def reduction(name: str, options: OptionValues) -> None:
    """Compare "mean" and "sum" with the costs by token, each of which depends on its row alone."""
    logits, targets = _scores()
    costs = LOSSES[name](logits, targets, reduction="none", **options)
    assert costs.shape == (TOKENS,), f"per-token costs must be (N,), but are {tuple(costs.shape)}"
    for row in range(TOKENS):
        alone = LOSSES[name](logits[row : row + 1], targets[row : row + 1], **options)
        torch.testing.assert_close(alone, costs[row])
    torch.testing.assert_close(LOSSES[name](logits, targets, **options), costs.mean())
    summed = LOSSES[name](logits, targets, reduction="sum", **options)
    torch.testing.assert_close(summed, costs.sum())


def ignore_index(name: str, options: OptionValues) -> None:
    """Compare the loss with that of the tokens that count, and its gradient at others with 0."""
    logits, targets = _scores()
    counts = torch.arange(TOKENS) % 2 == 0
    logits.requires_grad_()
    value = LOSSES[name](logits, targets.where(counts, IGNORE_INDEX), **options)
    torch.testing.assert_close(value, LOSSES[name](logits[counts], targets[counts], **options))
    (found,) = torch.autograd.grad(value, logits)
    assert (found[~counts] == 0).all(), "ignored targets must have no gradient"


def head(name: str, options: OptionValues) -> None:
    """Compare loss and gradients of the head that holds no logits with those on plain logits."""
    from gpt.losses.fused_linear import linear_loss  # imports torch's compiler

    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
    hidden.requires_grad_()
    weight.requires_grad_()
    targets = _scores()[1].clone()
    targets[1] = IGNORE_INDEX
    found = linear_loss(hidden, weight, targets, name, **options)
    plain = LOSSES[name](hidden @ weight.T, targets, **options)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(
        torch.autograd.grad(found, (hidden, weight)), torch.autograd.grad(plain, (hidden, weight))
    )


LOSS_CHECKS: dict[str, Check] = {
    "gradient": gradient,
    "reduction": reduction,
    "ignore_index": ignore_index,
    "head": head,
}
