"""Every loss of LOSSES against its formula written as a loop, and with torch's reductions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.losses.functional import LOSSES
from gpt.losses.loss import IGNORE_INDEX
from gpt.losses.options import check_choice


def log_softmax(f: list[float]) -> list[float]:
    log_sum = math.log(sum(math.exp(score) for score in f))
    return [score - log_sum for score in f]


def ce(f: list[float], y: int) -> float:
    return -log_softmax(f)[y]


def p(f: list[float]) -> list[float]:
    return [math.exp(log_p) for log_p in log_softmax(f)]


def wrong(f: list[float], y: int) -> list[float]:
    return [score for j, score in enumerate(f) if j != y]


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def cross_entropy_as_a_loop(f: list[float], y: int, label_smoothing: float) -> float:
    uniform = sum(-log_p for log_p in log_softmax(f)) / len(f)
    return (1 - label_smoothing) * ce(f, y) + label_smoothing * uniform


def squentropy_as_a_loop(f: list[float], y: int, square_weight: float) -> float:
    return ce(f, y) + square_weight / (len(f) - 1) * sum(g**2 for g in wrong(f, y))


def rescaled_squentropy_as_a_loop(
    f: list[float], y: int, square_weight: float, true_weight: float, true_target: float
) -> float:
    squares = true_weight * (f[y] - true_target) ** 2 + sum(g**2 for g in wrong(f, y))
    return ce(f, y) + square_weight / len(f) * squares


def brier_ce_as_a_loop(f: list[float], y: int, brier_weight: float) -> float:
    brier = sum((p_j - (j == y)) ** 2 for j, p_j in enumerate(p(f)))
    return ce(f, y) + brier_weight * brier


def logit_l2_as_a_loop(f: list[float], y: int, square_weight: float) -> float:
    return ce(f, y) + square_weight * sum(g**2 for g in f) / len(f)


def logit_variance_as_a_loop(f: list[float], y: int, square_weight: float) -> float:
    mean = sum(f) / len(f)
    return ce(f, y) + square_weight * sum((g - mean) ** 2 for g in f) / len(f)


def z_loss_as_a_loop(f: list[float], y: int, z_weight: float) -> float:
    return ce(f, y) + z_weight * math.log(sum(math.exp(g) for g in f)) ** 2


def focal_as_a_loop(f: list[float], y: int, gamma: float) -> float:
    return (1 - p(f)[y]) ** gamma * ce(f, y)


def poly1_as_a_loop(f: list[float], y: int, epsilon: float) -> float:
    return ce(f, y) + epsilon * (1 - p(f)[y])


def absolute_as_a_loop(f: list[float], y: int, residual_weight: float) -> float:
    return ce(f, y) + residual_weight * sum(abs(g) for g in wrong(f, y)) / (len(f) - 1)


def huber_as_a_loop(f: list[float], y: int, residual_weight: float, huber_delta: float) -> float:
    d = huber_delta
    costs = [g**2 / 2 if abs(g) <= d else d * (abs(g) - d / 2) for g in wrong(f, y)]
    return ce(f, y) + residual_weight * sum(costs) / (len(f) - 1)


def logistic_as_a_loop(f: list[float], y: int, residual_weight: float) -> float:
    costs = [softplus(-f[y]), *(softplus(g) for g in wrong(f, y))]
    return ce(f, y) + residual_weight * sum(costs) / len(f)


LOOPS = {name: globals()[f"{name}_as_a_loop"] for name in LOSSES}
all_losses = pytest.mark.parametrize("name", LOSSES)


def options_to_try(name: str) -> list[dict[str, float]]:
    """The defaults, and the ends of the range that is searched."""
    options = LOSSES[name].options
    ends = [{key: getattr(o, end) for key, o in options.items()} for end in ("low", "high")]
    return [{key: option.default for key, option in options.items()}, *ends]


def scores(n: int = 6, v: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, v, generator=generator, dtype=torch.float64)
    return logits, torch.randint(v, (n,), generator=generator)


@all_losses
def test_loss_matches_its_formula_written_as_a_loop(name: str):
    logits, targets = scores()
    for options in options_to_try(name):
        per_token = LOSSES[name](logits, targets, reduction="none", **options)
        expected = [
            LOOPS[name](f.tolist(), int(y), **options) for f, y in zip(logits, targets, strict=True)
        ]
        torch.testing.assert_close(per_token, torch.tensor(expected, dtype=torch.float64))


@all_losses
def test_gradient_is_the_derivative(name: str):
    logits, targets = scores()
    for options in options_to_try(name):
        size = LOSSES[name](logits, targets, **options).item()  # so are errors of differences
        assert torch.autograd.gradcheck(
            lambda f, options=options: LOSSES[name](f, targets, **options),
            logits.clone().requires_grad_(),
            atol=1e-8 * max(1.0, size),
        )


@all_losses
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_targets_do_not_count(name: str, reduction: str):
    logits, targets = scores()
    targets[1::2] = IGNORE_INDEX
    loss = LOSSES[name]
    whole = loss(logits, targets, reduction=reduction)
    if reduction == "none":
        assert (whole[1::2] == 0).all()
        whole = whole[0::2]
    torch.testing.assert_close(whole, loss(logits[0::2], targets[0::2], reduction=reduction))


@all_losses
def test_ignored_targets_have_no_gradient(name: str):
    logits, targets = scores()
    targets[2] = IGNORE_INDEX
    LOSSES[name](logits.requires_grad_(), targets).backward()
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    assert (logits.grad[3] != 0).any()


@all_losses
def test_another_ignore_index_can_be_chosen(name: str):
    logits, targets = scores()
    loss = LOSSES[name]
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
    assert LOSSES[name](logits, ignored).isnan()
    assert LOSSES[name](logits, ignored, reduction="sum") == 0


@all_losses
def test_half_precision_logits_are_summed_in_float32(name: str):
    logits, targets = scores(n=4, v=4096)
    half = logits.bfloat16()
    loss = LOSSES[name](half, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss.double(), LOSSES[name](half.double(), targets), rtol=1e-5, atol=0
    )


@all_losses
def test_logits_of_ten_thousand_are_as_right_in_float32_as_in_float64(name: str):
    targets = torch.tensor([0, 1, 2])
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 9.999e3]])
    by_dtype = []
    for dtype in (torch.float32, torch.float64):
        f = logits.to(dtype, copy=True).requires_grad_()
        value = LOSSES[name](f, targets)
        value.backward()
        by_dtype += [(value.double(), f.grad.double())]
    (value, gradient), (exact, exact_gradient) = by_dtype
    torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, exact_gradient, rtol=1e-5, atol=1e-5)


@all_losses
def test_a_true_class_that_is_certain_has_a_finite_gradient(name: str):
    for options in options_to_try(name):
        logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
        LOSSES[name](logits, torch.tensor([0]), **options).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_cross_entropy_with_smoothing_is_torchs():
    logits, targets = scores()
    torch.testing.assert_close(
        LOSSES["cross_entropy"](logits, targets, label_smoothing=0.1),
        F.cross_entropy(logits, targets, label_smoothing=0.1),
    )


def test_cross_entropy_of_uniform_scores_is_the_log_of_the_classes():
    value = LOSSES["cross_entropy"](torch.zeros(3, 7), torch.tensor([0, 3, 6]))
    assert value.item() == pytest.approx(math.log(7))


def test_squentropy_by_hand():
    # f = (1, 2, -1), y = 1: CE = ln(e + e^2 + 1/e) - 2, squares of the others = (1 + 1) / 2
    expected = math.log(math.e + math.e**2 + 1 / math.e) - 2 + 1.0
    value = LOSSES["squentropy"](torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([1]))
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_squentropy_excludes_a_huge_true_logit_exactly():
    # by subtraction in float32, (1e8 + 3e-4) - 1e8 would leave 0
    logits = torch.tensor([[1e4, 1e-2, 1e-2, 1e-2]])
    value = LOSSES["squentropy"](logits, torch.tensor([0]))
    assert value.item() == pytest.approx(1e-4, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("squentropy", {"square_weight": 0.0}),
        ("rescaled_squentropy", {"square_weight": 0.0}),
        ("brier_ce", {"brier_weight": 0.0}),
        ("logit_l2", {"square_weight": 0.0}),
        ("logit_variance", {"square_weight": 0.0}),
        ("z_loss", {"z_weight": 0.0}),
        ("focal", {"gamma": 0.0}),
        ("poly1", {"epsilon": 0.0}),
        ("absolute", {"residual_weight": 0.0}),
        ("huber", {"residual_weight": 0.0}),
        ("logistic", {"residual_weight": 0.0}),
    ],
)
def test_without_its_addition_a_loss_is_cross_entropy(name: str, options: dict[str, float]):
    logits, targets = scores()
    torch.testing.assert_close(
        LOSSES[name](logits, targets, **options), F.cross_entropy(logits, targets)
    )


def test_logit_variance_does_not_see_a_shift_of_all_logits():
    logits, targets = scores()
    loss = LOSSES["logit_variance"]
    torch.testing.assert_close(loss(logits + 100, targets), loss(logits, targets))


def test_rescaled_squentropy_is_by_default_what_the_original_study_trained():
    # its code: cross-entropy + mean over classes of (onehot - f)^2, the true class's 65 times
    logits, targets = scores()
    residuals = (F.one_hot(targets, logits.shape[1]) - logits).square()
    residuals[torch.arange(len(targets)), targets] *= 65
    expected = F.cross_entropy(logits, targets) + residuals.mean()
    torch.testing.assert_close(LOSSES["rescaled_squentropy"](logits, targets), expected)


def test_an_unknown_loss_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"loss must be one of cross_entropy, squentropy.*'mse'"):
        check_choice("loss", LOSSES, "mse", {})


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        ("cross_entropy", {"square_weight": 1.0}, "square_weight is no option of cross_entropy"),
        ("brier_ce", {"weight": 1.0}, "which takes: brier_weight"),
        ("squentropy", {"square_weight": -1.0}, "square_weight must be at least 0, but got -1.0"),
        ("squentropy", {"square_weight": math.nan}, "square_weight must be at least 0, but got"),
        ("cross_entropy", {"label_smoothing": 1.0}, "label_smoothing must be below 1, but got 1.0"),
        ("poly1", {"epsilon": -2.0}, "epsilon must be at least -1, but got -2.0"),
        ("huber", {"huber_delta": 0.0}, "huber_delta must be at least 1e-06, but got 0.0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(loss: str, options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        check_choice("loss", LOSSES, loss, options)


F32, INTS = torch.zeros(4, 5), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("logits", "targets", "arguments", "message"),
    [
        (
            F32,
            INTS,
            {"reduction": "average"},
            "reduction must be one of mean, sum, none.*'average'",
        ),
        (F32.long(), INTS, {}, "logits must be floating-point numbers, but got torch.int64"),
        (F32[0], INTS, {}, r"logits must be \(N, V\), but got \(5,\)"),
        (F32, INTS[:3], {}, r"targets must be \(4,\), but got \(3,\)"),
        (F32, INTS.float(), {}, "targets must be integers, but got torch.float32"),
        (F32, INTS + 5, {}, r"targets must be in \[0, 5\) or ignore_index -1, but got 5"),
        (F32, INTS - 2, {}, r"targets must be in \[0, 5\) or ignore_index -1, but got -2"),
        (F32, INTS, {"square_weight": -1.0}, "square_weight must be at least 0, but got -1.0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    logits: Tensor, targets: Tensor, arguments: dict[str, str], message: str
):
    with pytest.raises(ValueError, match=message):
        LOSSES["squentropy"](logits, targets, **arguments)
