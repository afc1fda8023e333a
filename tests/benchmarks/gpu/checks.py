"""Checks of a device: each returns its largest relative error, and the tolerance.

References are float64 on the CPU, or the same run on the CPU.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpt.config import TrainConfig
from gpt.losses.functional import LOSSES
from gpt.losses.fused_linear import linear_loss
from gpt.train import train
from tests.benchmarks import tokens

Check = Callable[[], dict[str, float]]
HEAD_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
RUN_TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}


def all_checks(device: str, folder: Path) -> Iterator[tuple[str, Check]]:
    """Yield every check by its name."""
    for dtype in HEAD_TOLERANCE:
        for loss in LOSSES:
            yield f"head, {loss}, {dtype}", partial(head_error, device, loss, dtype)
    for dtype in RUN_TOLERANCE:
        yield f"run, {dtype}", partial(run_error, device, dtype, False)
    for dtype in ("float32", "bfloat16"):
        yield f"resume bit for bit, {dtype}", partial(resume_error, device, dtype, folder / dtype)
    yield "a diverged run is found", partial(divergence_error, device)
    for dtype in ("bfloat16", "float32"):
        yield f"run, {dtype}, compiled", partial(run_error, device, dtype, True)


def head_error(device: str, loss: str, dtype: torch.dtype) -> dict[str, float]:
    """Value and gradients of the head and a loss against float64."""
    torch.manual_seed(0)
    h, w = torch.randn(300, 64), 0.05 * torch.randn(1000, 64)
    y = torch.randint(1000, (300,))
    exact_h, exact_w = (x.double().requires_grad_() for x in (h, w))
    exact = LOSSES[loss](exact_h @ exact_w.T, y)
    exact.backward()
    there_h, there_w = (x.to(device).requires_grad_() for x in (h, w))
    with torch.autocast(device.partition(":")[0], dtype=dtype, enabled=dtype != torch.float32):
        found = linear_loss(there_h, there_w, y.to(device), loss)
    found.backward()
    pairs = [(found, exact), (there_h.grad, exact_h.grad), (there_w.grad, exact_w.grad)]
    errors = [((a.cpu().double() - b).norm() / b.norm()).item() for a, b in pairs]
    return {"error": max(errors), "tolerance": HEAD_TOLERANCE[dtype]}


def short_run(device: str, **changes: Any) -> TrainConfig:
    """A run of twelve steps."""
    values: dict[str, Any] = {
        "vocab_size": 300,
        "block_size": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 64,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "max_steps": 12,
        "eval_interval": 4,
        "eval_tokens": 400,
        "loss": "squentropy",
        "device": device,
    }
    return TrainConfig(**(values | changes))


def figures(config: TrainConfig, run_dir: Path | None = None, stop_at: int = -1) -> list[float]:
    """Cross-entropies of a run's evaluations."""
    asked = itertools.count()
    with tokens.made_up(config.vocab_size) as data:
        run = config.model_copy(update={"data": data})
        evaluations = train(run, run_dir, stop=lambda: next(asked) == stop_at)
        return [evaluation.cross_entropy for evaluation in evaluations]


def run_error(device: str, dtype: str, compiled: bool) -> dict[str, float]:
    """A run against the same run in float32 on the CPU."""
    reference = figures(short_run("cpu"))
    found = figures(short_run(device, dtype=dtype, compile=compiled))
    errors = [abs(a / b - 1) for a, b in zip(found, reference, strict=True)]
    return {"error": max(errors), "tolerance": RUN_TOLERANCE[dtype]}


def resume_error(device: str, dtype: str, folder: Path) -> dict[str, float]:
    """A run that is stopped and continued against one that is not; they must be equal."""
    config = short_run(device, dtype=dtype, dropout=0.1)
    undisturbed = figures(config)
    folder.mkdir()
    resumed = figures(config, folder, stop_at=6) + figures(config, folder)
    different = [abs(a - b) for a, b in zip(resumed, undisturbed, strict=True)]
    return {"error": max(different), "tolerance": 0.0}


def divergence_error(device: str) -> dict[str, float]:
    """A run at an absurd learning rate ends as diverged, and not in any other way."""
    from gpt.errors import DivergedError

    try:
        figures(short_run(device, learning_rate=1e30, grad_clip=0.0))
    except DivergedError:
        return {"error": 0.0, "tolerance": 0.0}
    return {"error": 1.0, "tolerance": 0.0}
