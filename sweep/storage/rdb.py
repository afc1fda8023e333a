"""Open or resume a study in its database; the evaluations table. Knows nothing of training.

Optuna's own tables hold studies and trials, so that its CLI and its dashboard read the file as it
is. One more table, `evaluations`, holds every Evaluation that a trial reported. The driver is the
only writer.
"""

import re
import shlex
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from sqlalchemy.dialects import sqlite

from gpt.errors import InputError
from gpt.events import Evaluation
from sweep.storage import sqlite as storage_file
from sweep.storage.sqlite import explained
from sweep.study.paths import read_path
from sweep.study.spec import StudySpec
from sweep.study.suggest import nearest
from sweep.study.toml_file import shipped_files

_COLUMN_TYPES: dict[object, sa.types.TypeEngine[Any]] = {
    int: sa.BigInteger(),
    float: sa.Float(53),
    float | None: sa.Float(53),
}

metadata = sa.MetaData()
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("study_name", sa.String(512), primary_key=True),
    sa.Column("trial_number", sa.Integer, primary_key=True),
    *(
        sa.Column(field.name, _COLUMN_TYPES[field.type], primary_key=field.name == "step")
        for field in fields(Evaluation)
    ),
)


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
    """The Optuna storage at a URL or path, with write-ahead logging and patience for locks.

    Args:
        storage: For example sqlite:///runs/sweep.db, runs/sweep.db or postgresql://...
        create: Make the database and its tables when they are missing.

    Raises:
        InputError: there is no database and `create` is false, or it cannot be used; a DataError
            or a DiskError where the file or the disk is at fault.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its INFO repeats what we show
    url = storage_url(storage)
    path = sqlite_path(url)
    if path:
        storage_file.check(path, create)
    options = {"connect_args": {"timeout": storage_file.TIMEOUT}} if path else {}
    try:
        opened = RDBStorage(url, engine_kwargs=options)
        if create:
            _set_up(opened.engine, wal=path is not None)
    except (sa.exc.SQLAlchemyError, RuntimeError, ImportError, ValueError) as error:
        if explanation := explained(error, storage, path):
            raise explanation from None
        raise _unusable(storage, error) from None
    return opened


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


def _set_up(engine: sa.Engine, wal: bool) -> None:
    """Our table, and for SQLite write-ahead logging: readers never block the sweep, nor it them."""
    metadata.create_all(engine)
    with engine.begin() as connection:  # deletes nothing, but fails where nothing can be written
        connection.execute(evaluations.delete().where(sa.false()))
    if wal:
        with engine.connect() as connection:
            connection.execute(sa.text("PRAGMA journal_mode=WAL"))


def open_study(
    storage: RDBStorage, spec: StudySpec, data: dict[str, Any], device: str
) -> optuna.Study:
    """Create the study of `spec`, or resume it if it was made from the same spec and the same text.

    Args:
        storage: Opened with create=True.
        spec: What the study file declares, for one device.
        data: Facts of the prepared data; "fingerprint" pins the study to its text and tokenizer.
        device: "cpu" or "cuda"; trials of one study train on one kind.

    Raises:
        InputError: the stored study was made by another program, from another spec, from other
            text, or on another device.
    """
    stored = _study_in(storage, spec.name)
    if stored is not None:
        check_study(stored, spec, data, device)
        if "spec" in stored.user_attrs:
            return stored
    study = optuna.create_study(
        storage=storage, study_name=spec.name, direction="minimize", load_if_exists=True
    )
    _forget_evaluations(storage, spec.name)  # of a study of this name that was deleted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([f"validation {spec.metric.replace('_', ' ')}"])  # a label
    study.set_user_attr("data", data)
    study.set_user_attr("device", device)
    study.set_user_attr("spec_digest", spec.digest)
    study.set_user_attr("spec", spec.model_dump(mode="json"))
    return study


def check_study(study: optuna.Study, spec: StudySpec, data: dict[str, Any], device: str) -> None:
    """Raise InputError unless `open_study` could resume a stored study; writes nothing."""
    if "spec" in study.user_attrs:
        _refuse_other_spec(study, spec)
        _refuse_other_data(study, data)
        _refuse_other_device(study, device)
    else:
        _refuse_study_of_others(study)


def find_study(storage: str, name: str) -> optuna.Study | None:
    """A study that may be there; makes neither the database nor its tables."""
    url = storage_url(storage)
    path = sqlite_path(url)
    if path and not path.exists():
        return None
    engine = sa.create_engine(url)
    try:
        if not sa.inspect(engine).has_table("studies"):
            return None
    except sa.exc.SQLAlchemyError:
        return None  # whoever opens it to write says what is wrong
    finally:
        engine.dispose()
    return _study_in(open_storage(storage), name)


def _study_in(storage: RDBStorage, name: str) -> optuna.Study | None:
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)


def load_study(storage: RDBStorage, name: str) -> optuna.Study:
    """A study to read.

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


def record_evaluation(
    storage: RDBStorage, study_name: str, trial_number: int, evaluation: Evaluation
) -> None:
    """Add one row to the evaluations table; a step that is there already stays as it is."""
    row = {"study_name": study_name, "trial_number": trial_number, **asdict(evaluation)}
    key = evaluations.primary_key.columns
    with storage.engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(sqlite.insert(evaluations).on_conflict_do_nothing(), row)
            return
        known = sa.select(evaluations.c.step).where(*(column == row[column.name] for column in key))
        if connection.execute(known).first() is None:
            connection.execute(evaluations.insert(), row)


def _refuse_study_of_others(study: optuna.Study) -> None:
    """Trials without a spec are somebody else's: they would count, and cannot be continued."""
    if study.get_trials(deepcopy=False):
        raise InputError(
            f"study {study.study_name!r} must be one of squen-sweep, but it has trials of another "
            f"program; rename the study, or pass another --storage."
        )


def _refuse_other_spec(study: optuna.Study, spec: StudySpec) -> None:
    if study.user_attrs.get("spec_digest") == spec.digest:
        return
    differing = spec.differences(study.user_attrs["spec"])
    if not differing:  # written in another way, or its digest was made in another way
        return
    raise InputError(
        f"study {spec.name!r} was made from another spec ({', '.join(differing)} differs); "
        f"start a new study with --as NEW_NAME, or pass another --storage and --runs."
    )


def _refuse_other_data(study: optuna.Study, data: dict[str, Any]) -> None:
    stored = study.user_attrs["data"]
    if stored["fingerprint"] == data["fingerprint"]:
        return
    changed = stored["name"] == data["name"]
    way = "bring that text back" if changed else f"pass --data {_source_of(stored)}"
    raise InputError(
        f"study {study.study_name!r} is pinned to its text, {stored['name']} "
        f"({stored['fingerprint'][:8]}), but now it is {data['name']} ({data['fingerprint'][:8]}); "
        f"{way}, or start a new study with --as NEW_NAME."
    )


def _source_of(data: dict[str, Any]) -> str:
    """The --data that finds a study's text again."""
    source = data["name"] if data["kind"] == "files" else data["kind"]
    return shlex.quote(source)


def _refuse_other_device(study: optuna.Study, device: str) -> None:
    stored = study.user_attrs["device"]
    if stored != device:
        raise InputError(
            f"study {study.study_name!r} must go on where it was started, on {stored}, but got "
            f"{device}; pass --device {stored}, or start a new study with --as NEW_NAME."
        )


def _forget_evaluations(storage: RDBStorage, study_name: str) -> None:
    with storage.engine.begin() as connection:
        connection.execute(evaluations.delete().where(evaluations.c.study_name == study_name))
