"""Our own attention and dropout: what torch's kernels give, and the shares that were asked for."""

import pytest
import torch
from torch.nn import functional as F

from gpt.model import MAX_PLAIN_TOKENS, causal_attention, dropout


def gradients(out: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return list(torch.autograd.grad(out, inputs, torch.randn(out.shape).to(out.dtype)))


@pytest.mark.parametrize("length", [1, 5, 64])
def test_attention_in_bfloat16_is_exact_to_its_rounding(length: int):
    torch.manual_seed(0)
    half = tuple(torch.randn(2, 3, length, 8).bfloat16().requires_grad_() for _ in range(3))
    exact = tuple(x.detach().double().requires_grad_() for x in half)
    with torch.autocast("cpu", torch.bfloat16):
        ours = causal_attention(*half, p=0.0)
    theirs = F.scaled_dot_product_attention(*exact, is_causal=True)
    for a, b in zip(
        [ours, *gradients(ours, half)], [theirs, *gradients(theirs, exact)], strict=True
    ):
        assert a.dtype == torch.bfloat16
        assert (a.double() - b).norm() <= 2**-7 * b.norm()


def test_attention_in_float32_without_dropout_is_torchs_bit_for_bit():
    q, k, v = (torch.randn(2, 3, 16, 8) for _ in range(3))
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(causal_attention(q, k, v, 0.0), theirs)


@pytest.mark.parametrize("length", [16, MAX_PLAIN_TOKENS + 1])
def test_attention_with_dropout_has_the_mean_of_attention_without(length: int):
    torch.manual_seed(2)
    q, k = torch.randn(2, 1, 1, length, 4)
    v = torch.ones(1, 1, length, 4)
    mixed = torch.cat([causal_attention(q, k, v, 0.25) for _ in range(200 * 16 // length)])
    assert mixed.mean().item() == pytest.approx(1.0, abs=0.03)
    assert 0.0 < mixed[:, :, -1].std().item() < 0.6


def test_a_dropped_weight_lets_nothing_through():
    torch.manual_seed(3)
    first = torch.zeros(400, 1, 1, 2)  # one token: its only weight is 1 or 0
    kept = causal_attention(first, first, torch.ones(400, 1, 1, 2), 0.25)[:, 0, 0, 0]
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.37, 0.9])
def test_dropout_drops_the_share_and_keeps_the_mean(p: float, dtype: torch.dtype):
    torch.manual_seed(4)
    n = 400_003  # no multiple of the four elements that a random number serves
    x = torch.ones(n, dtype=dtype, requires_grad=True)
    y = dropout(x, p, training=True)
    dropped = (y == 0).double().mean().item()
    assert dropped == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5)
    assert y.double().mean().item() == pytest.approx(1.0, abs=0.02)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y)


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.37, 0.999])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_kept_is_divided_by_its_share(p: float, dtype: torch.dtype):
    y = dropout(torch.ones(100_000, dtype=dtype), p, training=True)
    share = 1 - round(p * 2**16) / 2**16
    assert y[y > 0].unique().tolist() == [torch.tensor(1 / share, dtype=dtype).item()]


def test_what_dropout_does_to_one_element_says_nothing_of_its_neighbours():
    torch.manual_seed(5)
    zero = (dropout(torch.ones(200_000, 4), 0.5, training=True) == 0).double()
    correlation = torch.corrcoef(torch.cat([zero[:-1], zero[1:]], 1).T)  # next to and after it
    off_diagonal = correlation - torch.eye(8)
    assert off_diagonal.abs().max().item() < 0.012


def test_dropout_repeats_with_its_seed_and_goes_on_from_a_saved_state():
    x = torch.ones(1000)
    torch.manual_seed(6)
    first = dropout(x, 0.5, training=True)
    state = torch.get_rng_state()
    second = dropout(x, 0.5, training=True)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5, training=True), second)
    torch.manual_seed(6)
    assert torch.equal(dropout(x, 0.5, training=True), first)
    assert not torch.equal(first, second)


def test_dropout_of_nothing_or_outside_of_training_draws_nothing():
    x = torch.randn(10)
    state = torch.get_rng_state()
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    assert torch.equal(torch.get_rng_state(), state)
