"""Do learning rate, depth and dropout matter in a study's CPU budget, and without its recipe?

    python -m tests.benchmarks.which_matter STORIES

STORIES is a folder of real ones. From the centre of each study, one or two things change at a time.
Runs that the file holds already are kept, so that a stopped measurement goes on. Prints the
perplexities of each setting. Seconds are of the processor, beside whatever else it did.
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

FEW: Run = {
    "study": "few_stories",
    "text": "stories",
    "max_stories": 200,
    "optimizer": "muon",
    "loss": "cross_entropy",
    "n_layer": 3,
    "dropout": 0.1,
    "learning_rate": 1e-2,
    "seed": 1,
}
CHANGES_OF_FEW: list[Run] = [
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
ONCE: Run = FEW | {
    "study": "tinystories",
    "max_stories": 14000,
    "optimizer": "adamw",
    "dropout": 0.0,
    "learning_rate": 1.2e-2,
}
CHANGES_OF_ONCE: list[Run] = [
    *({"seed": seed, "n_layer": depth} for seed in (1, 2, 3) for depth in (1, 2, 3, 4, 6)),
    *({"learning_rate": rate} for rate in (6e-3, 2.4e-2)),
    *({"seed": seed, "dropout": 0.1} for seed in (1, 2)),
    *({"loss": "squentropy", "n_layer": depth} for depth in (1, 2, 3, 4, 6)),
    *({"loss": "squentropy", "learning_rate": rate} for rate in (6e-3, 2.4e-2)),
    *({"text": "built-in", "n_layer": depth} for depth in (1, 2, 3, 4, 6)),
    *({"text": "built-in", "learning_rate": rate} for rate in (6e-3, 2.4e-2)),
]
RUNS = [FEW | change for change in CHANGES_OF_FEW] + [ONCE | change for change in CHANGES_OF_ONCE]
EVAL_TOKENS = 32768  # four times the studies', once, at the end
PROCESSES = 2
FILE = measuring.HERE / "which_matter.json"


def config(run: Run, stories: str) -> TrainConfig:
    """Of the study, with what the run changes, in bfloat16."""
    spec = read_study_file(run["study"], "cpu")
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
    known = [{name: run[name] for name in FEW} for run in done]
    jobs = [(run, sys.argv[1]) for run in RUNS if run not in known]
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
    order = sorted(done, key=lambda run: [str(run[name]) for name in FEW])
    measuring.write("which_matter", {"eval_tokens": EVAL_TOKENS, "runs": order}, "STORIES")


if __name__ == "__main__":
    main()
