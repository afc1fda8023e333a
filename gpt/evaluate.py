"""How good a model is on the validation stories, measured the same way whatever loss trained it."""

import math
from contextlib import AbstractContextManager

import torch

from gpt.data import ValidationSet
from gpt.losses import IGNORE_INDEX, cross_entropy
from gpt.model import GPT


@torch.no_grad()
def validation_nats(
    model: GPT, data: ValidationSet, batch_size: int, autocast: AbstractContextManager[object]
) -> float:
    """Summed cross-entropy over the validation targets, in nats.

    Args:
        model: Left in the mode (training or not) in which it came.
        data: Rows (R, T) of validation stories; padded targets are IGNORE_INDEX.
        batch_size: Rows in one forward pass.
        autocast: The precision of matrix products, as in training.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    for first in range(0, len(data.idx), batch_size):
        rows = slice(first, first + batch_size)
        with autocast:
            logits = model.logits(model(data.idx[rows].to(device)))
        flat = data.targets[rows].to(device).flatten()
        total += cross_entropy(logits.flatten(0, 1), flat, reduction="sum").double()
    model.train(was_training)
    return total.item()


def n_targets(data: ValidationSet) -> int:
    """How many tokens the validation set predicts."""
    return int((data.targets != IGNORE_INDEX).sum())


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
