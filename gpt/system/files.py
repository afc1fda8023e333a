"""Files that are written completely or not at all, and the errors of a full disk."""

import errno
import glob
import hashlib
import os
import shutil
from pathlib import Path

from gpt.errors import StorageError

# No room, quota exceeded, longer than a file may be, read-only, broken.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write_text(path: Path, text: str) -> None:
    """Write or replace a file so that a kill or a power cut leaves the old text or the new.

    A link is replaced, not followed.

    Raises:
        OSError: it cannot be written, or is a device or a folder; nothing has changed then.
    """
    if not is_replaceable(path):  # root could replace /dev/null, and every program would suffer
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("x", encoding="utf-8") as file:  # x: never through a planted link
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_replaceable(path: Path) -> bool:
    """Return whether a path is free or a regular file, and not in /dev."""
    return path.absolute().parent != Path("/dev") and (path.is_file() or not path.exists())


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of processes that were killed while they wrote the same file."""
    import psutil  # late: it takes as long to import as the rest of --help

    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        writer = left.name.rpartition(".")[2]
        dead = writer.isdecimal() and not psutil.pid_exists(int(writer))
        if dead or writer == str(os.getpid()):
            left.unlink(missing_ok=True)


def is_disk_error(error: OSError) -> bool:
    """Return whether the disk is at fault, so that every other write would fail as well."""
    return error.errno in DISK_ERRORS


def disk_error(path: Path, reason: str | None) -> StorageError:
    """Make the StorageError for something below `path` that could not be written."""
    return StorageError(
        f"{path} must be writable, but: {reason or 'the disk did not take it'} "
        f"({free_space(path)} free there); make space and run the same command again."
    )


def free_space(path: Path) -> str:
    """Return the free space on the disk of a path, such as "12 GB"; the path need not exist."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    size = float(shutil.disk_usage(there).free)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
