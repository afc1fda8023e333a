"""Operators and waits of a training step and an evaluation, by tests/helpers/counted_launches.py.

    python -m tests.benchmarks.launches

On CUDA each operator is launched by itself, and each wait stops Python until the device has done
all that was asked before. "before" was counted by the same code on the commit that it names.
"""

import json
import sys
from typing import Any

from gpt.config import TrainConfig
from gpt.trainer import Trainer
from sweep.trainers.estimate import RandomTokens
from tests.benchmarks import measuring
from tests.helpers.counted_launches import counts_of

SHAPE: dict[str, Any] = {"vocab_size": 4096, "n_embd": 64, "n_head": 2, "block_size": 128}
CASES: dict[str, dict[str, Any]] = {
    "2 layers": {"n_layer": 2},
    "2 layers, dropout": {"n_layer": 2, "dropout": 0.1},
    "2 layers, four micro-batches": {"n_layer": 2, "gradient_accumulation_steps": 4},
    "6 layers, squentropy": {"n_layer": 6, "loss": "squentropy"},
}


def count(changes: dict[str, Any]) -> dict[str, Any]:
    """The counts of one case."""
    config = TrainConfig(**{**SHAPE, "batch_size": 8, "eval_tokens": 16384, **changes})
    trainer = Trainer(config, RandomTokens(config))
    trainer.step()
    step, evaluation = counts_of(trainer.step), counts_of(trainer.evaluate)
    return {
        "operators_of_a_step": sum(step.operators.values()),
        "waits_of_a_step": dict(step.waits),
        "operators_of_an_evaluation": sum(evaluation.operators.values()),
        "waits_of_an_evaluation": dict(evaluation.waits),
        "most_frequent_of_a_step": dict(step.operators.most_common(12)),
    }


def main() -> None:
    """Count and write the results; with --print, print them only."""
    counted = {name: count(changes) for name, changes in CASES.items()}
    if "--print" in sys.argv:
        print(json.dumps(counted, indent=1))
        return
    file = measuring.HERE / "launches.json"
    before = json.loads(file.read_text())["before"] if file.exists() else {}
    measuring.write("launches", {"before": before, "after": counted})


if __name__ == "__main__":
    main()
