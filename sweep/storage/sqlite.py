"""Checks of a SQLite file before SQLite or Optuna could change it, and its errors in one line."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from gpt.errors import BusyError, DataError, InputError, SquenSweepError, StorageError
from gpt.system.files import DISK_ERRORS, disk_error, free_space

TIMEOUT = 60  # seconds to wait for another process's lock; SQLite's own 5 end in an error


def check(path: Path, create: bool) -> None:
    """Refuse what SQLite would silently create, or Optuna misread; writes nothing.

    Args:
        path: Of the database.
        create: Whether it may be missing, or without Optuna's tables.

    Raises:
        InputError: there is no such file, and it may not be missing.
        DataError: it is no database, damaged, or of another version of Optuna.
        StorageError: it or its folder cannot be used.
    """
    if not path.exists():
        if not create:
            raise InputError(
                f"storage {path} must exist, but there is no such file; "
                f"`squen-sweep run` makes it, --storage names another."
            )
        _make_folder(path)
        return
    check_header(path)
    _check_content(path, create)


def check_header(path: Path) -> None:
    """Refuse a file that is no SQLite database, whatever else is in it.

    SQLite reads the file, not we: whoever opens and closes a file drops all locks that its process
    has on it, those of its connections too. Another process that ends then believes that it was
    the last one and deletes the log, with all that is written to it afterwards
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    if path.is_dir():
        raise InputError(f"storage {path} must be a file, but it is a folder.")
    if not os.access(path, os.R_OK):
        raise StorageError(f"storage {path} must be readable, but Permission denied.")
    empty = path.stat().st_size == 0
    if empty or not _is_database(path):
        kind = "empty" if empty else "another kind of file"
        raise DataError(
            f"storage {path} must be a SQLite database, but it is {kind}; "
            f"it was not touched. Pass another --storage."
        )


def _is_database(path: Path) -> bool:
    """Return True if the file begins as a database does; works in a read-only folder too."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.Error as error:  # other faults are found by `check`
        return getattr(error, "sqlite_errorname", "") != "SQLITE_NOTADB"
    finally:
        connection.close()
    return True


def read_only(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write; in a read-only folder it fails when it is used."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=TIMEOUT)


def faults(connection: sqlite3.Connection, check: str = "quick_check") -> list[str]:
    """List the faults that SQLite finds in a database; empty: it is sound."""
    rows = [str(row[0]) for row in connection.execute(f"PRAGMA {check}(5)")]
    return [] if rows == ["ok"] else [row.replace("\n", " ") for row in rows]


def schema_fault(path: Path, version: str) -> str | None:
    """Explain tables of another version of Optuna, with the way out; None if they are of this."""
    from alembic.script import ScriptDirectory
    from optuna.storages import _rdb

    scripts = ScriptDirectory(str(Path(_rdb.__path__[0]) / "alembic"))
    if version == scripts.get_current_head():
        return None
    if version in {script.revision for script in scripts.walk_revisions()}:
        return (
            f"they are of an older Optuna ({version}); copy the file, then: "
            f"optuna storage upgrade --storage sqlite:///{path}"
        )
    return f"they are of a newer Optuna ({version}); then: pip install -U optuna"


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"storage {path} must be in a folder, but {error.strerror}: {error.filename}."
        ) from None


def _check_content(path: Path, create: bool) -> None:
    connection = read_only(path)
    try:
        wrong = faults(connection)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        rows = (
            connection.execute("SELECT version_num FROM alembic_version").fetchall()
            if "alembic_version" in tables
            else []
        )
    except sqlite3.Error as error:
        _raise_explained(error, path)
    finally:
        connection.close()
    if wrong:
        raise unsound(path, wrong[0])
    if rows and (fault := schema_fault(path, rows[0][0])):
        raise DataError(f"storage {path} must have the tables of this Optuna, but {fault}")
    if "studies" not in tables and not create:  # they would be put into somebody else's database
        raise DataError(f"storage {path} must hold studies, but it has none of their tables.")


def _raise_explained(error: sqlite3.Error, path: Path) -> NoReturn:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
        raise StorageError(
            f"storage {path} must be in a folder that can be written, since SQLite keeps its log "
            f"beside it, but: {error}; copy it to such a folder and pass that --storage."
        ) from None
    raise explained(error, str(path), path) or unsound(path, str(error)) from None


_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def explained(error: BaseException, storage: str, path: Path | None) -> SquenSweepError | None:
    """Return the error that the user sees for one of SQLite's, however wrapped; None for others.

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
