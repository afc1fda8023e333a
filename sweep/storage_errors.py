"""What a database says when it fails, as one line with a way out and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt.disk import DISK_ERRORS, disk_error, free_space
from gpt.errors import BusyError, DataError, DiskError, InputError

_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def explained(error: BaseException, storage: str, path: Path | None) -> InputError | None:
    """The error that the user sees for one of SQLite's, wherever it was wrapped; None for others.

    Args:
        error: As SQLAlchemy, Optuna or sqlite3 raised it.
        storage: As the user gave it.
        path: The file, if it is SQLite's.
    """
    sqlite = _sqlite_error(error)
    if sqlite is None or path is None:
        return None
    name, reason = sqlite
    if name.startswith(_BUSY):
        return BusyError(
            f"storage {storage} must be free to write, but another process has held its lock for "
            f"too long; end that process and run the same command again."
        )
    if name.startswith(_DAMAGED):
        return unsound(path, reason)
    if name.startswith(_DISK):
        return DiskError(
            f"storage {storage} must be writable, but: {reason} ({free_space(path)} free in "
            f"{path.parent}); make space or give write access and run the same command again."
        )
    return None


def unsound(path: Path, reason: str) -> DataError:
    """What to say of a damaged database."""
    return DataError(
        f"storage {path} must be a sound database, but: {reason}; it was not touched. What can be "
        f'saved of it: sqlite3 {path} ".recover" | sqlite3 rescued.db'
    )


@contextmanager
def in_one_line(storage: str, path: Path | None, runs: Path) -> Iterator[None]:
    """Within it, a database or a disk that fails raises a DataError, DiskError or BusyError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise disk_error(Path(error.filename or runs), error.strerror) from error
        if (explanation := explained(error, storage, path)) is None:
            raise
        raise explanation from error


def _sqlite_error(error: BaseException) -> tuple[str, str] | None:
    """The name and the words of the SQLite error behind an exception."""
    seen: BaseException | None = error
    while seen is not None:
        for one in (seen, getattr(seen, "orig", None)):
            if name := getattr(one, "sqlite_errorname", None):
                return str(name), str(one)
        seen = seen.__cause__ or seen.__context__
    return None
