"""One driver per study, and one study per folder of run directories.

The lock is one that the operating system drops when its process ends.
"""

import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout

from gpt.errors import BusyError, InputError, StorageError

MARKER = ".study"  # holds the identity of the study whose runs a folder has


@contextmanager
def only_driver(
    folder: Path, study: str, patience: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the study's lock; the first driver's pid and host are in a file beside it.

    Args:
        folder: Of the study's runs.
        study: Its name.
        patience: Told whom we wait for; None: do not wait.

    Raises:
        BusyError: another driver holds it.
    """
    owner = folder / ".driver.json"
    lock = FileLock(folder / ".driver.lock")
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
                f"study {study!r} must have one driver, but {who}; wait for it with --wait, or "
                f"stop it with Ctrl-C."
            ) from None
        patience(f"waiting: {who}")
        lock.acquire()


def claim_runs(study: optuna.Study, folder: Path) -> None:
    """Bind a study and the folder of its run directories to each other.

    A study that went on in another folder, or a folder with the runs of another storage, would mix
    the figures of different trials.

    Raises:
        InputError: one of the two already belongs to another.
    """
    check_runs(study, folder)
    if "identity" not in study.user_attrs:
        identity = uuid.uuid4().hex
        study.set_user_attr("identity", identity)
        (folder / MARKER).write_text(identity)


def check_runs(study: optuna.Study | None, folder: Path) -> None:
    """As `claim_runs`, for a study that may not be there yet (None); writes nothing."""
    identity = study.user_attrs.get("identity") if study else None
    found = _owner_of_runs(folder)
    if study and identity is not None and found is None:
        raise InputError(
            f"study {study.study_name!r} must go on where its runs are, but {folder} has none of "
            f"them; pass the --runs that it was started with."
        )
    if identity != found:
        raise InputError(
            f"{folder} must hold runs of this study, but they are of another storage or of a study "
            f"that was deleted; pass another --runs, or remove that folder."
        )


def _owner_of_runs(folder: Path) -> str | None:
    """The identity of the study whose runs a folder has; None where there are none."""
    marker = folder / MARKER
    if marker.exists():
        return marker.read_text()
    return "unknown" if any(path.is_dir() for path in folder.glob("[0-9]*")) else None


def _read_owner(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):  # it has just been started, or has just ended
        return {}
