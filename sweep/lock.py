"""One driver per study: a lock that the operating system drops when its process ends."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gpt.errors import InputError


@contextmanager
def only_driver(folder: Path, study: str) -> Iterator[None]:
    """Hold the study's lock; the first driver's pid and host are in a file beside it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"runs must go to a folder, but {folder}: {error.strerror}.") from None
    owner = folder / ".driver.json"
    lock = FileLock(folder / ".driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        first = json.loads(owner.read_text()) if owner.exists() else {}
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
