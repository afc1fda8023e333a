"""Peak memory of runs beside the estimate that is made before they start.

    python -m tests.benchmarks.memory

Each shape trains three steps and evaluates once, on random tokens and one thread, in a process of
its own that has trained something tiny before. The estimate is compared with the largest size of
that process, and its tensors with those that torch allocates, counted one by one.
"""

import json
import resource
import sys
from typing import Any

from gpt.config import TrainConfig
from gpt.trainer import Trainer
from sweep.trainers.estimate import RandomTokens
from sweep.trainers.memory import estimate_memory
from tests.benchmarks import measuring
from tests.helpers.allocations import peak_of_tensors

WIDTHS: dict[str, Any] = {"n_embd": 256, "n_head": 8, "block_size": 128, "batch_size": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "4 x 256": {},
    "4 x 256, dropout": {"dropout": 0.1},
    "12 x 256": {"n_layer": 12},
    "4 x 512, 32 sequences": {"n_embd": 512, "batch_size": 32},
    "4 x 256, 1,024 tokens of context": {"block_size": 1024, "batch_size": 4},
    "4 x 256, 1,024 tokens of context, dropout": {
        "block_size": 1024,
        "batch_size": 2,
        "dropout": 0.1,
    },
    "2 x 384, V = 50,257": {"n_layer": 2, "n_embd": 384, "n_head": 6, "vocab_size": 50257},
    "6 x 768, 2 sequences": {"n_layer": 6, "n_embd": 768, "n_head": 12, "batch_size": 2},
    "2 x 1,024, Muon": {"n_layer": 2, "n_embd": 1024, "n_head": 16, "optimizer": "muon"},
    "4 x 256, in two micro-batches": {"gradient_accumulation_steps": 2, "batch_size": 32},
    "4 x 384, squentropy": {"n_embd": 384, "n_head": 6, "loss": "squentropy", "batch_size": 32},
    "4 x 256, qk_norm, ReLU squared": {"qk_norm": True, "activation": "relu2", "batch_size": 32},
}


def config_of(changes: dict[str, Any], dtype: str) -> TrainConfig:
    """A shape's configuration."""
    values = {"vocab_size": 4096, "n_layer": 4, "dtype": dtype, "threads": 1, **WIDTHS}
    return TrainConfig(**(values | changes))


def measured(config: TrainConfig) -> dict[str, float]:
    """Bytes in this process, which must be new."""
    tiny = TrainConfig(vocab_size=300, n_layer=1, n_embd=8, n_head=1, batch_size=1, block_size=8)
    _train(Trainer(tiny.model_copy(update={"dtype": config.dtype}), RandomTokens(tiny)))
    before = _largest()
    trainer = Trainer(config, RandomTokens(config))
    _train(trainer)
    grown = _largest() - before
    state = sum(p.nbytes for p in trainer.model.parameters()) + sum(
        value.nbytes
        for optimizer in trainer.optimizers
        for of in optimizer.state.values()
        for value in of.values()
        if hasattr(value, "nbytes")
    )
    tensors = state + max(peak_of_tensors(trainer.step), peak_of_tensors(trainer.evaluate))
    return {"process_before": before, "process_grew_by": grown, "tensors": tensors}


def _train(trainer: Trainer) -> None:
    for _ in range(3):
        trainer.step()
    trainer.evaluate()


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compare(name: str, dtype: str) -> dict[str, Any]:
    """Estimate and measurement of one shape, in MB."""
    estimate = estimate_memory(config_of(SHAPES[name], dtype))
    printed = measuring.succeed([measuring.PYTHON, "-m", __spec__.name, name, dtype])
    found = json.loads(printed)
    peak = found["process_before"] + found["process_grew_by"]
    result = {
        "shape": f"{name}, {dtype}",
        "estimate_of_tensors_mb": round(estimate.tensors / 1e6, 1),
        "estimate_of_process_mb": round(estimate.peak / 1e6, 1),
        **{f"{key}_mb": round(value / 1e6, 1) for key, value in found.items()},
        "estimate_to_process": round(estimate.peak / peak, 3),
        "estimate_to_tensors": round(estimate.tensors / found["tensors"], 3),
    }
    print(result, flush=True)
    return result


def main() -> None:
    """Measure and write the results; with a shape and a dtype, print that one's bytes."""
    if len(sys.argv) == 3:
        print(json.dumps(measured(config_of(SHAPES[sys.argv[1]], sys.argv[2]))))
        return
    shapes = [compare(name, dtype) for dtype in ("float32", "bfloat16") for name in SHAPES]
    summary = {
        name: measuring.spread([shape[name] for shape in shapes])
        for name in ("estimate_to_process", "estimate_to_tensors", "process_before_mb")
    }
    measuring.write("memory", {"shapes": shapes, "summary": summary})


if __name__ == "__main__":
    main()
