"""Do learning rate, depth and dropout matter in the study few_stories, and without its recipe?

    python -m tests.benchmarks.few_stories STORIES

STORIES is a folder of real ones. From the study's centre, one or two things change at a time. Runs
that the file holds already are kept, so that a stopped measurement goes on. Prints the perplexities
of each setting. Seconds are of the processor, beside whatever else it did.
"""

import contextlib
import io
import json
import multiprocessing
import os
import sys
import time
from typing import Any

from gpt.config import TrainConfig
from gpt.data.dataset import prepare
from gpt.train import train
from sweep.study.dataset import pin_dataset
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

Run = dict[str, Any]

CENTRE: Run = {
    "text": "stories",
    "max_stories": 200,
    "optimizer": "muon",
    "loss": "cross_entropy",
    "n_layer": 3,
    "dropout": 0.1,
    "learning_rate": 1e-2,
    "seed": 1,
}
CHANGES: list[Run] = [
    {},
    *({"n_layer": depth} for depth in (1, 2, 6, 8)),
    *({"dropout": dropout} for dropout in (0.0, 0.2)),
    *({"learning_rate": rate} for rate in (5e-3, 2e-2)),
    *({"n_layer": depth, "dropout": 0.0} for depth in (1, 6)),
    {"seed": 2},
    {"seed": 2, "dropout": 0.0},
    *({"seed": 2, "n_layer": depth} for depth in (1, 6)),
    *({"loss": "squentropy", "dropout": dropout} for dropout in (0.1, 0.0)),
    *({"max_stories": 80, "n_layer": depth} for depth in (1, 3, 6)),
    *({"optimizer": "adamw", "n_layer": depth} for depth in (1, 3, 6)),
    *({"optimizer": "adamw", "n_layer": depth, "learning_rate": 5e-3} for depth in (3, 6)),
    {"optimizer": "adamw", "dropout": 0.0},
    *({"text": "built-in", "max_stories": 300, "n_layer": depth} for depth in (1, 3, 6)),
]
EVAL_TOKENS = 32768  # four times the study's, once, at the end
PROCESSES = 2
FILE = measuring.HERE / "few_stories.json"


def config(run: Run, stories: str) -> TrainConfig:
    """Of the study, with what the run changes, in bfloat16."""
    spec = read_study_file("few_stories", "cpu")
    source = "built-in" if run["text"] == "built-in" else stories
    data = spec.data.model_copy(update={"source": source, "max_stories": run["max_stories"]})
    params = {name: run[name] for name in ("loss", "n_layer", "dropout", "learning_rate")}
    made = spec.train_config(params, pin_dataset(data, prepare(data)), "cpu", 1)
    changed = {
        "optimizer": run["optimizer"],
        "seed": run["seed"],
        "eval_interval": spec.max_steps,
        "eval_tokens": EVAL_TOKENS,
        "dtype": "bfloat16",
    }
    return made.model_copy(update=changed)


def train_one(job: tuple[Run, str]) -> Run:
    """The run with its perplexity and its seconds."""
    run, stories = job
    of_run, before = config(run, stories), time.process_time()
    (end,) = train(of_run)
    return run | {
        "perplexity": round(end.perplexity, 3),
        "cpu_seconds": round(time.process_time() - before, 1),
    }


def main() -> None:
    """Train what is missing and write the results after each run."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    done: list[Run] = json.loads(FILE.read_text())["runs"] if FILE.exists() else []
    known = [{name: run[name] for name in CENTRE} for run in done]
    jobs = [(CENTRE | change, sys.argv[1]) for change in CHANGES if CENTRE | change not in known]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for run in pool.imap_unordered(train_one, jobs, chunksize=1):
            done.append(run)
            print(*run.values(), flush=True)
            with contextlib.redirect_stdout(io.StringIO()):  # it would print all runs each time
                write(done)
    for run in done:
        print(*run.values())


def write(done: list[Run]) -> None:
    """Write the results."""
    order = sorted(done, key=lambda run: [str(run[name]) for name in CENTRE])
    measuring.write("few_stories", {"eval_tokens": EVAL_TOKENS, "runs": order}, "STORIES")


if __name__ == "__main__":
    main()
