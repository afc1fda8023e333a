"""Where a storage and the run directories of its studies are. Light: imports no SQLAlchemy.

No stored path is absolute, so a project that was moved or copied is read where it lies.
"""

import os
import re
import shlex
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage

from gpt.errors import InputError
from sweep.storage.schema import study_attrs, trial_attrs
from sweep.storage.snapshot import Snapshot
from sweep.study.paths import read_path

MARKER = ".study"  # file in the folder of a study's runs: holds its identity
_PLAIN = re.compile(r"[\w./~-][\w./~ -]*")  # a path that cannot be a URL


def storage_path(storage: str) -> Path | None:
    """Return the SQLite file that --storage names; None for another database.

    Raises:
        InputError: see `storage_url` and `sqlite_path`.
    """
    if _PLAIN.fullmatch(storage):  # without SQLAlchemy, whose import takes longer than all else
        return Path(_from_home(storage))
    return sqlite_path(storage_url(storage))


def storage_url(storage: str) -> str:
    """Return a SQLAlchemy URL as it is, or the URL of the SQLite file at a path; ~ is home.

    Raises:
        InputError: a URL of SQLite has too few slashes, or ~ is the home of an unknown user.
    """
    scheme, _, rest = storage.partition(":")
    if re.fullmatch(r"sqlite(\+\w+)?", scheme) and rest.strip("/") and not rest.startswith("///"):
        path = rest.removeprefix("//")
        raise InputError(
            f"storage must be a path or a URL with three slashes, but got {storage!r}; "
            f"pass {path} or sqlite:///{path}."
        )
    if "://" not in storage:
        quoted = storage.replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{_from_home(quoted)}"
    start, slashes, path = storage.partition(":///")
    return start + slashes + _from_home(path)


def _from_home(path: str) -> str:
    return str(read_path(path, "storage")) if path.startswith("~") else path


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for a PostgreSQL server."""
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise InputError(
            f"storage must be a path or a URL like sqlite:///runs/sweep.db, but got {url!r}."
        ) from None
    if parsed.get_backend_name() == "postgresql":
        return None
    if parsed.get_backend_name() != "sqlite":
        raise InputError(f"storage must be a SQLite file or a PostgreSQL server, but got {url!r}.")
    if not parsed.database or ":memory:" in parsed.database:  # trials would end with the command
        raise InputError(
            f"storage must be a file that stays, such as runs/sweep.db, but got {url!r}, "
            f"which is only in memory."
        )
    is_uri = "uri" in parsed.query  # sqlite:///file:runs/sweep.db?mode=ro&uri=true
    return Path(parsed.database.removeprefix("file:") if is_uri else parsed.database)


def database_folder(storage: BaseStorage) -> Path:
    """Return the folder that stored paths are relative to: a SQLite file's, else the current."""
    if isinstance(storage, Snapshot):
        return storage.path.parent
    path = sqlite_path(storage.url) if isinstance(storage, RDBStorage) else None
    return Path() if path is None else path.parent


def relative_to_database(study: optuna.Study, path: Path) -> str:
    """Return a path that stays right when it and the database are moved together."""
    start = database_folder(_storage_of(study)).resolve()
    return Path(os.path.relpath(path.resolve(), start)).as_posix()


def runs_folder(study: optuna.Study) -> Path:
    """Return the folder with a run directory for each trial of a study, as seen from here."""
    folder, attrs = database_folder(_storage_of(study)), study_attrs(study)
    if attrs.runs is not None:
        return Path(os.path.normpath(folder / attrs.runs))
    for trial in study.get_trials(deepcopy=False):  # of a database before there was that attribute
        if legacy := trial_attrs(trial).run_dir:
            candidates = _moved(folder, Path(legacy).parent)
            mine = (path for path in candidates if owner_of_runs(path) == attrs.identity)
            return next(mine, folder / study.study_name)
    return folder / study.study_name


def from_database(study: optuna.Study, path: str) -> str:
    """Return a path that is stored with a study as it is now from here."""
    return os.path.normpath(database_folder(_storage_of(study)) / path)


def owner_of_runs(folder: Path) -> str | None:
    """Return the identity of the study whose runs a folder has; None where there are none."""
    marker = folder / MARKER
    if marker.exists() and (owner := marker.read_text()):  # an empty one is of a full disk
        return owner
    return "unknown" if any(path.is_dir() for path in folder.glob("[0-9]*")) else None


def _moved(folder: Path, path: Path) -> list[Path]:
    """List where a path that an earlier version stored may be now, the likeliest first.

    Args:
        folder: The database's.
        path: Absolute, or relative to the folder that was current then.
    """
    tails = [Path(*path.parts[i:]) for i in range(int(path.is_absolute()), len(path.parts))]
    return [*(base / tail for base in (folder, folder.parent) for tail in tails), path]


def _storage_of(study: optuna.Study) -> BaseStorage:
    storage: BaseStorage = getattr(study._storage, "_backend", study._storage)  # behind its cache
    return storage


def data_source(study: optuna.Study) -> str:
    """Return the --data that finds a study's text again from the current folder."""
    data = study_attrs(study).data or {}
    if data["kind"] != "files":
        return str(data.get("source", data["kind"]))
    folder = database_folder(_storage_of(study))
    if "source" not in data:  # of a database before there was that fact
        name = Path(str(data["name"]))
        return str(next((path for path in _moved(folder, name) if path.exists()), name))
    return os.path.relpath(folder / str(data["source"]))


def data_options(study: optuna.Study) -> str:
    """Return the options by which `squen-sweep run` finds a study's text again from here."""
    found_by = (study_attrs(study).data or {}).get("options", {})
    column = [f"--column {shlex.quote(found_by['column'])}"] if found_by.get("column") else []
    return " ".join([f"--data {shlex.quote(data_source(study))}", *column])
