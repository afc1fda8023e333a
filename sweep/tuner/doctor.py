"""Checks of a storage and its run directories: what is damaged, lost or left over. Changes nothing.

`squen-sweep run` continues interrupted trials and passes over damaged checkpoints by itself.
Add a check by adding a function that yields findings to CHECKS.
"""

import platform
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from gpt import checkpoint
from gpt.errors import BusyError
from gpt.system.files import free_space
from sweep.backends.local import LocalProcess
from sweep.storage import sqlite as storage_file
from sweep.storage.lock import only_tuner
from sweep.storage.rdb import open_storage, sqlite_path, storage_url
from sweep.storage.schema import trial_attrs
from sweep.storage.sqlite import unsound

PACKAGES = ("squen-sweep", "torch", "optuna", "sqlalchemy", "optuna-dashboard")


@dataclass(frozen=True)
class CheckedStudy:
    """A study and the folder of its run directories."""

    study: optuna.Study
    folder: Path

    def run_dir(self, trial: FrozenTrial) -> Path:
        """Return the folder in which a trial trains."""
        return self.folder / str(trial.number)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)


def examine(storage: str, runs: Path, show: Callable[[str], None]) -> int:
    """Check a storage and its run directories, and return the number of findings.

    Args:
        storage: URL or path of the database.
        runs: The folder that holds a folder per study.
        show: Called with every line.

    Raises:
        InputError: there is no such database.
        DataError: it is damaged.
    """
    show(
        f"versions: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + (", ".join(f"{name} {version(name)}" for name in PACKAGES))
    )
    opened = _open(storage, show)
    show(f"disk: {free_space(runs)} free in {runs}")
    studies = (
        optuna.load_study(study_name=name, storage=opened)
        for name in optuna.get_all_study_names(opened)
    )
    return sum(_check(CheckedStudy(study, runs / study.study_name), show) for study in studies)


def _open(storage: str, show: Callable[[str], None]) -> RDBStorage:
    opened = open_storage(storage)
    path = sqlite_path(storage_url(storage))
    if path and (wrong := _integrity(path)):
        raise unsound(path, wrong[0])
    size = f", {path.stat().st_size / 1e6:.1f} MB" if path else ""
    show(f"storage: {storage}{size}, sound")
    return opened


def _integrity(path: Path) -> list[str]:
    with closing(storage_file.read_only(path)) as connection:
        return storage_file.faults(connection, "integrity_check")


def _check(checked: CheckedStudy, show: Callable[[str], None]) -> int:
    """Show a study's findings and return their number."""
    name, count = checked.study.study_name, len(checked.trials)
    if not checked.folder.is_dir():
        show(f"study {name}: {count} trials, but no folder {checked.folder}; pass its --runs")
        return 1
    try:
        with only_tuner(checked.folder, name):
            findings = [finding for check in CHECKS for finding in check(checked)]
    except BusyError:
        show(f"study {name}: {count} trials; skipped, since it is running")
        return 0
    show(f"study {name}: {count} trials, {len(findings)} findings")
    for finding in findings:
        show(f"  {finding}")
    return len(findings)


# --- checks: each yields a line per finding, with the way out -----------------------------------


def stale_trials(checked: CheckedStudy) -> Iterator[str]:
    """Yield trials that are RUNNING in the database while nobody runs the study."""
    for trial in checked.trials:
        if trial.state != TrialState.RUNNING:
            continue
        trains = bool(LocalProcess.find({checked.run_dir(trial): "gpt.train"}))
        state = "trains without a tuner" if trains else "is RUNNING, but no process trains it"
        yield f"trial {trial.number} {state}; run the study again to continue it"


def lost_runs(checked: CheckedStudy) -> Iterator[str]:
    """Yield trials without their run directory, and run directories without a trial."""
    known = {str(trial.number) for trial in checked.trials}
    for trial in checked.trials:
        begun = trial_attrs(trial).n_params is not None
        if begun and not (run_dir := checked.run_dir(trial)).is_dir():
            yield f"trial {trial.number} has no run directory {run_dir}; restore it from a copy"
    for run_dir in sorted(checked.folder.glob("[0-9]*")):
        if run_dir.is_dir() and run_dir.name not in known:
            yield f"{run_dir} belongs to no trial; move it elsewhere"


def damaged_checkpoints(checked: CheckedStudy) -> Iterator[str]:
    """Yield checkpoints whose files are not those that were written."""
    for trial in checked.trials:
        for path, reason in checkpoint.damaged(checked.run_dir(trial)):
            yield f"{path} is damaged: {reason}; delete it"


def leftovers(checked: CheckedStudy) -> Iterator[str]:
    """Yield temporary files of processes that were killed while they wrote."""
    for pattern in ("*/.config.json.*", "*/checkpoints/.step-*", ".report.html.*"):
        for path in sorted(checked.folder.glob(pattern)):
            yield f"{path} was left half-written; delete it"


CHECKS = (stale_trials, lost_runs, damaged_checkpoints, leftovers)
