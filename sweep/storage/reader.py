"""Open a storage to show what is in it, and find a study there."""

import optuna
from optuna.storages import BaseStorage

from gpt.errors import InputError
from sweep.storage import sqlite as storage_file
from sweep.storage.location import storage_path
from sweep.storage.snapshot import REVISIONS, Snapshot
from sweep.study.suggest import nearest


def open_snapshot(storage: str) -> BaseStorage:
    """Open a storage as it is now, for commands that only show what is in it.

    A SQLite file of tables that are known is read into memory; any other database, and a file of
    another revision, is opened as `sweep.storage.rdb.open_storage` does.

    Raises:
        InputError: see `open_storage`, also for a DataError and a StorageError.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its INFO names studies in memory
    path = storage_path(storage)
    if path is not None:
        revision = storage_file.check(path, create=False, readable=REVISIONS)
        if revision in REVISIONS:
            return Snapshot(path)
    from sweep.storage.rdb import open_storage

    return open_storage(storage)


def load_study(storage: BaseStorage, name: str) -> optuna.Study:
    """Load a study that must be there.

    Raises:
        InputError: the storage holds no such study; the message lists those it holds.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        from sweep.study.toml_file import shipped_files

        known = sorted(optuna.get_all_study_names(storage))
        near = nearest(name, known)
        starts = f"; `squen-sweep run --study {name}` starts it" if name in shipped_files() else ""
        raise InputError(
            f"study {name!r} must be in the storage, but it holds "
            f"{', '.join(known) if known else 'no study yet'}{near or starts}."
        ) from None
