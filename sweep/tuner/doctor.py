"""What may be wrong with a storage and its run directories, and how to mend it. Trains nothing.

A check looks at one thing and yields Findings; a Finding that can be mended knows how. Nothing is
ever deleted that could be of use: it is moved aside. Add a check by adding a function to CHECKS.
"""

import platform
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
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

Show = Callable[[str], None]
PACKAGES = ("squen-sweep", "torch", "optuna", "sqlalchemy", "optuna-dashboard")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong."""

    what: str
    mend: Callable[[], str] | None = None  # does it, and says what it did; None: only you can


@dataclass(frozen=True)
class Patient:
    """A study and the folder of its run directories."""

    storage: RDBStorage
    study: optuna.Study
    folder: Path

    def run_dir(self, trial: FrozenTrial) -> Path:
        """Where a trial trains."""
        return self.folder / str(trial.number)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All of them, by number."""
        return self.study.get_trials(deepcopy=False)


def examine(storage: str, runs: Path, show: Show, *, fix: bool = False) -> int:
    """Show what is wrong with a storage and its run directories, and mend it when asked to.

    Args:
        storage: URL or path of the database.
        runs: The folder that holds a folder per study.
        show: Told every line.
        fix: Mend what can be mended, after a copy of the database.

    Returns:
        How many findings remain.

    Raises:
        InputError: there is no such database.
        DataError: it is damaged beyond what a repair of ours could do.
    """
    show(
        f"versions: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + (", ".join(f"{name} {version(name)}" for name in PACKAGES))
    )
    path = sqlite_path(storage_url(storage))
    opened = _open(storage, path, show)
    show(f"disk: {free_space(runs)} free in {runs}")
    remaining = 0
    backup = partial(_backup, path, show) if path else None
    for name in optuna.get_all_study_names(opened):
        study = optuna.load_study(study_name=name, storage=opened)
        patient = Patient(opened, study, runs / name)
        remaining += _treat(patient, show, fix, backup)
    return remaining


def _open(storage: str, path: Path | None, show: Show) -> RDBStorage:
    opened = open_storage(storage)
    if path and (wrong := _integrity(path)):
        raise unsound(path, wrong[0])
    size = f", {path.stat().st_size / 1e6:.1f} MB" if path else ""
    show(f"storage: {storage}{size}, sound")
    return opened


def _integrity(path: Path) -> list[str]:
    with closing(storage_file.read_only(path)) as connection:
        return storage_file.faults(connection, "integrity_check")


def _treat(patient: Patient, show: Show, fix: bool, backup: Callable[[], None] | None) -> int:
    """Show a study's findings and mend them; returns how many remain."""
    name = patient.study.study_name
    if not patient.folder.is_dir():
        show(f"study {name}: {len(patient.trials)} trials, but no folder {patient.folder}; --runs?")
        return 1
    try:
        with only_tuner(patient.folder, name):
            findings = [finding for check in CHECKS for finding in check(patient)]
            show(f"study {name}: {len(patient.trials)} trials, {len(findings)} findings")
            return _mend(findings, show, backup) if fix else _list(findings, show)
    except BusyError:
        show(f"study {name}: {len(patient.trials)} trials; it runs just now, so it is left alone")
        return 0


def _list(findings: list[Finding], show: Show) -> int:
    for finding in findings:
        show(f"  {finding.what} ({'--fix mends it' if finding.mend else 'see yourself'})")
    return len(findings)


def _mend(findings: list[Finding], show: Show, backup: Callable[[], None] | None) -> int:
    remaining = 0
    if any(finding.mend for finding in findings) and backup:
        backup()
    for finding in findings:
        if finding.mend:
            show(f"  {finding.what}: {finding.mend()}")
        else:
            show(f"  {finding.what} (see yourself)")
            remaining += 1
    return remaining


def _backup(path: Path, show: Show) -> None:
    """A whole copy of the database, also while others read it."""
    copy = path.with_name(f"{path.stem}.backup-{datetime.now():%Y%m%d-%H%M%S-%f}{path.suffix}")
    with closing(sqlite3.connect(path, timeout=storage_file.TIMEOUT)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    show(f"backup: {copy}")


# --- checks ----------------------------------------------------------------------------------


def stale_trials(patient: Patient) -> Iterator[Finding]:
    """Trials that are RUNNING in the database while nobody runs the study."""
    for trial in patient.trials:
        if trial.state != TrialState.RUNNING:
            continue
        if LocalProcess.find({patient.run_dir(trial): "gpt.train"}):
            yield Finding(f"trial {trial.number} trains without a driver: run the study again")
            continue
        mend = partial(_wait, patient, trial)
        yield Finding(f"trial {trial.number} is RUNNING, but nobody trains it", mend)


def _wait(patient: Patient, trial: FrozenTrial) -> str:
    patient.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    return "it is WAITING; the next run continues it"


def lost_runs(patient: Patient) -> Iterator[Finding]:
    """Trials without their run directory, and run directories without a trial."""
    known = {str(trial.number) for trial in patient.trials}
    for trial in patient.trials:
        begun = trial_attrs(trial).n_params is not None
        if begun and not patient.run_dir(trial).is_dir():
            yield Finding(f"trial {trial.number} has no run directory {patient.run_dir(trial)}")
    for run_dir in sorted(patient.folder.glob("[0-9]*")):
        if run_dir.is_dir() and run_dir.name not in known:
            yield Finding(f"{run_dir} belongs to no trial", partial(_set_aside, run_dir, "unknown"))


def damaged_checkpoints(patient: Patient) -> Iterator[Finding]:
    """Checkpoints whose files are not those that were written."""
    for trial in patient.trials:
        for path, reason in checkpoint.damaged(patient.run_dir(trial)):
            mend = partial(_set_aside, path, "damaged")
            yield Finding(f"{path} is damaged: {reason}", mend)


def leftovers(patient: Patient) -> Iterator[Finding]:
    """Temporary files of processes that were killed while they wrote."""
    for pattern in ("*/.config.json.*", "*/checkpoints/.step-*", ".report.html.*"):
        for path in sorted(patient.folder.glob(pattern)):
            yield Finding(f"{path} was left half-written", partial(_remove, path))


def _set_aside(path: Path, word: str) -> str:
    place = path.with_name(f"{word}-{path.name}-{datetime.now():%Y%m%d-%H%M%S-%f}")
    path.rename(place)
    return f"moved to {place}"


def _remove(path: Path) -> str:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return "removed"


CHECKS = (stale_trials, lost_runs, damaged_checkpoints, leftovers)
