"""Errors of databases and disks as the one line that a user sees, with the way out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gpt.errors import BusyError, DataError, NetworkError, SquenSweepError, StorageError
from gpt.system.files import DISK_ERRORS, disk_error, free_space

if TYPE_CHECKING:  # commands that only read a SQLite file do without it
    import sqlalchemy as sa

CONNECT_SECONDS = 10  # until a server that does not answer counts as away
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
# SQLSTATEs of PostgreSQL (its manual, appendix A) that go away: it shuts down or starts, has no
# connection left, lost one, or ended one of two transactions that waited for each other.
_COMES_BACK = ("57P01", "57P02", "57P03", "53300", "08", "40001", "40P01")
_SERVER_DISK = ("53100", "58030")


def explained(error: BaseException, storage: str, path: Path | None) -> SquenSweepError | None:
    """Return the error that the user sees for a database's, however wrapped; None for others.

    Args:
        error: As SQLAlchemy, Optuna or sqlite3 raised it.
        storage: As the user gave it.
        path: SQLite's file; None: it is a server.
    """
    if path is None:
        return _explained_of_server(error, storage)
    if (sqlite := _sqlite_error(error)) is None:
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
        return StorageError(
            f"storage {storage} must be writable, but: {reason} ({free_space(path)} free in "
            f"{path.parent}); make space or give write access and run the same command again."
        )
    return None


def unsound(path: Path, reason: str) -> DataError:
    """Return the error for a damaged database, with the way to rescue what can be read."""
    return DataError(
        f"storage {path} must be a sound database, but: {reason}; it was not touched. What can be "
        f'saved of it: sqlite3 {path} ".recover" | sqlite3 rescued.db'
    )


@contextmanager
def in_one_line(storage: str, path: Path | None, runs: Path) -> Iterator[None]:
    """Raise a DataError, StorageError or BusyError when a database or a disk fails in the block."""
    try:
        yield
    except SquenSweepError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise disk_error(Path(error.filename or runs), error.strerror) from error
        if (explanation := explained(error, storage, path)) is None:
            raise
        raise explanation from error


def _sqlite_error(error: BaseException) -> tuple[str, str] | None:
    """Return name and text of the SQLite error behind an exception."""
    seen: BaseException | None = error
    while seen is not None:
        for one in (seen, getattr(seen, "orig", None)):
            if name := getattr(one, "sqlite_errorname", None):
                return str(name), str(one)
        seen = seen.__cause__ or seen.__context__
    return None


def comes_back(error: BaseException) -> bool:
    """Return True if a server's error goes away by itself: it restarts, hangs, or is full."""
    import sqlalchemy as sa

    cause = _database_error(error)
    if cause is None:
        return isinstance(_root(error), sa.exc.TimeoutError)  # all connections of the pool are busy
    state = getattr(cause.orig, "sqlstate", None)
    if state is None:  # from the client's library: no connection, or a lost one
        return isinstance(cause, sa.exc.OperationalError | sa.exc.InterfaceError)
    return bool(state.startswith(_COMES_BACK))


def is_starting(error: BaseException) -> bool:
    """Return True if a server is there, but starts or has no connection left."""
    cause = _database_error(error)
    words = str(getattr(cause, "orig", ""))  # a failed connection has no SQLSTATE in psycopg
    return "starting up" in words or "too many clients" in words or "shutting down" in words


def _explained_of_server(error: BaseException, storage: str) -> SquenSweepError | None:
    """Return the error that the user sees for a server's, however wrapped; None for others."""
    cause = _database_error(error)
    if cause is None:
        return None
    state = str(getattr(cause.orig, "sqlstate", None) or "")
    if state.startswith(_SERVER_DISK):
        return StorageError(
            f"storage {storage} must be writable, but {reason(error)}; make space there and run "
            f"the same command again."
        )
    refused = "FATAL" in str(cause.orig) and not is_starting(error)  # no such user, a password
    if refused or not comes_back(error):
        return None
    if not state and not is_starting(error):
        return NetworkError(
            f"storage {storage} must answer within {CONNECT_SECONDS} s, but {reason(error)}."
        )
    return BusyError(
        f"storage {storage} must answer, but {reason(error)}; run the same command again."
    )


def reason(error: BaseException) -> str:
    """Return the database's own words, in one line."""
    cause = _database_error(error)
    words = str(getattr(cause, "orig", None) or _root(error)).strip().splitlines()
    return words[0].strip().rstrip(".") if words else type(error).__name__


def _database_error(error: BaseException) -> "sa.exc.DBAPIError | None":
    import sqlalchemy as sa

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, sa.exc.DBAPIError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)
