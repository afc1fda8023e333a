"""Checks of a SQLite file before SQLite or Optuna could change it."""

import os
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from gpt.errors import DataError, InputError, StorageError
from sweep.storage.errors import explained, unsound

TIMEOUT = 60  # seconds to wait for another process's lock; SQLite's own 5 end in an error


def check(path: Path, create: bool, readable: Collection[str] = ()) -> str | None:
    """Refuse what SQLite would silently create, or Optuna misread; writes nothing.

    Args:
        path: Of the database.
        create: Whether it may be missing, or without Optuna's tables.
        readable: Revisions of Optuna's tables that are right, whatever Optuna is installed.

    Returns:
        The revision of Optuna's tables; None where there are none, or of an ancient Optuna.

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
        return None
    check_header(path)
    return _check_content(path, create, readable)


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
    """Open a connection that changes no row; in a read-only folder it fails when it is used.

    One of mode=ro that is the last to close leaves the log that it has made beside the database,
    one of mode=rw folds it in. A log that is there already may be all that is left of a damaged
    database, and stays.
    """
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "rw"
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=TIMEOUT)
    connection.execute("PRAGMA query_only = on")
    return connection


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


def _check_content(path: Path, create: bool, readable: Collection[str]) -> str | None:
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
    revision = str(rows[0][0]) if rows else None
    if revision and revision not in readable and (fault := schema_fault(path, revision)):
        raise DataError(f"storage {path} must have the tables of this Optuna, but {fault}")
    if "studies" not in tables and not create:  # they would be put into somebody else's database
        raise DataError(f"storage {path} must hold studies, but it has none of their tables.")
    return revision


def _raise_explained(error: sqlite3.Error, path: Path) -> NoReturn:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
        raise StorageError(
            f"storage {path} must be in a folder that can be written, since SQLite keeps its log "
            f"beside it, but: {error}; copy it to such a folder and pass that --storage."
        ) from None
    raise explained(error, str(path), path) or unsound(path, str(error)) from None
