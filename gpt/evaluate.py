"""How good a model is on the validation stories, measured the same way whatever loss trained it.

Shapes: R rows of T tokens, M targets in them, C = n_embd, V classes. `score` looks at every target
once; `yardsticks` makes figures of what it saw. Add one by adding a field to gpt.events.Yardsticks.

    brier_score         Brier (1950), Monthly Weather Review 78: sum over j of (p_j - [j = y]) ** 2
    calibration_error   see gpt.calibration
    link_perplexity     exp of the mean of -log pi_y, pi the loss's link (gpt.losses.link_functions)
"""

import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt.calibration import calibration_error, held_back_nats, reliability
from gpt.data.dataset import ValidationSet
from gpt.events import Yardsticks
from gpt.losses import IGNORE_INDEX, LOSSES, Loss
from gpt.losses.fused_linear import logit_blocks
from gpt.model import GPT
from gpt.system.files import write_text

# Of training's micro-batch: without gradients, so many rows take about as much memory, and small
# models spend less of their time between operations.
MORE_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model says of each validation target: vectors (M,) on the CPU, in the text's order."""

    story: Tensor  # int64, the story that a target belongs to, counted from 0
    nats: Tensor  # -log p_y, p = softmax(f)
    link_nats: Tensor  # -log pi_y, pi the probabilities of the loss's own link
    correct: Tensor  # 1.0 where no token is more likely than the true one, else 0.0
    confidence: Tensor  # the largest p_j
    brier: Tensor  # sum over j of (p_j - [j = y]) ** 2
    entropy: Tensor  # -sum over j of p_j log p_j, in nats
    logit_square: Tensor  # mean over j of f_j ** 2

    def by_story(self, values: Tensor) -> Tensor:
        """The sum of `values` (M,) within each story, in float64."""
        sums = torch.zeros(int(self.story.max()) + 1, dtype=torch.float64)
        return sums.index_add(0, self.story, values.double())


@torch.no_grad()
def hidden_states(
    model: GPT, data: ValidationSet, batch_size: int, autocast: AbstractContextManager[object]
) -> Tensor:
    """The model's hidden state before each validation target, shape (M, C), on its device.

    Args:
        model: Left in the mode (training or not) in which it came.
        data: Rows (R, T) of validation stories; padded targets are IGNORE_INDEX.
        batch_size: Rows in one forward pass of training.
        autocast: The precision of matrix products, as in training.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for first in range(0, len(data.idx), MORE_ROWS * batch_size):
        rows = slice(first, first + MORE_ROWS * batch_size)
        with autocast:
            hidden = model(data.idx[rows].to(device))  # (B, T, C)
        parts.append(hidden[(data.targets[rows] != IGNORE_INDEX).to(device)])
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
    """Look at every validation target once.

    Args:
        hidden: Of hidden_states, shape (M, C); products are in its dtype.
        weight: Output weight, shape (V, C).
        data: The same stories.
        loss: What trained the model: its link gives link_nats.
        loss_options: Of that loss.
    """
    targets, story = flat_targets(data)
    y = targets.to(hidden.device)
    parts = [
        _looked_at(f, y[rows], LOSSES[loss], loss_options)
        for rows, f in logit_blocks(hidden, weight)
    ]
    return _scores(story, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def flat_targets(data: ValidationSet) -> tuple[Tensor, Tensor]:
    """The targets (M,) without padding, and the story (M,) of each."""
    counts = data.targets != IGNORE_INDEX
    return data.targets[counts], data.story.unsqueeze(1).expand_as(counts)[counts]


def yardsticks(scores: Scores, text_bytes: int) -> Yardsticks:
    """Figures of what a model says of `text_bytes` bytes of stories."""
    nats, link_nats, correct, brier, entropy, logit_square = (
        getattr(scores, name).double().mean().item()
        for name in ("nats", "link_nats", "correct", "brier", "entropy", "logit_square")
    )
    per_story = scores.by_story(scores.nats) / scores.by_story(torch.ones_like(scores.nats))
    return Yardsticks(
        cross_entropy=nats,
        perplexity=perplexity(nats),
        link_perplexity=perplexity(link_nats),
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
    return perplexity(held_back_nats(hidden, weight, targets.to(hidden.device), story))


def perplexity(nats_per_token: float) -> float:
    """exp(nats per token); infinite rather than an OverflowError above about 709 nats."""
    return math.exp(nats_per_token) if nats_per_token < 700 else math.inf


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits that the model needs for each byte of the text; comparable across tokenizers.

    Args:
        nats: Summed over all targets of the text.
        text_bytes: Length of that text in UTF-8.
    """
    return nats / math.log(2) / text_bytes


def _looked_at(
    f: Tensor, targets: Tensor, loss: Loss, loss_options: Mapping[str, float]
) -> dict[str, Tensor]:
    """All that is needed of logits (n, V), which are overwritten, and of targets (n,).

    As few passes over (n, V) as there can be; what is made of their results is made once for all.
    """
    y = targets.unsqueeze(1)
    top = f.amax(1, keepdim=True)
    p = f.softmax(1)
    below = f - top  # what is lost to the likeliest: small numbers, however large logits are
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
    """Scores of what was found in all logits, vectors (M,)."""
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
    return Scores(story=story, **{name: values.cpu() for name, values in scores.items()})


STORIES = "stories.json"
CALIBRATION = "calibration.json"


def write_story_scores(run_dir: Path, scores: Scores, data: ValidationSet) -> None:
    """Write both files, whole or not at all.

    Per story, in the order of the text: targets (end-of-text included), UTF-8 bytes, summed nats
    under softmax and under the loss's own link, and how many targets were the most likely token.
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
    for name, content in ((STORIES, stories), (CALIBRATION, bins)):
        write_text(run_dir / name, json.dumps(content))
