"""Metrics of a model on the validation stories, the same whichever loss trained it.

Shapes: R rows of T tokens, M targets in them, C = n_embd, V classes. `score` reads the logits of
every target once; `metrics` averages. Add a metric by adding a field to gpt.events.Metrics.

    brier_score         Brier (1950), Monthly Weather Review 78: sum over j of (p_j - [j = y]) ** 2
    calibration_error   see gpt.losses.calibration
    link_perplexity     exp of the mean of -log pi_y, where pi are the probabilities under the
                        loss's own link function (gpt.losses.link_functions)
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from gpt.data.dataset import ValidationSet
from gpt.events import CALIBRATION_FILE, STORIES_FILE, Metrics
from gpt.losses import IGNORE_INDEX, LOSSES, Loss
from gpt.losses.calibration import calibration_error, held_back_nats, reliability
from gpt.losses.fused_linear import logit_blocks
from gpt.model import GPT
from gpt.system.device import to_device
from gpt.system.files import atomic_write_text

# Times the rows of training's micro-batch: without gradients they take about as much memory, and
# small models spend less of their time between operations.
EVAL_BATCH_FACTOR = 4


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of each validation target: vectors (M,) on the CPU, in the order of the text."""

    story: Tensor  # int64, index of the target's story
    nats: Tensor  # -log p_y, p = softmax(f)
    link_nats: Tensor  # -log pi_y, pi the probabilities under the loss's own link function
    correct: Tensor  # 1.0 where no token is more likely than the true one, else 0.0
    confidence: Tensor  # the largest p_j
    brier: Tensor  # sum over j of (p_j - [j = y]) ** 2
    entropy: Tensor  # -sum over j of p_j log p_j, in nats
    logit_square: Tensor  # mean over j of f_j ** 2

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Concatenate the scores of consecutive parts of the text."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})

    def by_story(self, values: Tensor) -> Tensor:
        """Sum `values` (M,) within each story, in float64."""
        sums = torch.zeros(int(self.story.max()) + 1, dtype=torch.float64)
        return sums.index_add(0, self.story, values.double())


@torch.no_grad()
def hidden_states(
    model: GPT, data: ValidationSet, batch_size: int, autocast: AbstractContextManager[object]
) -> Tensor:
    """Compute the hidden state before each validation target, shape (M, C), on the model's device.

    Args:
        model: Its mode (training or not) is restored.
        data: Rows (R, T) of validation stories; padded targets are IGNORE_INDEX.
        batch_size: Rows in one forward pass of training.
        autocast: The precision of matrix products, as in training.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    idx = to_device(data.idx, device)
    counted = data.targets.flatten() != IGNORE_INDEX
    step, T = EVAL_BATCH_FACTOR * batch_size, data.idx.shape[1]
    # Positions of targets, found on the CPU: how many there are, CUDA would have to be asked.
    positions = [
        to_device(part.nonzero().squeeze(1), device) for part in torch.split(counted, step * T)
    ]
    parts = []
    for rows, places in zip(torch.split(idx, step), positions, strict=True):
        with autocast:
            hidden = model(rows)  # (B, T, C)
        parts.append(hidden.flatten(0, 1).index_select(0, places))
    model.train(was_training)
    return torch.cat(parts)


@torch.no_grad()
def score(
    hidden: Tensor,
    weight: Tensor,
    data: ValidationSet,
    loss: str,
    loss_options: Mapping[str, float],
) -> Scores:
    """Score every validation target, reading its logits once.

    Args:
        hidden: The result of hidden_states, shape (M, C); matrix products are in its dtype.
        weight: Output weight, shape (V, C).
        data: The same stories.
        loss: The loss that trained the model; its link function gives link_nats.
        loss_options: Options of that loss.
    """
    targets, story = flat_targets(data)
    y = to_device(targets, hidden.device)
    parts = [
        _reduced(f, y[rows], LOSSES[loss], loss_options) for rows, f in logit_blocks(hidden, weight)
    ]
    return _scores(story, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def flat_targets(data: ValidationSet) -> tuple[Tensor, Tensor]:
    """Return the targets (M,) without padding, and the story (M,) of each."""
    counts = data.targets != IGNORE_INDEX
    return data.targets[counts], data.story.unsqueeze(1).expand_as(counts)[counts]


def metrics(scores: Scores, text_bytes: int) -> Metrics:
    """Average the scores of stories of `text_bytes` UTF-8 bytes."""
    nats, link_nats, correct, brier, entropy, logit_square = (
        getattr(scores, name).double().mean().item()
        for name in ("nats", "link_nats", "correct", "brier", "entropy", "logit_square")
    )
    per_story = scores.by_story(scores.nats) / scores.by_story(torch.ones_like(scores.nats))
    return Metrics(
        cross_entropy=nats,
        perplexity=perplexity_of(nats),
        link_perplexity=perplexity_of(link_nats),
        story_perplexity=per_story.exp().mean().item(),
        bits_per_byte=bits_per_byte(nats * len(scores.nats), text_bytes),
        accuracy=correct,
        calibration_error=calibration_error(reliability(scores.confidence, scores.correct)),
        brier_score=brier,
        entropy=entropy,
        mean_squared_logit=logit_square,
    )


def temperature_perplexity(hidden: Tensor, weight: Tensor, data: ValidationSet) -> float:
    """Perplexity after dividing logits by one temperature, fitted on the other half of the stories.

    Args as in `score`.
    """
    targets, story = flat_targets(data)
    return perplexity_of(held_back_nats(hidden, weight, to_device(targets, hidden.device), story))


def perplexity_of(nats_per_token: float) -> float:
    """Return exp(nats per token), infinity above about 709 nats, where exp would overflow."""
    return math.exp(nats_per_token) if nats_per_token < 700 else math.inf


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits per byte of the text; comparable across tokenizers.

    Args:
        nats: Summed over all targets of the text.
        text_bytes: Length of that text in UTF-8.
    """
    return nats / math.log(2) / text_bytes


def _reduced(
    f: Tensor, targets: Tensor, loss: Loss, loss_options: Mapping[str, float]
) -> dict[str, Tensor]:
    """Reduce logits (n, V), which are overwritten, to the vectors (n,) that `_scores` needs.

    Passes over (n, V) are expensive, so that only they are made here, block by block.
    """
    y = targets.unsqueeze(1)
    top = f.amax(1, keepdim=True)
    p = f.softmax(1)
    below = f - top  # small where it matters, however large the logits are
    found = {
        "confidence": p.amax(1),
        "p_norm": torch.linalg.vector_norm(p, dim=1),
        "f_norm": torch.linalg.vector_norm(f, dim=1) / math.sqrt(f.shape[1]),
        "below": below.gather(1, y).squeeze(1),
    }
    found["mean_below"] = below.mul_(p).sum(1)
    del below  # for the link: f, p and one more fit into a core's own cache, a fourth does not
    pi = loss.unnormalised(p, f, loss_options)
    if pi is not p:
        found["pi_true"] = pi.gather(1, y).squeeze(1) / pi.sum(1)
    return found


def _scores(story: Tensor, found: Mapping[str, Tensor]) -> Scores:
    """Combine the reductions of all logits, vectors (M,), into scores."""
    log_sum = -found["confidence"].log()  # of exp(f - top)
    nats = log_sum - found["below"]
    scores = {
        "nats": nats,
        "link_nats": -found["pi_true"].log() if "pi_true" in found else nats,
        "correct": (found["below"] >= 0).float(),
        "confidence": found["confidence"],
        "brier": found["p_norm"].square() - 2 * (-nats).exp() + 1,
        "entropy": log_sum - found["mean_below"],
        "logit_square": found["f_norm"].square(),
    }
    here = torch.stack(list(scores.values())).cpu()  # at once: a copy waits for all before it
    return Scores(story=story, **dict(zip(scores, here, strict=True)))


def write_story_scores(run_dir: Path, scores: Scores, data: ValidationSet) -> None:
    """Write stories.json and calibration.json, each completely or not at all.

    stories.json has lists with one number a story, in the order of the text: tokens (end-of-text
    included), UTF-8 bytes, summed nats under softmax and under the loss's own link function, and
    how many targets were the most likely token. calibration.json has the bins of
    gpt.losses.calibration.
    """
    sums = {
        "tokens": torch.ones_like(scores.nats),
        "nats": scores.nats,
        "link_nats": scores.link_nats,
        "correct": scores.correct,
    }
    stories = {name: scores.by_story(values).tolist() for name, values in sums.items()}
    stories["bytes"] = data.story_bytes.tolist()
    bins = [asdict(b) for b in reliability(scores.confidence, scores.correct)]
    for name, content in ((STORIES_FILE, stories), (CALIBRATION_FILE, bins)):
        atomic_write_text(run_dir / name, json.dumps(content))
