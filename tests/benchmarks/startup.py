"""Seconds until something happens: the help of the command line, the first training step of a run.

    python -m tests.benchmarks.startup

A run is `squen-sweep run --study tinystories` in an empty folder, its text prepared before. Its
first step begins where the trial's own clock does.
"""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from gpt.data.dataset import prepare
from gpt.events import Event, read_events
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path.cwd())}
COMMAND = [measuring.PYTHON, "-m", "sweep"]


def of_help() -> float:
    """Of `squen-sweep --help`, from its start to its end."""
    started = time.time()
    measuring.succeed([*COMMAND, "--help"], env=ENVIRONMENT)
    return time.time() - started


def of_first_step() -> float:
    """From the start of `squen-sweep run` to the first step of a trial."""
    command = [*COMMAND, "run", "--study", "tinystories", "--data", "built-in", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        process = subprocess.Popen(
            [*command, "--trials", "2"],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            event = _first_evaluation(Path(folder) / "runs" / "tinystories")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return float(event["time"] - event["elapsed_seconds"] - started)


def _first_evaluation(runs: Path) -> Event:
    while True:
        for run_dir in runs.glob("[0-9]*"):
            for event in read_events(run_dir)[0]:
                if event["event"] == "evaluation":
                    return event
        time.sleep(0.05)


def main() -> None:
    """Measure and write the results."""
    data = read_study_file("tinystories", "cpu").data
    prepare(data.model_copy(update={"source": "built-in"}))
    seconds = measuring.alternate({"help": of_help, "first step": of_first_step})
    summary = {name: measuring.spread(values) for name, values in seconds.items()}
    measuring.write("startup", {"seconds": seconds, "summary": summary})


if __name__ == "__main__":
    main()
