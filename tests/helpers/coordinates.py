"""Sizes of activations while a model trains: the coordinate check of a parametrization."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.config import TrainConfig
from gpt.model import GPT
from gpt.trainer import make_optimizers, set_learning_rate

STEPS = (0, 1, 10)
BASE = {"n_embd": 64, "n_layer": 2, "n_head": 2}  # heads of 32, as all models of the check have
HEAD_SIZE = 32


def config_of(width: int, parametrization: str, **changes: object) -> TrainConfig:
    """A model of 4 layers and this width, twice as deep as the base."""
    base = {f"base_{name}": value for name, value in BASE.items()}
    values = {
        "vocab_size": 256,
        "block_size": 32,
        "n_layer": 4,
        "n_embd": width,
        "n_head": width // HEAD_SIZE,
        "init_std": 0.07,
        "parametrization": parametrization,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "max_steps": 11,
        "warmup_steps": 0,
        **(base if parametrization == "completep" else {}),
    }
    return TrainConfig.model_validate(values | changes)


def activation_sizes(config: TrainConfig, seed: int = 0) -> dict[str, dict[int, float]]:
    """Root mean squares of activations after 0, 1 and 10 steps on one batch of random tokens.

    Returns:
        By activation and step: the output of the last block's attention and MLP, the residual
        stream after it, the logits, and how far these two have moved from where they started.
    """
    torch.manual_seed(seed)
    model = GPT(config)
    optimizers = make_optimizers(model, config)
    set_learning_rate(optimizers, config.learning_rate)
    tokens = torch.randint(config.vocab_size, (config.batch_size, config.block_size + 1))
    last = model.transformer.h[-1]
    seen: dict[str, Tensor] = {}
    modules = {"attention": last.attn, "mlp": last.mlp, "residual stream": last}
    for name, module in modules.items():
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    first: dict[str, Tensor] = {}
    sizes: dict[str, dict[int, float]] = {}
    for step in range(max(STEPS) + 1):
        logits = model.logits(model(tokens[:, :-1]))
        if step in STEPS:
            seen["logits"] = logits
            first = first or {name: seen[name].detach() for name in ("residual stream", "logits")}
            moved = {f"{name}, moved": seen[name] - start for name, start in first.items()}
            for name, value in {**seen, **(moved if step else {})}.items():
                root_mean_square = value.detach().float().square().mean().sqrt().item()
                sizes.setdefault(name, {})[step] = root_mean_square
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return sizes


def exponents(sizes: dict[int, dict[str, dict[int, float]]]) -> dict[str, dict[int, float]]:
    """The power of the width by which each size grows, fitted over all widths.

    Args:
        sizes: `activation_sizes` by width.
    """
    widths = np.log([float(width) for width in sizes])
    first = next(iter(sizes.values()))
    return {
        name: {
            step: float(np.polyfit(widths, np.log([of[name][step] for of in sizes.values()]), 1)[0])
            for step in steps
        }
        for name, steps in first.items()
    }
