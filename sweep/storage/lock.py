"""One tuner per study, and one study per folder of run directories.

The lock is one that the operating system drops when its process ends.
"""

import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from filelock import FileLock, Timeout

from gpt.errors import BusyError, InputError, StorageError
from gpt.system.files import atomic_write_text
from sweep.storage.location import MARKER, owner_of_runs, relative_to_database, runs_folder
from sweep.storage.schema import StudyAttrs, attrs_of_all, set_study_attrs, study_attrs, trial_attrs


@contextmanager
def only_tuner(
    folder: Path, study: str, patience: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the study's lock; the first tuner's pid and host are in a file beside it.

    A folder that was made for the lock alone is removed afterwards.

    Args:
        folder: Of the study's runs.
        study: Its name.
        patience: Called with whom we wait for; None: do not wait.

    Raises:
        BusyError: another tuner holds it.
        StorageError: the folder cannot be made or written.
    """
    owner = folder / ".driver.json"
    lock = FileLock(folder / ".driver.lock")
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, owner, study, patience)
    except OSError as error:
        raise StorageError(f"runs must go to a folder, but {folder}: {error.strerror}.") from None
    try:
        owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
        if new and [path.name for path in folder.iterdir()] == [".driver.lock"]:
            (folder / ".driver.lock").unlink()
            for path in new:
                with suppress(OSError):  # others put something there meanwhile
                    path.rmdir()


def _acquire(
    lock: FileLock, owner: Path, study: str, patience: Callable[[str], None] | None
) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        first = _read_owner(owner)
        who = f"process {first.get('pid')} on {first.get('host')} runs it"
        if patience is None:
            raise BusyError(
                f"study {study!r} must have one tuner, but {who}; wait for it with --wait, or "
                f"stop it with Ctrl-C."
            ) from None
        patience(f"waiting: {who}")
        lock.acquire()


def runs_of(study: optuna.Study | None, runs: Path, name: str) -> Path:
    """Find the folder that a study's run directories are in, or go to; writes nothing.

    It is runs/<name>, or for a study that was renamed, the folder in `runs` that it had before.

    Args:
        study: None: it is new.
        runs: The folder of all studies.
        name: Of the study.

    Raises:
        InputError: the study's runs are elsewhere, or other runs are there.
    """
    folder = runs / name
    attrs = StudyAttrs() if study is None else study_attrs(study)
    if study is not None and attrs.identity is not None:
        _refuse_copy(study, attrs.identity)
        before = runs / runs_folder(study).name
        for candidate in (folder, before):
            if owner_of_runs(candidate) == attrs.identity:
                return candidate
        if owner_of_runs(folder) is None:
            if all(trial_attrs(one).arm is None for one in study.get_trials(deepcopy=False)):
                return folder  # there are no runs: nothing to mix with, and nothing to look for
            raise InputError(
                f"study {name!r} must go on where its runs are, but {folder} has none of them; "
                f"pass the --runs that it was started with, bring the folder back, or start a new "
                f"study with --as NEW_NAME."
            )
    if (owner := owner_of_runs(folder)) is not None:
        raise InputError(
            f"{folder} must hold runs of this study, but they are of another storage or of a study "
            f"that was renamed or deleted ({owner[:8]}); pass another --runs, or --as with the "
            f"name that the study has now."
        )
    return folder


def claim_runs(study: optuna.Study, folder: Path) -> None:
    """Bind a study and the folder of its run directories to each other.

    A study that went on in another folder, or a folder with the runs of another storage, would mix
    the figures of different trials. The study is bound first: where a kill or a full disk comes
    between the two, the next call finds a folder without an owner, and binds it.
    """
    attrs = study_attrs(study)
    identity = attrs.identity or uuid.uuid4().hex
    if attrs.identity is None:
        set_study_attrs(study, identity=identity)
    if owner_of_runs(folder) is None:
        atomic_write_text(folder / MARKER, identity)
    if attrs.runs != (runs := relative_to_database(study, folder)):
        set_study_attrs(study, runs=runs)


def _refuse_copy(study: optuna.Study, identity: str) -> None:
    """Refuse to continue what `optuna.copy_study` made in the same storage: it has no runs."""
    for name, (study_id, attrs) in attrs_of_all(study._storage).items():
        if attrs.identity == identity and study_id < study._study_id:
            raise InputError(
                f"study {study.study_name!r} must have runs of its own to go on, but it is a copy "
                f"of {name!r}; continue that one, or start a new study with --as."
            )


def _read_owner(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):  # it has just been started, or has just ended
        return {}
