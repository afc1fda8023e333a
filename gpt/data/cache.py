"""Folder of prepared tokens: where it is, and how several processes fill it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gpt.system.files import sync


def cache_folder() -> Path:
    """Folder of prepared tokens: $SQUEN_SWEEP_CACHE or ~/.cache/squen-sweep."""
    chosen = os.environ.get("SQUEN_SWEEP_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "squen-sweep"


def tokens_folder(fingerprint: str) -> Path:
    """Folder of the tokens with a fingerprint."""
    return cache_folder() / "tokens" / fingerprint


@contextmanager
def lock(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold a file lock; the operating system frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path)
    try:
        held.acquire(timeout=1)
    except Timeout:
        progress("waiting for another process that prepares the same text")
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def complete_or_absent(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` if the block succeeds and is removed if not.

    The caller holds the folder's lock: leftovers of a killed process are removed.
    """
    temporary = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
