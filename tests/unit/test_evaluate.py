"""Metrics by hand on three tokens and four classes, and on a model whose optimum is known."""

import json
import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config, write_run, write_stories
from torch import Tensor

from gpt.config import GPTConfig
from gpt.data.dataset import ValidationSet
from gpt.evaluate import Scores, flat_targets, hidden_states, metrics, perplexity_of, score
from gpt.events import Metrics
from gpt.losses.functional import LOSSES
from gpt.model import GPT
from gpt.train import train_directory

# p of each target, and which class is true; two stories, the second padded
P = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
STORIES = ValidationSet(
    idx=torch.zeros(2, 2, dtype=torch.long),
    targets=torch.tensor([[0, 2], [1, -1]]),
    story=torch.tensor([0, 1]),
    story_bytes=torch.tensor([6, 4]),
    floor_nats_per_token=None,
)
NATS = [math.log(2), -math.log(0.3), math.log(4)]


def scores(loss: str = "cross_entropy", **options: float) -> Scores:
    """With the identity for a head, hidden states are the logits."""
    return score(P.log(), torch.eye(4), STORIES, loss, options)


@pytest.fixture
def measured() -> Metrics:
    return metrics(scores(), STORIES.text_bytes)


def test_cross_entropy_is_the_mean_over_targets_and_perplexity_its_exponential(measured):
    assert measured.cross_entropy == pytest.approx(sum(NATS) / 3)
    assert measured.perplexity == pytest.approx((2 / 0.3 * 4) ** (1 / 3))


def test_story_perplexity_is_the_mean_of_each_storys_own(measured):
    assert measured.story_perplexity == pytest.approx((math.sqrt(2 / 0.3) + 4) / 2)


def test_bits_per_byte_are_all_bits_by_all_bytes(measured):
    assert measured.bits_per_byte == pytest.approx(sum(NATS) / math.log(2) / 10)


def test_accuracy_is_the_share_of_targets_that_no_token_is_more_likely_than(measured):
    # right; wrong, class 3 is likelier; and no token is more likely than one of four equals
    assert measured.accuracy == pytest.approx(2 / 3)


def test_brier_score_by_hand(measured):
    first = 0.25 + 0.0625 + 2 * 0.015625
    second = 0.01 + 0.04 + 0.49 + 0.16
    third = 3 * 0.0625 + 0.5625
    assert measured.brier_score == pytest.approx((first + second + third) / 3)


def test_entropy_by_hand(measured):
    second = -sum(p * math.log(p) for p in (0.1, 0.2, 0.3, 0.4))
    assert measured.entropy == pytest.approx((1.75 * math.log(2) + second + math.log(4)) / 3)


def test_mean_squared_logit_by_hand(measured):
    squares = sum(math.log(p) ** 2 for row in P.tolist() for p in row)
    assert measured.mean_squared_logit == pytest.approx(squares / 12)


def test_calibration_error_by_hand(measured):
    # three targets, a bin each: confidences 0.25, 0.4, 0.5; hits 1, 0, 1
    assert measured.calibration_error == pytest.approx((0.75 + 0.4 + 0.5) / 3)


def test_link_perplexity_is_perplexity_where_the_link_is_softmax(measured):
    assert measured.link_perplexity == measured.perplexity


def test_link_perplexity_is_that_of_the_losss_own_probabilities():
    found = metrics(scores("squentropy", square_weight=0.01), STORIES.text_bytes)
    pi = LOSSES["squentropy"].probabilities(P, P.log(), {"square_weight": 0.01})
    nats = -(pi[0, 0].log() + pi[1, 2].log() + pi[2, 1].log()) / 3
    assert found.link_perplexity == pytest.approx(nats.exp().item())
    assert found.link_perplexity != pytest.approx(found.perplexity)


def test_only_the_link_knows_which_loss_trained_the_model(measured):
    other = metrics(scores("squentropy"), STORIES.text_bytes)
    differing = {name for name, value in vars(other).items() if value != getattr(measured, name)}
    assert differing == {"link_perplexity"}


@pytest.mark.parametrize("scale", [0.01, 3.0, 40.0])
def test_figures_of_each_target_are_those_of_the_formulas_in_float64(scale: float):
    generator = torch.Generator().manual_seed(0)
    logits = 500 + scale * torch.randn(300, 50, generator=generator)
    y = torch.randint(50, (1, 300), generator=generator)
    story = ValidationSet(y, y, torch.tensor([0]), torch.tensor([1]), None)
    found = score(logits.clone(), torch.eye(50), story, "squentropy", {})

    f, y = logits.double(), y.T
    log_p = f.log_softmax(1)
    p, hit = log_p.exp(), torch.zeros_like(f).scatter(1, y, 1.0)
    pi = LOSSES["squentropy"].probabilities(p, f, {})
    expected = {
        "nats": -log_p.gather(1, y).squeeze(1),
        "link_nats": -pi.gather(1, y).squeeze(1).log(),
        "correct": (f.gather(1, y) == f.amax(1, keepdim=True)).squeeze(1),
        "confidence": p.amax(1),
        "brier": (p - hit).square().sum(1),
        "entropy": -(p * log_p).sum(1),
        "logit_square": f.square().mean(1),
    }
    for name, values in expected.items():
        actual = getattr(found, name).double()
        torch.testing.assert_close(actual, values.double(), rtol=1e-5, atol=1e-4, msg=name)


def test_sums_by_story_leave_padding_out():
    targets, story = flat_targets(STORIES)
    assert (targets.tolist(), story.tolist()) == ([0, 2, 1], [0, 0, 1])
    found = scores()
    assert found.by_story(found.nats).tolist() == pytest.approx([NATS[0] + NATS[1], NATS[2]])


def test_chunks_do_not_change_what_is_measured(monkeypatch: pytest.MonkeyPatch, measured):
    monkeypatch.setattr("gpt.losses.fused_linear.CHUNK_ROWS", {"cpu": 2})
    monkeypatch.setattr("gpt.losses.fused_linear.CHUNK_BYTES", {"cpu": 1})
    assert vars(metrics(scores(), STORIES.text_bytes)) == pytest.approx(vars(measured))


def test_perplexity_of_a_hopeless_model_is_infinite_not_an_error():
    assert perplexity_of(800.0) == math.inf


def test_hidden_states_are_those_before_each_target_in_the_texts_order():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=9, block_size=2, n_layer=1, n_head=1, n_embd=4, dropout=0.5))
    data = ValidationSet(
        idx=torch.tensor([[8, 1], [8, 3]]),
        targets=torch.tensor([[1, 2], [3, -1]]),
        story=torch.tensor([0, 1]),
        story_bytes=torch.tensor([1, 1]),
        floor_nats_per_token=None,
    )
    found = hidden_states(model, data, batch_size=1, autocast=nullcontext())
    assert model.training  # as it came
    whole: Tensor = model.eval()(data.idx)
    torch.testing.assert_close(found, whole.flatten(0, 1)[:3].detach())


def test_a_finished_run_leaves_its_scores_story_by_story(tmp_path: Path, cache: Path):
    config = tiny_config(write_stories(tmp_path / "text"), loss="squentropy")
    run_dir = write_run(tmp_path / "run", config)
    *_, last = train_directory(run_dir)
    stories = json.loads((run_dir / "stories.json").read_text())
    n = sum(stories["tokens"])
    assert last.cross_entropy == pytest.approx(sum(stories["nats"]) / n)
    assert math.log(last.link_perplexity) == pytest.approx(sum(stories["link_nats"]) / n)
    assert last.accuracy == pytest.approx(sum(stories["correct"]) / n)
    bits = sum(stories["nats"]) / math.log(2)
    assert last.bits_per_byte == pytest.approx(bits / sum(stories["bytes"]))
    assert len({len(values) for values in stories.values()}) == 1
    bins = json.loads((run_dir / "calibration.json").read_text())
    assert sum(b["count"] for b in bins) == n
    error = sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / n
    assert last.calibration_error == pytest.approx(error)


def test_one_temperature_is_fitted_at_the_last_step_only(tmp_path: Path, cache: Path):
    run_dir = write_run(tmp_path / "run", tiny_config(write_stories(tmp_path / "text")))
    *before, last = train_directory(run_dir)
    assert {e.temperature_perplexity for e in before} == {None}
    assert last.temperature_perplexity < last.perplexity  # after 12 steps it is too unsure
