"""What must hold after any fault and a run of the same command, and how to look at a sweep."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
from forked import Forked
from optuna.trial import FrozenTrial, TrialState

from gpt import checkpoint
from gpt.config import read_config
from gpt.events import Event, read_events
from gpt.train import train
from sweep.storage.rdb import open_storage

ROOT = Path(__file__).parents[2]


def study_of(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=open_storage(str(folder / "sweep.db")))


def stored_trials(folder: Path) -> list[FrozenTrial]:
    return study_of(folder).trials


def curve(folder: Path, number: int) -> list[tuple[int, float]]:
    """What the evaluations table holds of one trial."""
    connection = sqlite3.connect(folder / "sweep.db")
    query = (
        "SELECT step, cross_entropy FROM evaluations JOIN trials USING (trial_id) "
        "JOIN studies USING (study_id) "
        "WHERE study_name = 'tiny' AND number = ? ORDER BY step"
    )
    rows = connection.execute(query, (number,)).fetchall()
    connection.close()
    return rows


def start_command(folder: Path, trials: int, *more: str) -> Forked:
    """`squen-sweep run` in a process of its own."""
    return Forked(ROOT, *words_of_run(folder, trials, *more))


def words_of_run(folder: Path, trials: int, *more: str) -> list[str]:
    options = ["--trials", str(trials), "--workers", "2", "--device", "cpu", *more]
    places = ["--storage", str(folder / "sweep.db"), "--runs", str(folder / "runs")]
    return ["run", "--study", str(folder / "tiny.toml"), *options, *places]


def wait_until(condition: Callable[[], object], seconds: float = 90) -> None:
    """Ask again and again, a fifth of the time at most: what is waited for needs the processor."""
    asked = time.monotonic()
    deadline = asked + seconds
    while not condition():
        now = time.monotonic()
        assert now < deadline
        time.sleep(max(0.02, min(4 * (now - asked), 1.0)))
        asked = time.monotonic()


def events_of(folder: Path, kind: str) -> list[Event]:
    """The events of one kind that trial processes have written, of all trials."""
    run_dirs = sorted((folder / "runs" / "tiny").glob("[0-9]*"))
    events = [event for run_dir in run_dirs for event in read_events(run_dir)[0]]
    return [event for event in events if event["event"] == kind]


def evaluated(folder: Path) -> int:
    """Evaluations that trial processes have written."""
    return len(events_of(folder, "evaluation"))


def trial_processes(folder: Path) -> list[psutil.Process]:
    """Those that train in a run directory of `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if "gpt.train" in line and str(folder) in line:
            found.append(process)
    return found


def assert_sound(folder: Path, trials: int) -> None:
    """Every trial ended exactly once, with its whole curve; nothing is torn or left over."""
    stored = stored_trials(folder)
    assert [t.number for t in stored] == list(range(trials))
    assert all(t.state.is_finished() for t in stored)
    for trial in stored:
        assert trial.state == TrialState.COMPLETE or trial.user_attrs["reason"]
        steps = [step for step, _ in curve(folder, trial.number)]
        told_worst = trial.user_attrs["outcome"] in ("diverged", "oom", "timeout")
        assert steps == sorted(trial.intermediate_values)[: -1 if told_worst else None]
        run_dir = folder / "runs" / "tiny" / str(trial.number)
        saved = checkpoint.load(run_dir)
        assert saved is not None or trial.state != TrialState.COMPLETE
    connection = sqlite3.connect(folder / "sweep.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert leftovers(folder) == []
    assert not trial_processes(folder)


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders."""
    kept = {".study", ".driver.lock", ".lock"}
    hidden = {path for path in (folder / "runs").rglob(".*") if path.name not in kept}
    return sorted(hidden | set((folder / "runs").rglob("*.partial")))


def assert_undisturbed(folder: Path) -> None:
    """Every complete trial has, bit for bit, the figures of a run without interrupt."""
    for trial in stored_trials(folder):
        config = read_config(folder / "runs" / "tiny" / str(trial.number) / "config.json")
        if trial.state == TrialState.COMPLETE:
            stored = curve(folder, trial.number)
            undisturbed = [(e.step, e.cross_entropy) for e in train(config)]
            assert stored == undisturbed, (trial.number, set(stored) ^ set(undisturbed))
