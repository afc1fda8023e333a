"""Do depth, width and learning rate matter on a text, at the CPU budget of tinystories?

    python tests/benchmarks/depth_and_width.py tests/benchmarks/depth_and_width.json STORIES

STORIES is a folder of real ones. Runs that the file holds already are kept, so that a stopped
measurement goes on. Prints perplexities by shape and learning rate, the mean of the seeds.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from gpt.data.dataset import prepare
from gpt.train import train
from sweep.study.dataset import pin_dataset
from sweep.study.toml_file import read_study_file

RATES = (2e-3, 5e-3)
DEPTHS, WIDTH = (1, 2, 4, 6), 64
WIDTHS, DEPTH = (32, 128), 3
SEEDS = (1,)
EVAL_TOKENS = 32768  # four times the study's, once, at the end
PROCESSES = 2
BATCH = 7  # runs of one process

Run = dict[str, Any]
NAMES = ("text", "learning_rate", "n_layer", "n_embd", "seed")  # of what a run is


def runs() -> list[Run]:
    """All that is trained."""
    shapes = [(depth, WIDTH) for depth in DEPTHS] + [(DEPTH, width) for width in WIDTHS]
    grid = [
        (text, rate, depth, width, seed)
        for seed in SEEDS
        for text in ("built-in", "stories")
        for rate in RATES
        for depth, width in shapes
    ]
    return [dict(zip(NAMES, values, strict=True)) for values in grid]


def train_one(run: Run, stories: str) -> Run:
    """The run with its perplexity, and its seconds of training and evaluation."""
    spec = read_study_file("tinystories", "cpu")
    source = "built-in" if run["text"] == "built-in" else stories
    data = spec.data.model_copy(update={"source": source})
    tokens = prepare(data)
    params = {"learning_rate": run["learning_rate"], "dropout": 0.0, "n_layer": run["n_layer"]}
    config = spec.train_config(
        params | {"loss": "cross_entropy"}, pin_dataset(data, tokens), "cpu", 1
    )
    changed = {
        "n_embd": run["n_embd"],
        "seed": run["seed"],
        "eval_interval": spec.max_steps,
        "eval_tokens": EVAL_TOKENS,
    }
    (end,) = train(config.model_copy(update=changed))
    return run | {
        "perplexity": round(end.perplexity, 3),
        "seconds": round(end.elapsed_seconds, 1),
    }


def measure(todo: list[Run], place: Path, stories: str, launcher: str) -> list[Run]:
    """Train what is missing, in processes of one thread; each trains a few runs."""
    done: list[Run] = json.loads(place.read_text())["runs"] if place.exists() else []
    known = [{name: run[name] for name in NAMES} for run in done]
    missing = [run for run in todo if run not in known]
    lock = Lock()

    def start(some: list[Run]) -> None:
        command = [*shlex.split(launcher), sys.executable, __file__, "--these", json.dumps(some)]
        with subprocess.Popen(
            [*command, str(place), stories],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                print(line, end="", flush=True)
                with lock:
                    done.append(json.loads(line))
                    write(place, done)

    batches = [missing[first : first + BATCH] for first in range(0, len(missing), BATCH)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(start, batches))
    return done


def write(place: Path, done: list[Run]) -> None:
    """The results, with all that says what they are."""
    result = {
        "command": "python tests/benchmarks/depth_and_width.py "
        "tests/benchmarks/depth_and_width.json STORIES",
        "torch": torch.__version__,
        "eval_tokens": EVAL_TOKENS,
        "runs": sorted(done, key=lambda run: [run[name] for name in NAMES]),
    }
    place.write_text(json.dumps(result, indent=1) + "\n")


def show(done: list[Run]) -> None:
    """A line for each setting: perplexity of each seed, and their mean."""
    settings: dict[str, list[float]] = {}
    for run in done:
        words = "{text:8} {n_layer} x {n_embd:3}, lr {learning_rate:g}"
        settings.setdefault(words.format(**run), []).append(run["perplexity"])
    for words, values in settings.items():
        print(words, values, f"mean {statistics.mean(values):.3f}")


def main() -> None:
    """Measure and write the results; or, started by itself, train some runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("stories")
    parser.add_argument("--launcher", default="", help="command that starts each run, as nice")
    parser.add_argument("--these", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.these:
        for run in given.these:
            print(json.dumps(train_one(run, given.stories)), flush=True)
    else:
        show(measure(runs(), given.place, given.stories, given.launcher))


if __name__ == "__main__":
    main()
