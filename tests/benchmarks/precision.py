"""Does bfloat16 train faster than float32 on this CPU, at the size of the tinystories CPU budget?

    python tests/benchmarks/precision.py tests/benchmarks/precision.json

Trains the middle of the budget on the built-in corpus, on one thread as in a sweep. Prints and
writes the training tokens per second of each precision, in alternating repeats.
"""

import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from gpt.config import TrainConfig
from gpt.data.dataset import prepare
from gpt.train import train
from sweep.backends.local import available_cores
from sweep.study.dataset import pin_dataset
from sweep.study.toml_file import read_study_file

STEPS = 60
REPEATS = 5
PRECISIONS = ("float32", "bfloat16")


def budget() -> TrainConfig:
    """A run of three layers, too short to learn much."""
    spec = read_study_file("tinystories", "cpu")
    source = spec.data.model_copy(update={"source": "built-in"})
    params = {"learning_rate": 3e-3, "dropout": 0.1, "n_layer": 3, "loss": "cross_entropy"}
    config = spec.train_config(params, pin_dataset(source, prepare(source)), "cpu", 1)
    short = {"max_steps": STEPS, "eval_interval": STEPS, "eval_tokens": 1}
    return config.model_copy(update=short)


def tokens_per_second(config: TrainConfig, dtype: str) -> float:
    """Of the whole run, its evaluation left out."""
    (end,) = train(config.model_copy(update={"dtype": dtype}))
    return end.tokens_per_second


def main() -> None:
    """Measure and write the results."""
    config = budget()
    rates: dict[str, list[float]] = {dtype: [] for dtype in PRECISIONS}
    for _ in range(REPEATS):
        for dtype in PRECISIONS:
            rates[dtype].append(round(tokens_per_second(config, dtype)))
            print(dtype, rates[dtype][-1], flush=True)
    medians = {dtype: statistics.median(values) for dtype, values in rates.items()}
    result: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "machine": f"{available_cores()} cores, {platform.machine()}, one used",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "tokens_per_second": rates,
        "median": medians,
        "bfloat16_to_float32": round(medians["bfloat16"] / medians["float32"], 2),
    }
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
    print(f"bfloat16 / float32: {result['bfloat16_to_float32']}")


if __name__ == "__main__":
    main()
