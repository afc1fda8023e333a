"""One tuner on one core with 1,000 trials at a time, and the commands on a study of 10,000.

    python -m tests.benchmarks.scale

Trials are stand-ins: a process on another core appends to the events.jsonl of each an evaluation
every ten seconds. Everything else is real: asking, run directories, the database on a disk, the
pruner, notes and figures of the dashboard.
"""

import argparse
import json
import math
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from postgresql import free_port
from stand_ins import StandIns, opened, write_event
from stored_studies import STUDY as TINY
from stored_studies import StoredStudy, evaluation

from gpt.config import DataConfig
from gpt.events import Evaluation, Event
from sweep.backends.base import Job, Status
from sweep.dashboard.notes import DashboardNotes
from sweep.trainers.gpt import GPTTrainer
from sweep.tuner import tuner as loop
from sweep.tuner.callback import Callback, CallbackList, Evaluated, Message, Opened, SweepEvent
from sweep.tuner.limits import Limits
from sweep.tuner.options import RunOptions
from tests.benchmarks import measuring
from tests.benchmarks.report_of_many import DROPOUT, fill

SLOTS = 1000  # at a time, in the stored study
EVERY = 10.0  # seconds between two evaluations of a trial
MAX_STEPS, EVAL_INTERVAL = 300, 10  # thirty evaluations: a trial takes five minutes
STUDY = f"""
name = "many"
compare = "loss"
train = {{ max_steps = {MAX_STEPS}, eval_interval = {EVAL_INTERVAL}, dtype = "float32" }}
sampler.startup_trials = 8
[search.learning_rate]
low = 1e-4
high = 1e-2
log = true
[search.n_layer]
low = 1
high = 6
[search.loss]
choices = ["cross_entropy", "squentropy"]
"""


def write_events() -> None:
    """The stand-in trials: lines of standard input start and stop them, their ends are printed."""
    due: list[tuple[float, int, Path]] = []  # time, step, run directory
    text, rng = b"", random.Random(0)
    while True:
        wait = min([at for at, _, _ in due], default=math.inf) - time.monotonic()
        if select.select([0], [], [], min(max(wait, 0.0), 0.2))[0]:
            new = os.read(0, 65536)
            if not new:
                return
            *lines, text = (text + new).split(b"\n")
            for line in lines:
                word, _, name = line.decode().partition(" ")
                here = Path(name)
                if word == "start":
                    due.append((time.monotonic() + rng.uniform(0, EVERY), EVAL_INTERVAL, here))
                elif any(run_dir == here for _, _, run_dir in due):
                    due = [one for one in due if one[2] != here]
                    append(here, {"event": "stopped", "step": 0})
        now = time.monotonic()
        for one in [one for one in due if one[0] <= now]:
            due.remove(one)
            at, step, run_dir = one
            level = 20 + 400 / step + random.Random(run_dir.name).uniform(0, 20)
            append(run_dir, {"event": "evaluation", **asdict(evaluation(step, level))})
            if step < MAX_STEPS:
                due.append((at + EVERY, step + EVAL_INTERVAL, run_dir))
            else:
                append(run_dir, {"event": "done", "step": step})


def append(run_dir: Path, event: Event) -> None:
    """Write an event, and print whose end it is."""
    write_event(run_dir, event)
    if event["event"] != "evaluation":
        print(run_dir, flush=True)


class WrittenElsewhere(StandIns):
    """Jobs whose events another process writes."""

    def __init__(self, slots: int, core: int) -> None:
        super().__init__(slots)
        self._text = b""
        self._writer = subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, "-m", __spec__.name, "--write-events"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def start(self, job: Job) -> None:
        super().start(job)
        self._tell("start", job.run_dir)

    def poll(self) -> Mapping[Path, Status]:
        out = self._writer.stdout
        assert out is not None
        while select.select([out], [], [], 0)[0]:
            *lines, self._text = (self._text + os.read(out.fileno(), 65536)).split(b"\n")
            for line in lines:
                self.alive[Path(line.decode())] = False
        return super().poll()

    def stop(self, run_dir: Path) -> None:
        self._tell("stop", run_dir)

    def close(self) -> None:
        self._writer.kill()
        self._writer.wait()

    def _tell(self, word: str, run_dir: Path) -> None:
        assert self._writer.stdin is not None
        self._writer.stdin.write(f"{word} {run_dir}\n".encode())


class TimedTrainer(GPTTrainer):
    """Remembers when the evaluation that is being reported was written."""

    written = 0.0

    def evaluation(self, event: Event) -> Evaluation:
        self.written = event["time"]
        return super().evaluation(event)


class Delays(Callback):
    """Seconds from the writing of each event until it is stored."""

    def __init__(self, trainer: TimedTrainer) -> None:
        self._trainer = trainer
        self.seconds: list[float] = []

    def on(self, event: SweepEvent) -> None:
        if isinstance(event, Evaluated):
            self.seconds.append(time.time() - self._trainer.written)
        if isinstance(event, Message):
            print(event.text, flush=True)


class TimedTuner(loop.Tuner):
    """Measures the milliseconds on the CPU of asking, of an evaluation with its look, of an end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.cpu: dict[str, list[float]] = {"ask": [], "launch": [], "evaluation": [], "tell": []}
        loop.add_trial = self._timed("ask", loop.add_trial)
        self._launch = self._timed("launch", self._launch)  # type: ignore[method-assign]
        self._report = self._timed("evaluation", self._report)  # type: ignore[method-assign]
        self._tell = self._timed("tell", self._tell)  # type: ignore[method-assign]
        self.filled: float | None = None

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.process_time()
            found = call(*arguments)
            self.cpu[name].append(1e3 * (time.process_time() - began))
            if self.filled is None and len(self.runs) == len(self.slots):
                self.filled = time.monotonic() - self._started
            return found

        return timed


def spread(values: list[float], digits: int = 1) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    at = np.quantile(values, (0.5, 0.95, 1.0)) if values else (math.nan,) * 3
    return {
        name: round(float(q), digits) for name, q in zip(("median", "p95", "most"), at, strict=True)
    }


def concurrent(trials: int, seconds: float) -> dict[str, Any]:
    """So many trials at a time, for so long."""
    tuners, writers = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {tuners})
    with tempfile.TemporaryDirectory() as folder:
        stored = StoredStudy(Path(folder), STUDY)
        trainer, backend = TimedTrainer(DataConfig()), WrittenElsewhere(trials, writers)
        delays = Delays(trainer)
        callback = CallbackList(delays, DashboardNotes(lambda text: print(text, flush=True)))
        begun = opened(stored, backend, trainer)
        study = begun.study
        try:
            with callback:
                tuner = TimedTuner(begun, RunOptions(limits=Limits(sweep=seconds)), callback)
                callback.on(Opened(study, stored.storage))
                before, began = (
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                    time.process_time(),
                )
                tuner.run(1_000_000)
                cpu = time.process_time() - began
        finally:
            backend.close()
        asked = len(study.get_trials(deepcopy=False))
    cpu_of = {name: spread(values) for name, values in tuner.cpu.items()}
    means = {name: float(np.mean(values)) for name, values in tuner.cpu.items()}
    return {
        "trials_at_a_time": trials,
        "seconds": seconds,
        "seconds_until_all_train": round(tuner.filled or math.nan, 1),
        "trials": asked,
        "evaluations": len(delays.seconds),
        "late_evaluations": sum(delay > 5.0 for delay in delays.seconds),
        "seconds_until_an_evaluation_is_stored": spread(delays.seconds, 2),
        "cpu_seconds_of_the_tuner": round(cpu, 1),
        "share_of_a_core": round(cpu / seconds, 2),
        "cpu_milliseconds": cpu_of,
        "cpu_milliseconds_of_ask_10_evaluations_and_tell": round(
            means["ask"] + 10 * means["evaluation"] + means["tell"], 1
        ),
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "megabytes_before": round(before / 1e3),
    }


def stored(trials: int, evaluations: int) -> dict[str, Any]:
    """The commands on so many trials in one study: seconds, and those on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        made = StoredStudy(Path(folder), TINY.replace("[search.loss]", DROPOUT))
        fill(made, trials, evaluations, slots=SLOTS)
        made.storage.engine.dispose()
        places = ["--storage", str(made.path)]
        found = {
            words: timed([*words.split(), "--study", "tiny", *places])
            for words in ("status", "report", "export", "plot curves")
        }
        found["studies"] = timed(["studies", *places])
        found["doctor"] = timed(["doctor", *places])
        found |= dashboard(places)
    return {"trials": trials, "evaluations_each": evaluations, "seconds": found}


def timed(words: list[str]) -> dict[str, float]:
    """Of one command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    measuring.succeed([measuring.PYTHON, "-m", "sweep", *words])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(words[:2], round(cpu, 1), flush=True)
    return {"wall": round(time.monotonic() - began, 1), "cpu": round(cpu, 1)}


def dashboard(places: list[str]) -> dict[str, Any]:
    """The dashboard's first page: the list of studies, then the study with all its trials."""
    port = free_port()
    command = [measuring.PYTHON, "-m", "sweep", "dashboard", "--port", str(port), *places]
    server, found = subprocess.Popen(command, stdout=subprocess.DEVNULL), {}
    try:
        began = time.monotonic()
        while True:
            try:
                fetch(port, "/dashboard/")
                break
            except OSError:
                time.sleep(0.1)
        found["dashboard: until it answers"] = {"wall": round(time.monotonic() - began, 1)}
        for name, path in (("list of studies", "/api/studies"), ("the study", "/api/studies/1")):
            began = time.monotonic()
            size = fetch(port, path)
            seconds = round(time.monotonic() - began, 1)
            found[f"dashboard: {name}"] = {"wall": seconds, "megabytes": round(size / 1e6, 1)}
    finally:
        server.terminate()
        server.wait()
    return found


def fetch(port: int, path: str) -> int:
    """The size of an answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=300) as answer:
        return len(answer.read())


def main() -> None:
    """Measure and write the results, beside those of the part that is left out by a 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-events", action="store_true")
    parser.add_argument("--at-a-time", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--stored", type=int, default=10_000)
    options = parser.parse_args()
    if options.write_events:
        return write_events()
    path = measuring.HERE / "scale.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    for part in ("command", "machine"):
        figures.pop(part, None)
    if options.stored:
        figures["stored"] = {"load": os.getloadavg()[0]} | stored(options.stored, 20)
    if options.at_a_time:
        load = {"load": os.getloadavg()[0]}
        figures["concurrent"] = load | concurrent(options.at_a_time, options.seconds)
    measuring.write("scale", figures)
    return None


if __name__ == "__main__":
    main()
