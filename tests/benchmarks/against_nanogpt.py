"""Training tokens per second beside nanoGPT's own train.py, each as its user starts it.

    python -m tests.benchmarks.against_nanogpt --nanogpt DIR

DIR is a checkout of nanoGPT. Its train.py runs as it is, set up by command-line options; ours is
`python -m gpt.train RUN_DIR`. Both read the same token file and have the same model, batch, block,
dropout and threads. The times are those that each program reports, of the steps after a warm-up.
On a CPU, nanoGPT trains in float32 whatever its dtype says: its autocast is for CUDA only.
"""

import argparse
import os
import re
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpt.config import DataConfig, TrainConfig
from gpt.data.dataset import prepare
from gpt.events import read_events
from tests.benchmarks import measuring, tokens

MODEL = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 128, "batch_size": 16}
THREADS = 2
STEPS = {4096: 15, 50257: 4}  # as many again are a warm-up
CASES = ((4096, 0.0), (4096, 0.1), (50257, 0.0))  # vocabulary, dropout


def nanogpt(checkout: Path, data: Path, vocab_size: int, dropout: float) -> float:
    """Tokens per second that nanoGPT's train.py reports, in a folder of its own."""
    steps = STEPS[vocab_size]
    options = {
        **MODEL,
        "dropout": dropout,
        "dataset": data.name,
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
        "gradient_accumulation_steps": 1,
        "max_iters": 2 * steps - 1,
        "eval_interval": 10**6,
        "eval_iters": 1,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "data").mkdir()
        (folder / "data" / data.name).symlink_to(data)
        (folder / "configurator.py").symlink_to(checkout / "configurator.py")
        command = [measuring.PYTHON, str(checkout / "train.py")]
        command += [f"--{name}={value}" for name, value in options.items()]
        printed = measuring.succeed(
            command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        )
    times = [float(ms) for ms in re.findall(r"^iter \d+: .* time ([\d.]+)ms", printed, re.M)]
    return _tokens_of_step() / statistics.mean(times[steps:]) * 1e3


def ours(data: DataConfig, vocab_size: int, dropout: float, dtype: str) -> float:
    """Tokens per second that `python -m gpt.train` reports."""
    steps = STEPS[vocab_size]
    config = TrainConfig(
        **MODEL,
        vocab_size=vocab_size,
        dropout=dropout,
        data=data,
        dtype=dtype,
        threads=THREADS,
        max_steps=2 * steps,
        eval_interval=steps,
        eval_tokens=1,
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "config.json").write_text(config.model_dump_json())
        measuring.succeed(
            [measuring.PYTHON, "-m", "gpt.train", place],
            env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        )
        events, _ = read_events(folder)
    return float(
        next(e["tokens_per_second"] for e in reversed(events) if e["event"] == "evaluation")
    )


def _tokens_of_step() -> int:
    return MODEL["batch_size"] * MODEL["block_size"]


def compare(checkout: Path, vocab_size: int, dropout: float, repeats: int) -> dict[str, Any]:
    """Tokens per second of each program, and ours as multiples of nanoGPT's."""
    with tokens.made_up(vocab_size) as data:
        folder = prepare(data).folder
        things: dict[str, Callable[[], float]] = {
            "nanogpt float32": partial(nanogpt, checkout, folder, vocab_size, dropout),
            "ours float32": partial(ours, data, vocab_size, dropout, "float32"),
            "ours bfloat16": partial(ours, data, vocab_size, dropout, "bfloat16"),
        }
        rates = measuring.alternate(things, repeats, digits=0)
    base = rates["nanogpt float32"]
    return {
        "vocab_size": vocab_size,
        "dropout": dropout,
        "tokens_per_second": rates,
        "ratio_to_nanogpt": {
            name: measuring.ratios(values, base) for name, values in rates.items()
        },
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR")
    parser.add_argument("--repeats", type=int, default=measuring.REPEATS)
    args = parser.parse_args()
    comparisons = [compare(args.nanogpt.resolve(), *case, args.repeats) for case in CASES]
    figures = {"model": MODEL, "threads": THREADS, "comparisons": comparisons}
    measuring.write("against_nanogpt", figures, "--nanogpt DIR")


if __name__ == "__main__":
    main()
