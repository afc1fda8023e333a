"""Every loss of LOSSES against its formula written as a loop, and with torch's reductions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.losses import IGNORE_INDEX, LOSSES, check_loss, cross_entropy, squentropy


def cross_entropy_as_a_loop(f: list[float], y: int) -> float:
    return math.log(sum(math.exp(score) for score in f)) - f[y]


def squentropy_as_a_loop(f: list[float], y: int, square_weight: float = 1.0) -> float:
    squares = sum(f[j] ** 2 for j in range(len(f)) if j != y)
    return cross_entropy_as_a_loop(f, y) + square_weight / (len(f) - 1) * squares


LOOPS = {"cross_entropy": cross_entropy_as_a_loop, "squentropy": squentropy_as_a_loop}
all_losses = pytest.mark.parametrize("name", LOSSES)


def scores(n: int = 6, v: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, v, generator=generator, dtype=torch.float64)
    return logits, torch.randint(v, (n,), generator=generator)


@all_losses
def test_loss_matches_its_formula_written_as_a_loop(name: str):
    logits, targets = scores()
    per_token = LOSSES[name].fn(logits, targets, reduction="none")
    expected = [LOOPS[name](f.tolist(), int(y)) for f, y in zip(logits, targets, strict=True)]
    torch.testing.assert_close(per_token, torch.tensor(expected, dtype=torch.float64))


@all_losses
def test_gradient_is_the_derivative(name: str):
    logits, targets = scores()
    assert torch.autograd.gradcheck(
        lambda f: LOSSES[name].fn(f, targets), logits.requires_grad_(), atol=1e-8
    )


@all_losses
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_targets_do_not_count(name: str, reduction: str):
    logits, targets = scores()
    targets[1::2] = IGNORE_INDEX
    loss = LOSSES[name].fn
    whole = loss(logits, targets, reduction=reduction)
    if reduction == "none":
        assert (whole[1::2] == 0).all()
        whole = whole[0::2]
    torch.testing.assert_close(whole, loss(logits[0::2], targets[0::2], reduction=reduction))


@all_losses
def test_ignored_targets_have_no_gradient(name: str):
    logits, targets = scores()
    targets[2] = IGNORE_INDEX
    LOSSES[name].fn(logits.requires_grad_(), targets).backward()
    assert (logits.grad[2] == 0).all()
    assert (logits.grad[3] != 0).any()


@all_losses
def test_another_ignore_index_can_be_chosen(name: str):
    logits, targets = scores()
    loss = LOSSES[name].fn
    marked = targets.clone()
    marked[0] = -100
    torch.testing.assert_close(
        loss(logits, marked, ignore_index=-100), loss(logits[1:], targets[1:])
    )


@all_losses
def test_mean_over_no_target_at_all_is_nan_as_in_torch(name: str):
    logits, targets = scores()
    ignored = torch.full_like(targets, IGNORE_INDEX)
    assert F.cross_entropy(logits, ignored, ignore_index=IGNORE_INDEX).isnan()
    assert LOSSES[name].fn(logits, ignored).isnan()


@all_losses
def test_unknown_reduction_is_refused(name: str):
    with pytest.raises(ValueError, match="average"):
        LOSSES[name].fn(*scores(), reduction="average")


@all_losses
def test_half_precision_logits_are_summed_in_float32(name: str):
    logits, targets = scores(n=4, v=4096)
    half = logits.bfloat16()
    loss = LOSSES[name].fn(half, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss.double(), LOSSES[name].fn(half.double(), targets), rtol=1e-5, atol=0
    )


@all_losses
def test_large_logits_stay_finite_in_float32(name: str):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    assert LOSSES[name].fn(logits, torch.tensor([0, 1])).isfinite()


def test_cross_entropy_of_uniform_scores_is_the_log_of_the_classes():
    assert cross_entropy(torch.zeros(3, 7), torch.tensor([0, 3, 6])).item() == pytest.approx(
        math.log(7)
    )


def test_squentropy_by_hand():
    # f = (1, 2, -1), y = 1: CE = ln(e + e^2 + 1/e) - 2, squares of the others = (1 + 1) / 2
    expected = math.log(math.e + math.e**2 + 1 / math.e) - 2 + 1.0
    value = squentropy(torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([1]))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_squentropy_excludes_a_huge_true_logit_exactly():
    # by subtraction in float32, (1e8 + 3e-4) - 1e8 would leave 0
    logits = torch.tensor([[1e4, 1e-2, 1e-2, 1e-2]])
    assert squentropy(logits, torch.tensor([0])).item() == pytest.approx(1e-4, rel=1e-5)


def test_square_weight_zero_is_cross_entropy():
    logits, targets = scores()
    torch.testing.assert_close(
        squentropy(logits, targets, square_weight=0.0), cross_entropy(logits, targets)
    )


def test_square_weight_scales_the_square_term_only():
    logits, targets = scores()
    ce = cross_entropy(logits, targets)
    one, three = (squentropy(logits, targets, square_weight=w) for w in (1.0, 3.0))
    torch.testing.assert_close(three - ce, 3 * (one - ce))


def test_an_unknown_loss_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"loss must be one of cross_entropy, squentropy.*'mse'"):
        check_loss("mse", {})


def test_an_option_of_another_loss_is_refused():
    with pytest.raises(ValueError, match="square_weight is no option of cross_entropy"):
        check_loss("cross_entropy", {"square_weight": 1.0})


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"square_weight must be at least 0, but got -1\.0"):
        check_loss("squentropy", {"square_weight": -1.0})
