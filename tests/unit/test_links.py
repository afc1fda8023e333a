"""A link reads the true probabilities off the logits at which the expected loss is least."""

import pytest
import torch
from torch import Tensor

from gpt.losses.functional import LOSSES
from gpt.losses.link_functions import FLOOR

WITH_LINK = [name for name in LOSSES if name != "absolute"]  # whose optimum may be at a kink


def true_probabilities(v: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(v, generator=generator, dtype=torch.float64).softmax(0)


def population_optimum(name: str, options: dict[str, float], pi: Tensor) -> Tensor:
    """The logits (V,) of the least expected loss where y has probabilities pi: Newton's method."""
    v = len(pi)

    def expected(f: Tensor) -> Tensor:
        per_class = LOSSES[name](f.expand(v, v), torch.arange(v), reduction="none", **options)
        return (pi * per_class).sum()

    f = pi.log() / 2
    f = f - f.mean()
    for _ in range(100):
        f = f.detach().requires_grad_()
        value = expected(f)
        (slope,) = torch.autograd.grad(value, f)
        curvature = torch.autograd.functional.hessian(expected, f.detach())
        values, vectors = torch.linalg.eigh(curvature)
        along = vectors.T @ slope
        flat = values.abs() < 1e-13  # the shift that softmax does not see
        step = vectors @ torch.where(flat, 0.0, along / values.abs().clamp_min(1e-13))
        size = 1.0
        while size > 1e-8 and expected(f - size * step) > value + 1e-15:
            size /= 2
        f = f - size * step
        if slope.abs().max() < 1e-14:
            break
    return f.detach()


@pytest.mark.parametrize("v", [3, 20])
@pytest.mark.parametrize("name", WITH_LINK)
def test_at_the_population_optimum_the_link_is_the_truth(name: str, v: int):
    loss = LOSSES[name]
    for seed, share in enumerate((0.1, 0.5)):
        options = {
            key: o.low + share * (min(o.high, 10 * o.default or 1.0) - o.low)
            for key, o in loss.options.items()
        }
        pi = true_probabilities(v, seed)
        f = population_optimum(name, options, pi)
        found = loss.probabilities(f.softmax(0), f, options)
        assert (found - pi).abs().max() < 1e-10, options


@pytest.mark.parametrize("v", [5, 50])
@pytest.mark.parametrize("square_weight", [0.01, 1.0, 30.0])
def test_squentropys_link_is_exact_where_softmax_is_not(v: int, square_weight: float):
    pi = true_probabilities(v, seed=7)
    f = population_optimum("squentropy", {"square_weight": square_weight}, pi)
    p = f.softmax(0)
    found = LOSSES["squentropy"].probabilities(p, f, {"square_weight": square_weight})
    assert (found - pi).abs().max() < 1e-10
    excess = (pi * (pi / p).log()).sum()  # nats that softmax loses, for ever
    assert excess > 1e-9


@pytest.mark.parametrize("name", LOSSES)
def test_a_link_gives_probabilities_whatever_the_logits(name: str):
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 3.0, 100.0):
        f = scale * torch.randn(50, 30, generator=generator)
        p = f.softmax(-1)
        pi = LOSSES[name].probabilities(p, f, {})
        torch.testing.assert_close(pi.sum(-1), torch.ones(50))
        assert (pi >= 0).all()


def test_a_token_to_which_a_link_gives_nothing_keeps_a_share_of_softmax():
    f = torch.tensor([[5.0, 0.0, -5.0]], dtype=torch.float64)
    p = f.softmax(-1)
    pi = LOSSES["squentropy"].probabilities(p, f, {"square_weight": 1.0})  # kappa = 1
    # p + f < 0 for the last one; the others: (p + f) / (1 + f)
    raw = torch.stack([(p[0, 0] + 5) / 6, p[0, 1], FLOOR * p[0, 2]])
    torch.testing.assert_close(pi[0], raw / raw.sum())


def test_the_link_of_a_proper_loss_is_softmax_itself():
    p = torch.rand(4, 5).softmax(-1)
    for name in ("cross_entropy", "brier_ce", "z_loss"):
        assert LOSSES[name].probabilities(p, torch.rand(4, 5), {}) is p


@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_leave_the_logits_as_they_are(name: str):
    f = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    logits, p = f.clone(), f.softmax(1)
    LOSSES[name].probabilities(p, logits, {})
    assert torch.equal(logits, f)
    assert torch.equal(p, f.softmax(1))
