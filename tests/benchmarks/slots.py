"""Is it better to train several trials with one thread each, or one trial with all threads?

    python tests/benchmarks/slots.py tests/benchmarks/slots.json

Trains the middle of the tinystories CPU budget on the built-in corpus. Prints and writes, for each
plan, the summed training tokens per second of its processes, in alternating repeats.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from gpt.config import DataConfig
from gpt.data.dataset import prepare
from gpt.events import read_events
from sweep.backends.base import Job, Slot
from sweep.backends.local import LocalProcess, available_cores
from sweep.study.dataset import pin_dataset
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from sweep.trainers.gpt import GPTTrainer, faster_dtype

STEPS = 100
REPEATS = 5


def tokens_per_second(
    spec: StudySpec, data: DataConfig, folder: Path, plan: tuple[int, int]
) -> float:
    """Summed over `processes` trials at a time, each with `threads`."""
    processes, threads = plan
    started = []
    for index in range(processes):
        params = {"learning_rate": 3e-3, "dropout": 0.1, "n_layer": 3, "loss": "cross_entropy"}
        config = spec.train_config(params, data, "cpu", threads)
        short = {"max_steps": STEPS, "eval_interval": STEPS, "eval_tokens": 1}
        run_dir = folder / str(index)
        run_dir.mkdir(parents=True)
        (run_dir / "config.json").write_text(config.model_copy(update=short).model_dump_json())
        trainer = GPTTrainer(data)
        job = Job(run_dir, trainer.command(run_dir), Slot(index, "cpu", threads), trainer.module)
        started.append((LocalProcess.start(job), run_dir))
    return sum(_rate(process, run_dir) for process, run_dir in started)


def _rate(process: LocalProcess, run_dir: Path) -> float:
    while process.alive:
        time.sleep(0.1)
    events, _ = read_events(run_dir)
    return float(next(e["tokens_per_second"] for e in events if e["event"] == "evaluation"))


def main() -> None:
    """Measure and write the results."""
    cores = available_cores()
    plans = [(cores, 1), (1, cores), (1, 1)]
    spec = read_study_file("tinystories", "cpu").with_dtype(faster_dtype("cpu"))
    source = spec.data.model_copy(update={"source": "built-in"})
    data = pin_dataset(source, prepare(source))
    rates: dict[str, list[float]] = {f"{p} x {t} threads": [] for p, t in plans}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS):
            for name, plan in zip(rates, plans, strict=True):
                place = Path(folder) / f"{repeat}-{plan[0]}-{plan[1]}"
                rates[name].append(round(tokens_per_second(spec, data, place, plan)))
                print(name, rates[name][-1], flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = medians[f"1 x {cores} threads"]
    result: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "machine": f"{cores} cores, {platform.machine()}",
        "torch": torch.__version__,
        "tokens_per_second": rates,
        "median": medians,
        "ratio_to_one_trial_with_all_threads": {k: round(v / base, 2) for k, v in medians.items()},
    }
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ratio_to_one_trial_with_all_threads"]))


if __name__ == "__main__":
    main()
