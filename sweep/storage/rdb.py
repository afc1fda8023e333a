"""Open or resume a study in its database; add evaluations to it.

Optuna's own tables hold studies and trials, so that its CLI and its dashboard read the file as it
is; sweep.storage.schema says what is there besides. The tuner is the only writer.
"""

import os
import re
import shlex
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from sqlalchemy.dialects import postgresql, sqlite

from gpt.config import DataConfig
from gpt.errors import InputError
from gpt.events import Evaluation
from gpt.system.signals import noted
from sweep.storage import sqlite as storage_file
from sweep.storage.schema import (
    evaluations,
    metadata,
    optuna_studies,
    optuna_trials,
    set_study_attrs,
    study_attrs,
    trial_attrs,
)
from sweep.storage.sqlite import explained
from sweep.study.paths import read_path
from sweep.study.spec import StudySpec
from sweep.study.suggest import nearest
from sweep.study.toml_file import shipped_files

MARKER = ".study"  # file in the folder of a study's runs: holds its identity

_opened: list[RDBStorage] = []  # by this process, to be closed at its end


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


def open_storage(storage: str, *, create: bool = False) -> RDBStorage:
    """Open the Optuna storage at a URL or path, with write-ahead logging and patience for locks.

    Args:
        storage: For example sqlite:///runs/sweep.db, runs/sweep.db or postgresql://...
        create: Make the database and its tables when they are missing.

    Raises:
        InputError: there is no database and `create` is false, or it cannot be used; a DataError
            or a StorageError where the file or the disk is at fault.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its INFO repeats what we show
    url = storage_url(storage)
    path = sqlite_path(url)
    options = {"connect_args": {"timeout": storage_file.TIMEOUT}} if path else {}
    with _signals_put_off():
        if path:
            storage_file.check(path, create)
        try:
            opened = RDBStorage(url, engine_kwargs=options)
            _opened.append(opened)
            _upgrade(opened.engine)
            if create:
                set_up(opened)
        except (sa.exc.SQLAlchemyError, RuntimeError, ImportError, ValueError) as error:
            if explanation := explained(error, storage, path):
                raise explanation from None
            raise _unusable(storage, error) from None
    return opened


@contextmanager
def _signals_put_off() -> Iterator[None]:
    """Let a signal end the process after the block: what is being opened can then be closed."""
    received: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # no other receives signals
    with noted(received) if main else nullcontext():
        yield
    for number in received:
        signal.raise_signal(number)


def _unusable(storage: str, error: Exception) -> InputError:
    reason = str(getattr(error, "orig", None) or error).splitlines()[0].rstrip(".")
    return InputError(f"storage {storage} must be a database to use, but {reason}.")


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for other databases."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise InputError(
            f"storage must be a path or a URL like sqlite:///runs/sweep.db, but got {url!r}."
        ) from None
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or ":memory:" in parsed.database:  # trials would end with the command
        raise InputError(
            f"storage must be a file that stays, such as runs/sweep.db, but got {url!r}, "
            f"which is only in memory."
        )
    is_uri = "uri" in parsed.query  # sqlite:///file:runs/sweep.db?mode=ro&uri=true
    return Path(parsed.database.removeprefix("file:") if is_uri else parsed.database)


def check_storage(storage: str) -> None:
    """Refuse a file that is no SQLite database, and a kind of database that cannot be used here.

    Writes nothing and connects to nothing.
    """
    path = sqlite_path(storage_url(storage))
    if path and path.exists():
        storage_file.check_header(path)
    try:
        sa.create_engine(storage_url(storage)).dispose()
    except (sa.exc.SQLAlchemyError, ImportError, ValueError) as error:  # of an odd URL
        raise _unusable(storage, error) from None


def set_up(storage: RDBStorage) -> None:
    """Make our table, and for SQLite a write-ahead log: then readers and the writer never wait.

    Rows of trials that are no more are removed: SQLite gives their ids to new trials.
    """
    engine = storage.engine
    metadata.create_all(engine)
    with engine.begin() as connection:  # fails where nothing can be written
        gone = evaluations.c.trial_id.not_in(sa.select(optuna_trials.c.trial_id))
        connection.execute(evaluations.delete().where(gone))
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.execute(sa.text("PRAGMA journal_mode=WAL"))


def fold_log(storage: RDBStorage) -> None:
    """Fold SQLite's write-ahead log into the database, so that one file holds everything."""
    storage.remove_session()
    if storage.engine.dialect.name == "sqlite":
        with suppress(sa.exc.SQLAlchemyError), storage.engine.connect() as connection:
            connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))


def close_all() -> None:
    """Close every storage that this process has opened; SQLite then folds its log in, too."""
    while _opened:
        storage = _opened.pop()
        storage.remove_session()
        storage.engine.dispose()


def create_study(
    storage: RDBStorage, spec: StudySpec, data: dict[str, Any], device: str
) -> optuna.Study:
    """Create the study of `spec`, or take over an empty one that another program created.

    Args:
        storage: Opened with create=True.
        spec: The study, settled for one device.
        data: Facts of the text; "fingerprint" pins the study to its text and tokenizer.
        device: "cpu" or "cuda"; trials of one study train on one kind.
    """
    study = optuna.create_study(
        storage=storage, study_name=spec.name, direction="minimize", load_if_exists=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([f"validation {spec.metric.replace('_', ' ')}"])  # a label
    if data.get("kind") == "files":
        path = Path(data["name"])
        data = data | {"name": path.name, "source": relative_to_database(study, path)}
    set_study_attrs(
        study,
        data=data,
        device=device,
        spec_digest=spec.digest,
        spec=spec.model_dump(mode="json"),
    )
    return study


def check_study(study: optuna.Study, spec: StudySpec, data: dict[str, Any], device: str) -> None:
    """Raise InputError unless a stored study can go on as `spec` on this text; writes nothing.

    Args:
        study: As it is stored.
        spec: The study file, settled for one device.
        data: Facts of the text that was found.
        device: "cpu" or "cuda".

    Raises:
        InputError: the study was made by another program, from another spec, from other text, or
            on another device.
    """
    if study_attrs(study).spec is not None:
        _refuse_other_spec(study, spec)
        _refuse_other_data(study, data)
        _refuse_other_device(study, device)
    else:
        _refuse_study_of_others(study)


def database_exists(storage: str) -> bool:
    """Return True if there is a database with studies; make neither it nor its tables."""
    url = storage_url(storage)
    path = sqlite_path(url)
    if path and not path.exists():
        return False
    engine = sa.create_engine(url)
    try:
        return sa.inspect(engine).has_table("studies")
    except sa.exc.SQLAlchemyError:
        return False  # whoever opens it to write says what is wrong
    finally:
        engine.dispose()


def find_study(storage: RDBStorage, name: str) -> optuna.Study | None:
    """Load a study; None if there is none of that name."""
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)


def load_study(storage: RDBStorage, name: str) -> optuna.Study:
    """Load a study that must be there.

    Raises:
        InputError: the storage holds no such study; the message lists those it holds.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = sorted(optuna.get_all_study_names(storage))
        near = nearest(name, known)
        starts = f"; `squen-sweep run --study {name}` starts it" if name in shipped_files() else ""
        raise InputError(
            f"study {name!r} must be in the storage, but it holds "
            f"{', '.join(known) if known else 'no study yet'}{near or starts}."
        ) from None


def record_evaluation(storage: RDBStorage, trial_id: int, evaluation: Evaluation) -> None:
    """Add one row to the evaluations table; a step that is there already stays as it is."""
    with storage.engine.begin() as connection:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(evaluations).on_conflict_do_nothing()
        connection.execute(insert, {"trial_id": trial_id, **asdict(evaluation)})


def database_folder(storage: BaseStorage) -> Path:
    """Return the folder that stored paths are relative to: a SQLite file's, else the current."""
    path = sqlite_path(storage.url) if isinstance(storage, RDBStorage) else None
    return Path() if path is None else path.parent


def set_runs_folder(study: optuna.Study, folder: Path) -> None:
    """Store the folder of a study's run directories, relative to the database."""
    set_study_attrs(study, runs=relative_to_database(study, folder))


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


def owner_of_runs(folder: Path) -> str | None:
    """Return the identity of the study whose runs a folder has; None where there are none."""
    marker = folder / MARKER
    if marker.exists():
        return marker.read_text()
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
    storage = study._storage
    return storage._backend if isinstance(storage, _CachedStorage) else storage


def _upgrade(engine: sa.Engine) -> None:
    """Key evaluations by trial id, where an earlier version used study name and trial number."""
    inspector = sa.inspect(engine)
    if not inspector.has_table(evaluations.name):
        return
    columns = [column["name"] for column in inspector.get_columns(evaluations.name)]
    if "study_name" not in columns:
        return
    old = sa.table("evaluations_by_name", *(sa.column(name) for name in columns))
    copied = [column.name for column in evaluations.columns if column.name in columns]
    rows = (
        sa.select(optuna_trials.c.trial_id, *(old.c[name] for name in copied))
        .join(optuna_studies, optuna_studies.c.study_name == old.c.study_name)
        .join(
            optuna_trials,
            sa.and_(
                optuna_trials.c.study_id == optuna_studies.c.study_id,
                optuna_trials.c.number == old.c.trial_number,
            ),
        )
    )
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE evaluations RENAME TO evaluations_by_name"))
        metadata.create_all(connection)
        connection.execute(evaluations.insert().from_select(["trial_id", *copied], rows))
        connection.execute(sa.text("DROP TABLE evaluations_by_name"))


def _refuse_study_of_others(study: optuna.Study) -> None:
    """Refuse trials without a spec: they are another program's and cannot be continued."""
    if study.get_trials(deepcopy=False):
        raise InputError(
            f"study {study.study_name!r} must be one of squen-sweep, but it has trials of another "
            f"program; rename the study, or pass another --storage."
        )


def _refuse_other_spec(study: optuna.Study, spec: StudySpec) -> None:
    attrs = study_attrs(study)
    if attrs.spec_digest == spec.digest:
        return
    differing = spec.differences(attrs.spec or {})
    if not differing:  # written in another way, or its digest was made in another way
        return
    raise InputError(
        f"study {spec.name!r} was made from another spec ({', '.join(differing)} differs); "
        f"start a new study with --as NEW_NAME, or pass another --storage and --runs."
    )


def _refuse_other_data(study: optuna.Study, data: dict[str, Any]) -> None:
    stored = study_attrs(study).data or {}
    if stored["fingerprint"] == data["fingerprint"]:
        return
    source = data_source(study)
    files = stored["kind"] == "files"
    changed = stored["kind"] == data["kind"] and (
        not files or Path(source).resolve() == Path(data["name"]).resolve()
    )
    way = "bring that text back" if changed else f"pass --data {shlex.quote(source)}"
    raise InputError(
        f"study {study.study_name!r} is pinned to its text, {stored['name']} "
        f"({stored['fingerprint'][:8]}), but now it is {data['name']} ({data['fingerprint'][:8]}); "
        f"{way}, or start a new study with --as NEW_NAME."
    )


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


def stored_text(study: optuna.Study, spec: StudySpec) -> DataConfig:
    """Return the text of a study as it lies now, pinned: other text is refused when prepared.

    Args:
        study: As it is stored.
        spec: Its stored file.
    """
    data, source = study_attrs(study).data or {}, data_source(study)
    if data["kind"] == "files":
        source = str(Path(source).resolve())
    changes = {"fingerprint": data["fingerprint"], **data.get("options", {})}
    if spec.data.tokenizer == "bpe":  # a text of few words may hold fewer than were asked for
        changes["bpe_vocab_size"] = data["vocab_size"]
    return spec.data.with_source(source).model_copy(update=changes)


def _refuse_other_device(study: optuna.Study, device: str) -> None:
    stored = study_attrs(study).device
    if stored != device:
        raise InputError(
            f"study {study.study_name!r} must go on where it was started, on {stored}, but got "
            f"{device}; pass --device {stored}, or start a new study with --as NEW_NAME."
        )
