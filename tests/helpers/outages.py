"""Outages that no test waits for: what each costs a sweep, and that nothing is lost.

    python tests/helpers/outages.py --output tests/benchmarks/outages.json

In the middle of a sweep a server, a scheduler, a node or a wire is away for the stated time. Each
outage is seen to have happened, and afterwards there are exactly so many trials, each complete,
with the figures that it has undisturbed. The same sweep without the outage says what it cost.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from invariants import assert_sound, assert_undisturbed
from optuna.trial import TrialState
from postgresql import Server, Wire, server_in
from ray_cluster import ray_cluster_in, stall
from slurm import cluster_in
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.config import read_config
from gpt.events import read_events
from gpt.train import train
from sweep.storage.rdb import close_all, open_storage
from sweep.storage.reader import load_study
from sweep.tuner import callback as events
from sweep.tuner.callback import Callback

TRIALS, MAX_STEPS, EVAL_INTERVAL = 4, 1200, 60
AT = 4  # evaluations, until it begins; none of these sweeps ends before it is over


class Outage(Callback):
    """Lets something go away in the middle of a sweep, in a thread of its own.

    Attributes:
        seconds: That it was away; None: it is not back yet, or it never went.
        meanwhile: Evaluations that the sweep heard of while it was away.
        said: Notices.
    """

    def __init__(self, does: Callable[[], None] | None) -> None:
        self.seconds: float | None = None
        self.meanwhile = 0
        self.said: list[str] = []
        self._does, self._seen = does, 0
        self._thread = threading.Thread(target=self._go_away)

    def on(self, event: events.SweepEvent) -> None:
        if isinstance(event, events.Message):
            self.said.append(event.text)
        if isinstance(event, events.Evaluated):
            self._seen += 1
            if self._seen == AT and self._does:
                self._thread.start()

    def _go_away(self) -> None:
        assert self._does is not None
        began, seen = time.monotonic(), self._seen
        self._does()
        self.seconds, self.meanwhile = time.monotonic() - began, self._seen - seen

    def require(self, seconds: float) -> None:
        """See that it is over, before the sweep was, and was as long as it was to be."""
        assert self.seconds is not None
        assert self.seconds >= seconds


def sweep(folder: Path, outage: Outage, **options: Any) -> float:
    """Run the study; return its seconds."""
    folder.mkdir()
    text = write_stories(folder / "text")
    spec = tiny_study(folder, text, max_steps=MAX_STEPS, eval_interval=EVAL_INTERVAL)
    began = time.monotonic()
    run_tiny(spec, folder, TRIALS, callback=outage, **options)
    return time.monotonic() - began


def measure(
    what: str,
    folder: Path,
    seconds: float,
    does: Callable[[], None],
    check: Callable[[Path], None],
    options: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Run the sweep with an outage and without one.

    Args:
        what: Words for it.
        folder: Made.
        seconds: That it lasts at least.
        does: Makes it, and returns when it is over.
        check: Raises where something of a sweep's folder is lost, doubled or changed.
        options: Returns where the next sweep runs.
    """
    folder.mkdir()
    outage, none = Outage(does), Outage(None)
    took = sweep(folder / "with", outage, **options())
    outage.require(seconds)
    check(folder / "with")
    undisturbed = sweep(folder / "without", none, **options())
    figures = {
        "what": what,
        "seconds_away": round(outage.seconds or 0, 1),
        "evaluations_heard_meanwhile": outage.meanwhile,
        "notices": [line for line in outage.said if "storage" in line or "waiting" in line],
        "complete_trials": TRIALS,  # or the check had failed
        "trials_lost_doubled_or_left_running": 0,
        "seconds": round(took, 1),
        "seconds_undisturbed": round(undisturbed, 1),
        "cost_seconds": round(took - undisturbed, 1),
    }
    print(json.dumps(figures), flush=True)
    return figures


def check_files(folder: Path) -> None:
    """See what a sweep left in a SQLite file and in its run directories."""
    assert_sound(folder, TRIALS)
    assert_undisturbed(folder)
    for number in range(TRIALS):
        assert_no_step_twice(folder / "runs" / "tiny" / str(number))


def assert_no_step_twice(run_dir: Path) -> None:
    steps = [event["step"] for event in read_events(run_dir)[0] if event["event"] == "evaluation"]
    assert steps == list(range(EVAL_INTERVAL, MAX_STEPS + 1, EVAL_INTERVAL))


# --- a server -------------------------------------------------------------------------------


@contextmanager
def a_server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        (Path(name) / "server").mkdir()
        Path(name).chmod(0o755)  # its user must reach it
        with server_in(Path(name) / "server") as server:
            yield server


def of_postgresql(folder: Path) -> Iterator[dict[str, Any]]:
    """A server that is away for a minute, and a wire to it that stalls for 20 s."""
    with a_server() as server:
        wire, made = Wire(server), iter(range(100))

        def database() -> str:
            name = f"d{next(made)}"
            server.execute("postgres", f"CREATE DATABASE {name}")
            return name

        def away() -> None:
            server.stop()
            time.sleep(60)
            server.start()

        def stalls() -> None:
            wire.stalls.set()
            time.sleep(20)
            wire.stalls.clear()

        for words, seconds, does, port in (
            ("PostgreSQL away", 60, away, None),
            ("the wire to PostgreSQL stalls", 20, stalls, wire.port),
        ):
            urls: list[str] = []

            def options(port: int | None = port, urls: list[str] = urls) -> dict[str, Any]:
                name = database()
                urls.append(server.url(name))
                return {"storage": server.url(name, port)}

            def check(folder: Path, urls: list[str] = urls) -> None:
                check_server(urls[0], folder)

            place = folder / words.replace(" ", "-")
            yield measure(words, place, seconds, does, check, options)
            close_all()


def check_server(url: str, folder: Path) -> None:
    """See what a sweep left in a server and in its run directories."""
    storage = open_storage(url)
    trials = load_study(storage, "tiny").trials
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    query = "SELECT step, cross_entropy FROM evaluations WHERE trial_id = :trial ORDER BY step"
    for trial in trials:
        run_dir = folder / "runs" / "tiny" / str(trial.number)
        with storage.engine.connect() as connection:
            rows = connection.execute(sa.text(query), {"trial": trial._trial_id}).all()
        evaluated = [(e.step, e.cross_entropy) for e in train(read_config(run_dir / "config.json"))]
        assert [tuple(row) for row in rows] == evaluated
        assert_no_step_twice(run_dir)


# --- clusters -------------------------------------------------------------------------------


def of_slurm(folder: Path) -> Iterator[dict[str, Any]]:
    """A scheduler that is away for 30 s."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, cluster_in(Path(name)) as cluster:
        os.environ["SLURM_CONF"] = str(cluster.file)

        def away() -> None:
            began = time.monotonic()
            cluster.stop("slurmctld")
            assert "Unable to contact" in cluster("squeue")
            time.sleep(max(0.0, 30 - (time.monotonic() - began)))
            cluster.start_controller()

        place = folder / "slurm"
        yield measure("slurmctld away", place, 30, away, check_files, lambda: {"backend": "slurm"})


def of_ray(folder: Path) -> Iterator[dict[str, Any]]:
    """Nodes that nobody reaches for 20 s; their trials train on."""
    (folder / "cluster").mkdir()
    with ray_cluster_in(folder / "cluster", settings={}) as ray:  # as patient as Ray is by itself

        def stalls() -> None:
            stall(ray.daemons(), 20)

        options = {"backend": "ray", "ray_address": ray.address}
        place = folder / "ray"
        words = "the wire to all nodes of Ray stalls"
        yield measure(words, place, 20, stalls, check_files, lambda: options)


def main() -> None:
    """Make each outage, and write what it cost."""
    from tests.benchmarks.measuring import machine

    kinds = {"slurm": of_slurm, "postgresql": of_postgresql, "ray": of_ray}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(kinds))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["SQUEN_SWEEP_CACHE"] = str(Path(name) / "cache")
        for kind in [options.only] if options.only else kinds:
            found += kinds[kind](Path(name))
    result = {
        "command": f"python tests/helpers/outages.py --output {options.output}",
        "machine": machine(),
        "study": f"{TRIALS} trials of {MAX_STEPS} steps on 2 slots, evaluated each {EVAL_INTERVAL}",
        "outages": found,
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
