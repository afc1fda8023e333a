"""AdamW as nanoGPT sets it up, and the learning-rate schedule."""

import math

import torch

from gpt.config import TrainConfig
from gpt.model import GPT


def make_optimizer(model: GPT, config: TrainConfig) -> torch.optim.AdamW:
    """Make AdamW with weight decay on matrices and embeddings, not on gains and biases."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of an optimiser step: linear warm-up, then cosine decay.

    Args:
        step: Counted from 0, below max_steps.

    Source:
        nanoGPT's get_lr with lr_decay_iters = max_steps and min_lr = min_lr_ratio * learning_rate.
    """
    peak = config.learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / (config.warmup_steps + 1)
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    low = peak * config.min_lr_ratio
    return low + 0.5 * (1.0 + math.cos(math.pi * progress)) * (peak - low)
