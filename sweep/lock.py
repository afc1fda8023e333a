"""One driver per study, and one study per folder of run directories.

The lock is one that the operating system drops when its process ends.
"""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout

from gpt.errors import InputError

MARKER = ".study"  # holds the identity of the study whose runs a folder has


@contextmanager
def only_driver(folder: Path, study: str) -> Iterator[None]:
    """Hold the study's lock; the first driver's pid and host are in a file beside it."""
    owner = folder / ".driver.json"
    lock = FileLock(folder / ".driver.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except OSError as error:
        if not isinstance(error, Timeout):
            raise InputError(f"runs must go to a folder, but {folder}: {error.strerror}.") from None
        first = _read_owner(owner)
        raise InputError(
            f"study {study!r} must have one driver, but process {first.get('pid')} on "
            f"{first.get('host')} runs it; wait for it, or stop it with Ctrl-C."
        ) from None
    try:
        owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def claim_runs(study: optuna.Study, folder: Path) -> None:
    """Bind a study and the folder of its run directories to each other.

    A study that went on in another folder, or a folder with the runs of another storage, would mix
    the figures of different trials.

    Raises:
        InputError: one of the two already belongs to another.
    """
    identity = study.user_attrs.get("identity")
    marker = folder / MARKER
    found = marker.read_text() if marker.exists() else None
    if found is None and any(path.is_dir() for path in folder.glob("[0-9]*")):
        found = "unknown"
    if identity is None and found is None:
        identity = found = uuid.uuid4().hex
        study.set_user_attr("identity", identity)
        marker.write_text(identity)
    if identity is not None and found is None:
        raise InputError(
            f"study {study.study_name!r} must go on where its runs are, but {folder} has none of "
            f"them; pass the --runs that it was started with."
        )
    if identity != found:
        raise InputError(
            f"{folder} must hold runs of this study, but they are of another storage or of a study "
            f"that was deleted; pass another --runs, or remove that folder."
        )


def _read_owner(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):  # it has just been started, or has just ended
        return {}
