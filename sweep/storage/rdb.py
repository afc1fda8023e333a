"""Open or resume a study in its database.

Optuna's own tables hold studies and trials, so that its CLI and its dashboard read the file as it
is; sweep.storage.schema says what is there besides. The tuner is the only writer.
"""

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage

from gpt.config import DataConfig
from gpt.errors import InputError
from gpt.system.signals import noted
from sweep.storage import sqlite as storage_file
from sweep.storage.errors import CONNECT_SECONDS, explained, reason
from sweep.storage.growth.extension import extended_keys, is_extension
from sweep.storage.location import (
    data_options,
    data_source,
    from_database,
    relative_to_database,
    sqlite_path,
    storage_url,
)
from sweep.storage.schema import set_study_attrs, study_attrs
from sweep.storage.tables import evaluations, is_server, metadata, optuna_trials, upgrade
from sweep.study.metric import metric_of
from sweep.study.spec import StudySpec, stored_spec

_opened: list[RDBStorage] = []  # by this process, to be closed at its end


def open_storage(
    storage: str, *, create: bool = False, notice: Callable[[str], None] | None = None
) -> RDBStorage:
    """Open the Optuna storage at a URL or path, with write-ahead logging and patience for locks.

    Args:
        storage: For example sqlite:///runs/sweep.db, runs/sweep.db or postgresql://...
        create: Make the database and its tables when they are missing.
        notice: Called with what we wait for while a server starts or is full; None: do not wait.

    Raises:
        InputError: there is no database and `create` is false, or it cannot be used; a DataError
            or a StorageError where the file or the disk is at fault.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its INFO repeats what we show
    url = storage_url(storage)
    path = sqlite_path(url)
    with _signals_put_off():
        if path:
            storage_file.check(path, create)
        try:
            opened = _open_file(url) if path else _open_server(url, storage, notice)
            _opened.append(opened)
            upgrade(opened.engine)
            if create:
                set_up(opened)
        except (sa.exc.SQLAlchemyError, RuntimeError, ImportError, ValueError) as error:
            if explanation := explained(error, storage, path):
                raise explanation from None
            raise _unusable(storage, error) from None
    return opened


def _open_file(url: str) -> RDBStorage:
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": storage_file.TIMEOUT}})


def _open_server(url: str, storage: str, notice: Callable[[str], None] | None) -> RDBStorage:
    from sweep.storage.server import ServerStorage, once_started  # few users have one

    return once_started(lambda: ServerStorage(url, storage), storage, notice)


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
    if isinstance(error, ImportError) and sqlite_path(storage_url(storage)) is None:
        return InputError(
            f"storage {storage} needs a library of its own, but {error}; "
            f"pip install 'squen-sweep[postgresql]'."
        )
    return InputError(f"storage {storage} must be a database to use, but {reason(error)}.")


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


@contextmanager
def only_writer(
    storage: RDBStorage, study: str, patience: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock of a study in a server's database; a file's is in sweep.storage.lock.

    Args:
        storage: Opened.
        study: Its name.
        patience: Called with whom we wait for; None: do not wait.

    Raises:
        BusyError: another tuner holds it.
    """
    with storage.only_writer(study, patience) if is_server(storage) else nullcontext():
        yield


def wait_for(
    storage: RDBStorage, notice: Callable[[str], None], give_up: Callable[[], bool]
) -> None:
    """From now on, wait for a server that is away; a file is always there.

    Args:
        storage: Opened.
        notice: Called with what we wait for, and when it is over.
        give_up: Ends the waiting with a BusyError where it returns True.
    """
    if is_server(storage):
        storage.wait_with(notice, give_up)


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
    metric = metric_of(spec.model_dump(mode="json"))
    study = optuna.create_study(
        storage=storage, study_name=spec.name, direction=metric.direction, load_if_exists=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        label = f"validation {metric.name}" if metric.is_perplexity else metric.name
        study.set_metric_names([label])  # for Optuna's own dashboard
    set_study_attrs(study, device=device, **attrs_of_spec(study, spec, data))
    return study


def attrs_of_spec(study: optuna.Study, spec: StudySpec, data: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a study that follow from its file and its text.

    Args:
        study: Any study of the same storage.
        spec: The study, settled for one device.
        data: Facts of the text.
    """
    stored = spec.model_dump(mode="json")
    if spec.trainer is not None:
        stored["trainer"]["folder"] = relative_to_database(study, Path(spec.trainer.folder))
    stored["plugins"] = {
        relative_to_database(study, Path(plugin)) if plugin.endswith(".py") else plugin: version
        for plugin, version in spec.plugins.items()
    }
    if data.get("kind") == "files":
        path = Path(data["name"])
        data = data | {"name": path.name, "source": relative_to_database(study, path)}
    return {"data": data, "spec_digest": spec.digest, "spec": stored}


def located_spec(study: optuna.Study) -> StudySpec:
    """Return a stored study with its program and its plugins where they lie as seen from here.

    Raises:
        InputError: see `stored_spec`.
    """
    spec = stored_spec(study_attrs(study).spec or {}, study.study_name)
    if spec.trainer is not None:
        folder = from_database(study, spec.trainer.folder)
        trainer = spec.trainer.model_copy(update={"folder": folder})
        spec = spec.model_copy(update={"trainer": trainer})
    plugins = {
        str(Path(from_database(study, plugin)).resolve()) if plugin.endswith(".py") else plugin: one
        for plugin, one in spec.plugins.items()
    }
    return spec.model_copy(update={"plugins": plugins})


def check_study(
    study: optuna.Study, spec: StudySpec, data: dict[str, Any], device: str, extend: bool = False
) -> list[str]:
    """Raise InputError unless a stored study can go on as `spec` on this text; writes nothing.

    Args:
        study: As it is stored.
        spec: The study file, settled for one device.
        data: Facts of the text that was found.
        device: "cpu" or "cuda".
        extend: Let `spec` extend the stored study.

    Returns:
        The keys by which `spec` extends the study.

    Raises:
        InputError: the study was made by another program, from another spec, from other text, or
            on another device.
    """
    attrs = study_attrs(study)
    if attrs.spec is None:
        _refuse_study_of_others(study, spec)
        return []
    if extend:
        keys = extended_keys(stored_spec(attrs.spec, study.study_name), spec)
    else:
        keys = []
        _refuse_other_spec(study, spec)
    _refuse_other_data(study, data)
    _refuse_other_device(study, device)
    return keys


def database_exists(storage: str, notice: Callable[[str], None] | None = None) -> bool:
    """Return True if there is a database with studies; make neither it nor its tables.

    Args:
        storage: URL or path.
        notice: See `open_storage`.

    Raises:
        InputError: a server refuses; a NetworkError or a BusyError where it does not answer.
    """
    url = storage_url(storage)
    path = sqlite_path(url)
    if path and not path.exists():
        return False
    engine = sa.create_engine(
        url, connect_args={} if path else {"connect_timeout": CONNECT_SECONDS}
    )
    try:
        if path:
            return sa.inspect(engine).has_table("studies")
        from sweep.storage.server import once_started

        return once_started(lambda: sa.inspect(engine).has_table("studies"), storage, notice)
    except sa.exc.SQLAlchemyError as error:
        if path:
            return False  # whoever opens it to write says what is wrong
        raise explained(error, storage, path) or _unusable(storage, error) from None
    finally:
        engine.dispose()


def find_study(storage: RDBStorage, name: str) -> optuna.Study | None:
    """Load a study; None if there is none of that name."""
    if name not in optuna.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage)


def _refuse_study_of_others(study: optuna.Study, spec: StudySpec) -> None:
    """Refuse trials without a spec, which cannot be continued, and another goal than ours."""
    what = "trials of another program" if study.get_trials(deepcopy=False) else ""
    goals = [direction.name.lower() for direction in study.directions]
    if goals != [metric_of(spec.model_dump(mode="json")).direction]:
        what = f"another goal ({' and '.join(goals)})"
    if what:
        raise InputError(
            f"study {study.study_name!r} must be one of squen-sweep, but it has {what}; "
            f"rename the study, or pass another --storage."
        )


def _refuse_other_spec(study: optuna.Study, spec: StudySpec) -> None:
    attrs = study_attrs(study)
    if attrs.spec_digest == spec.digest:
        return
    differing = spec.differences(attrs.spec or {})
    if not differing:  # written in another way, or its digest was made in another way
        return
    extends = is_extension(stored_spec(attrs.spec or {}, spec.name), spec)
    way = "take its trials over with --extend, or " if extends else ""
    raise InputError(
        f"study {spec.name!r} was made from another spec ({', '.join(differing)} differs); "
        f"{way}start a new study with --as NEW_NAME, or pass another --storage and --runs."
    )


def _refuse_other_data(study: optuna.Study, data: dict[str, Any]) -> None:
    stored = study_attrs(study).data or {}
    if stored["fingerprint"] == data["fingerprint"]:
        return
    if data["kind"] == "program":
        raise InputError(
            f"study {study.study_name!r} is pinned to {', '.join(data['files'])} of its program, "
            f"of which one has changed; bring it back, or start a new study with --as NEW_NAME."
        )
    source = data_source(study)
    files = stored["kind"] == "files"
    changed = stored["kind"] == data["kind"] and (
        not files or Path(source).resolve() == Path(data["name"]).resolve()
    )
    way = "bring that text back" if changed else f"pass {data_options(study)}"
    raise InputError(
        f"study {study.study_name!r} is pinned to its text, {stored['name']} "
        f"({stored['fingerprint'][:8]}), but now it is {data['name']} ({data['fingerprint'][:8]}); "
        f"{way}, or start a new study with --as NEW_NAME."
    )


def stored_text(study: optuna.Study, spec: StudySpec) -> DataConfig:
    """Return the text of a study as it lies now, pinned: other text is refused when prepared.

    Args:
        study: As it is stored.
        spec: Its stored file.
    """
    if spec.trainer is not None:
        return spec.data
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
