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
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gpt import checkpoint
from gpt.errors import BusyError
from gpt.system.files import free_space
from sweep.analysis.results import module_of_trials
from sweep.backends.local import LocalProcess
from sweep.storage import sqlite as storage_file
from sweep.storage.errors import unsound
from sweep.storage.location import owner_of_runs, runs_folder, storage_path
from sweep.storage.lock import only_tuner
from sweep.storage.reader import open_snapshot
from sweep.storage.schema import is_ours, study_attrs, trial_attrs

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
        """Trials of the study, by number."""
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
    log = _unfolded_log(storage)  # before it is opened: whoever closes it last folds the log in
    show(
        f"versions: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + (", ".join(f"{name} {version(name)}" for name in PACKAGES))
    )
    opened = _open(storage, show)
    show(f"disk: {free_space(runs)} free in {runs}")
    studies = [
        optuna.load_study(study_name=name, storage=opened)
        for name in optuna.get_all_study_names(opened)
    ]
    found = [_check(CheckedStudy(study, _folder_of(study, runs)), show) for study in studies]
    if log is not None and None in found:
        show(f"log: {log}, as long as a study is running; {COPYING}")
    elif log is not None:
        show(f"log: {log}, since a command was killed; the next one to end does it; {COPYING}")
    left = int(log is not None and None not in found)
    return left + sum(number or 0 for number in found)


COPYING = "copy by: sqlite3 FILE \"VACUUM INTO 'copy.db'\""


def _unfolded_log(storage: str) -> str | None:
    """Describe the write-ahead log beside a SQLite file that `cp` of the file would miss."""
    path = storage_path(storage)
    log = path and path.with_name(f"{path.name}-wal")
    if log is None or not log.exists() or not log.stat().st_size:
        return None
    return f"{log.stat().st_size / 1e6:.1f} MB in {log} are not in the database file"


def _folder_of(study: optuna.Study, runs: Path) -> Path:
    """Find the run directories of a study in `runs`, else where they were, as after a rename."""
    folder, stored = runs / study.study_name, runs_folder(study)
    mine = study_attrs(study).identity
    found = (path for path in (folder, stored) if owner_of_runs(path) == mine is not None)
    return next(found, folder)


def _open(storage: str, show: Callable[[str], None]) -> BaseStorage:
    opened = open_snapshot(storage)
    path = storage_path(storage)
    if path and (wrong := _integrity(path)):
        raise unsound(path, wrong[0])
    size = f", {path.stat().st_size / 1e6:.1f} MB" if path else ""
    show(f"storage: {storage}{size}, sound")
    return opened


def _integrity(path: Path) -> list[str]:
    # Not read-only: whoever closes the file last folds its log in, and such a one could not.
    with closing(sqlite3.connect(path, timeout=storage_file.TIMEOUT)) as connection:
        return storage_file.faults(connection, "integrity_check")


def _check(checked: CheckedStudy, show: Callable[[str], None]) -> int | None:
    """Show a study's findings and return their number; None while it is running."""
    name, count = checked.study.study_name, len(checked.trials)
    if not is_ours(checked.study):
        show(f"study {name}: {count} trials of another program, not checked")
        return 0
    if not checked.folder.is_dir():
        show(f"study {name}: {count} trials, but no folder {checked.folder}; pass its --runs")
        return 1
    try:
        with only_tuner(checked.folder, name):
            findings = [finding for check in CHECKS for finding in check(checked)]
    except BusyError:
        show(f"study {name}: {count} trials; skipped, since it is running")
        return None
    show(f"study {name}: {count} trials, {len(findings)} findings")
    for finding in findings:
        show(f"  {finding}")
    return len(findings)


# --- checks: each yields a line per finding, with the way out -----------------------------------


def stale_trials(checked: CheckedStudy) -> Iterator[str]:
    """Yield our trials that are RUNNING in the database while nobody runs the study."""
    module = module_of_trials(checked.study)
    ours = [  # another program's trials are its own
        trial
        for trial in checked.trials
        if trial.state == TrialState.RUNNING and trial_attrs(trial).arm is not None
    ]
    training = LocalProcess.find({checked.run_dir(trial): module for trial in ours})
    for trial in ours:
        trains = checked.run_dir(trial) in training
        state = "trains without a tuner" if trains else "is RUNNING, but no process trains it"
        yield f"trial {trial.number} {state}; run the study again to continue it"


def lost_runs(checked: CheckedStudy) -> Iterator[str]:
    """Yield trials without their run directory, and run directories without a trial."""
    known = {str(trial.number) for trial in checked.trials}
    for trial in checked.trials:
        begun = trial_attrs(trial).n_params is not None
        if begun and not (run_dir := checked.run_dir(trial)).is_dir():
            yield (
                f"trial {trial.number} has no run directory {run_dir}; restore it from a copy, or "
                f"train it again with `squen-sweep export --trial {trial.number}` and `train`"
            )
    for run_dir in sorted(checked.folder.glob("[0-9]*")):
        if run_dir.is_dir() and run_dir.name not in known:
            yield f"{run_dir} belongs to no trial; move it elsewhere"


def damaged_checkpoints(checked: CheckedStudy) -> Iterator[str]:
    """Yield checkpoints whose files are not those that were written."""
    if module_of_trials(checked.study) != "gpt.train":  # a program's checkpoints are its own
        return
    for trial in checked.trials:
        for path, reason in checkpoint.damaged(checked.run_dir(trial)):
            yield f"{path} is damaged: {reason}; delete it"


def leftovers(checked: CheckedStudy) -> Iterator[str]:
    """Yield temporary files of processes that were killed while they wrote."""
    for pattern in ("*/.config.json.*", "*/checkpoints/.step-*", ".report.html.*"):
        for path in sorted(checked.folder.glob(pattern)):
            yield f"{path} was left half-written; delete it"


CHECKS = (stale_trials, lost_runs, damaged_checkpoints, leftovers)
