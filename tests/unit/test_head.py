"""Losses without the logits: the same as on logits that are at hand, to the last digits."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gpt.config import GPTConfig
from gpt.losses import fused_linear as head
from gpt.losses.functional import LOSSES
from gpt.losses.fused_linear import linear_loss, logit_blocks
from gpt.losses.logit_stats import ChunkStats
from gpt.losses.loss import IGNORE_INDEX
from gpt.model import GPT

all_losses = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def tiny_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three rows in blocks of one or two, so that small tensors have several of each."""
    monkeypatch.setattr(head, "CHUNK_ROWS", {"cpu": 3})
    monkeypatch.setattr(head, "CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(head, "BLOCK_BYTES", {"cpu": 2 * 5 * 8})
    monkeypatch.setattr(head, "EVALUATION_BYTES", {"cpu": 2 * 5 * 8})


def tensors(
    n: int = 10, c: int = 4, v: int = 7, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, weight and targets, of which some are ignored."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, c, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(v, c, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(v, (n,), generator=generator)
    targets[1::4] = IGNORE_INDEX
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def with_gradients(loss: Tensor, *variables: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, variables)]


def middle_options(name: str) -> dict[str, float]:
    return {key: (o.low + o.high) / 2 for key, o in LOSSES[name].options.items()}


@all_losses
@pytest.mark.usefixtures("tiny_chunks")
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    n=st.integers(1, 11),
    c=st.integers(1, 5),
    v=st.integers(2, 9),
    seed=st.integers(0, 1000),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_loss_and_gradients_are_those_of_the_logits(
    name: str, n: int, c: int, v: int, seed: int, reduction: str
):
    hidden, weight, targets = tensors(n, c, v, seed)
    targets[0] = 0  # at least one counts
    options = middle_options(name)
    found = linear_loss(hidden, weight, targets, name, reduction=reduction, **options)
    plain = LOSSES[name](hidden @ weight.T, targets, reduction=reduction, **options)
    torch.testing.assert_close(
        with_gradients(found, hidden, weight), with_gradients(plain, hidden, weight)
    )


@all_losses
@pytest.mark.usefixtures("tiny_chunks")
def test_gradients_are_the_derivatives(name: str):
    hidden, weight, targets = tensors(n=5, c=2, v=4)
    assert torch.autograd.gradcheck(
        lambda h, w: linear_loss(h, w, targets, name), (hidden, weight), atol=1e-6
    )


@all_losses
def test_all_targets_ignored_is_nan_as_in_torch_and_0_as_a_sum(name: str):
    hidden, weight, targets = tensors()
    ignored = torch.full_like(targets, IGNORE_INDEX)
    assert linear_loss(hidden, weight, ignored, name).isnan()
    value, *gradients = with_gradients(
        linear_loss(hidden, weight, ignored, name, reduction="sum"), hidden, weight
    )
    assert value == 0
    assert all((gradient == 0).all() for gradient in gradients)


def relative_errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Of the value, and of each gradient in the 2-norm."""
    return [((f.double() - e).norm() / e.norm()).item() for f, e in zip(found, exact, strict=True)]


@pytest.fixture
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 256 rows, each in three blocks of logits of 1,000 classes."""
    monkeypatch.setattr(head, "CHUNK_ROWS", {"cpu": 256})
    monkeypatch.setattr(head, "CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(head, "BLOCK_BYTES", {"cpu": 100 * 4000})


@all_losses
@pytest.mark.usefixtures("several_chunks")
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
def test_error_against_float64_is_within_what_is_promised(
    name: str, dtype: torch.dtype, limit: float
):
    hidden, weight, targets = tensors(n=600, c=64, v=1000, dtype=torch.float32)
    with torch.no_grad():
        weight.mul_(0.1)  # logits of size 0.8
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = linear_loss(hidden, weight, targets, name)
    h, w = (x.detach().double().requires_grad_() for x in (hidden, weight))
    exact = LOSSES[name](h @ w.T, targets)
    errors = relative_errors(with_gradients(found, hidden, weight), with_gradients(exact, h, w))
    assert max(errors) < limit, errors
    assert found.dtype == torch.float32


def test_float16_keeps_gradients_that_are_smaller_than_its_numbers():
    hidden, weight, targets = tensors(n=2048, c=8, v=256, dtype=torch.float32)
    with torch.no_grad():
        weight.mul_(0.1)
        hidden[:, 0], weight[:, 0], weight[0] = 1.0, 0.0, 0.0
        weight[0, 0] = 12.0  # the logit of the true class: the others have p / N of about 3e-9
    targets = torch.zeros_like(targets)
    with torch.autocast("cpu", dtype=torch.float16):
        found = linear_loss(hidden, weight, targets)
    h, w = (x.detach().double().requires_grad_() for x in (hidden, weight))
    exact = with_gradients(F.cross_entropy(h @ w.T, targets), h, w)
    ours = with_gradients(found, hidden, weight)
    of_others = [(x[:, 1:], y[:, 1:]) for x, y in zip(ours[1:], exact[1:], strict=True)]
    assert max(relative_errors(*map(list, zip(*of_others, strict=True)))) < 1e-2


def test_float16_keeps_a_sum_over_tokens_that_is_larger_than_its_numbers():
    hidden, weight = (
        torch.ones(2048, 8, requires_grad=True),
        torch.zeros(257, 8, requires_grad=True),
    )
    targets = torch.arange(2048) % 257
    targets[:205] = 0  # a frequent token: its row of the sum is 330,000
    options = {"square_weight": 10.0, "true_weight": 1000.0, "true_target": 20.0}
    with torch.autocast("cpu", dtype=torch.float16):
        found = linear_loss(hidden, weight, targets, "rescaled_squentropy", **options)
    h, w = (x.detach().double().requires_grad_() for x in (hidden, weight))
    exact = LOSSES["rescaled_squentropy"](h @ w.T, targets, **options)
    errors = relative_errors(with_gradients(found, hidden, weight), with_gradients(exact, h, w))
    assert max(errors) < 2e-3, errors


@all_losses
def test_logits_of_ten_thousand_stay_finite(name: str):
    weight = torch.tensor([[1e4], [-1e4], [0.0], [1e-2]], requires_grad=True)
    hidden = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    found = with_gradients(linear_loss(hidden, weight, torch.tensor([0, 3]), name), hidden, weight)
    h, w = (x.detach().double().requires_grad_() for x in (hidden, weight))
    exact = with_gradients(LOSSES[name](h @ w.T, torch.tensor([0, 3])), h, w)
    assert all(x.isfinite().all() for x in found)
    assert max(relative_errors(found, exact)) < 1e-5


def test_a_huge_true_logit_is_left_out_exactly():
    weight = torch.tensor([[1e4], [1e-2], [1e-2], [1e-2]])
    value = linear_loss(torch.ones(1, 1), weight, torch.tensor([0]), "squentropy")
    assert value.item() == pytest.approx(1e-4, rel=1e-5)


@all_losses
def test_a_tied_embedding_gets_the_gradients_of_both_its_uses(name: str):
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=8)
    model = GPT(config).double()
    idx, targets = torch.randint(50, (2, 2, 8))
    hidden = model(idx)
    plain = LOSSES[name](model.logits(hidden).flatten(0, 1), targets.flatten())
    found = linear_loss(hidden.flatten(0, 1), model.lm_head.weight, targets.flatten(), name)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(plain, parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(found, parameters), expected)


@all_losses
def test_two_micro_batches_add_up_to_the_whole_one(name: str):
    hidden, weight, targets = tensors(n=8)
    whole = with_gradients(
        linear_loss(hidden, weight, targets, name, reduction="sum"), hidden, weight
    )
    for start in (0, 4):
        rows = slice(start, start + 4)
        linear_loss(hidden[rows], weight, targets[rows], name, reduction="sum").backward()
    torch.testing.assert_close([hidden.grad, weight.grad], whole[1:])


def test_a_factor_before_backward_scales_the_gradients():
    hidden, weight, targets = tensors()
    once = with_gradients(linear_loss(hidden, weight, targets, "squentropy"), hidden, weight)
    third = with_gradients(linear_loss(hidden, weight, targets, "squentropy") / 3, hidden, weight)
    torch.testing.assert_close([3 * x for x in third], once)


# dynamo silences this warning with a filter of its own, which "error" overrides
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("autocast", [False, True])
def test_it_works_inside_a_compiled_function(autocast: bool):
    hidden, weight, targets = tensors(dtype=torch.float32)

    def step(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return linear_loss(h * 2, w, y, "squentropy")

    compiled = torch.compile(step, backend="aot_eager")
    torch.testing.assert_close(
        with_gradients(compiled(hidden, weight, targets), hidden, weight),
        with_gradients(step(hidden, weight, targets), hidden, weight),
    )


class LargestTensor(TorchDispatchMode):
    """Watches every operation for the largest tensor that it makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return made


@all_losses
def test_no_tensor_is_larger_than_a_chunk_of_logits(name: str):
    n, c, v = 2000, 4, 5000
    hidden, weight, targets = tensors(n, c, v, dtype=torch.float32)
    with LargestTensor() as largest:
        linear_loss(hidden, weight, targets, name).backward()
    assert largest.numel == head.CHUNK_ROWS["cpu"] * v


def test_of_a_small_vocabulary_a_chunk_has_more_rows():
    n, c, v = 30_000, 4, 100
    with LargestTensor() as largest:
        linear_loss(*tensors(n, c, v, dtype=torch.float32))
    assert largest.numel == pytest.approx(head.CHUNK_BYTES["cpu"] / 4, rel=0.01)


@pytest.mark.usefixtures("tiny_chunks")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_blocks_of_logits_are_all_the_logits_and_may_be_overwritten(dtype: torch.dtype):
    hidden, weight, _ = tensors(dtype=dtype)
    rows, parts = [], []
    for these, part in logit_blocks(hidden, weight.float()):
        rows.append(these)
        parts.append(part.clone())
        part.fill_(torch.nan)
    assert [r.stop for r in rows[:-1]] == [r.start for r in rows[1:]]
    assert (rows[0].start, rows[-1].stop, len(rows)) == (0, 10, 7)  # of 2, 1, 2, 1, 2, 1, 1
    assert all(part.dtype == torch.float32 for part in parts)
    torch.testing.assert_close(torch.cat(parts), (hidden @ weight.T).float())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@all_losses
def test_a_float64_loss_has_float64_digits(name: str, reduction: str):
    """Seven tokens count: a seventh has no exact digits in float32."""
    hidden, weight, targets = tensors(n=9)
    assert int((targets != IGNORE_INDEX).sum()) == 7
    options = middle_options(name)
    expected = LOSSES[name](hidden @ weight.T, targets, reduction, **options)
    found = linear_loss(hidden, weight, targets, name, reduction, **options)
    assert found.item() == pytest.approx(expected.item(), rel=1e-13)
    for exact, mine in zip(
        torch.autograd.grad(expected, (hidden, weight)),
        torch.autograd.grad(found, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, exact, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("below", [[0], [1], [60], [68], [70], [88], [104], [1000], [0, 70, 1000]])
def test_the_nats_of_an_unlikely_token_keep_their_digits(below: list[int]):
    """Where p_y is 1e-30, underflows, or stands beside one that does."""
    f = torch.zeros(len(below), 3)
    f[:, 1] = -torch.tensor(below)
    y = torch.ones(len(below), dtype=torch.long)
    exact = F.cross_entropy(f.double(), y, reduction="none")
    found = ChunkStats(f, torch.empty_like(f), y).cross_entropy
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


H, W, Y = torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((H, W, Y), {"reduction": "none"}, "reduction must be one of mean, sum, but got 'none'"),
        ((H, W, Y), {"loss": "mse"}, "loss must be one of cross_entropy"),
        ((H, W, Y), {"gamma": 1.0}, "gamma is no option of cross_entropy"),
        ((H, W.T, Y), {}, r"hidden must be \(N, C\) and weight \(V, C\), but got \(4, 3\) and"),
        ((H.long(), W, Y), {}, "hidden must be floating-point numbers, but got torch.int64"),
        ((H, W, Y[1:]), {}, r"targets must be \(4,\), but got \(3,\)"),
        ((H, W, Y + 5), {}, r"targets must be in \[0, 5\) or ignore_index -1, but got 5"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    arguments: tuple[Tensor, Tensor, Tensor], options: dict[str, object], message: str
):
    with pytest.raises(ValueError, match=message):
        linear_loss(*arguments, **options)
