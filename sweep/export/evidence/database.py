"""A copy of some studies in a new SQLite file, also while they run and whatever database has them.

All rows are read in one transaction, so the copy is the studies at one moment.
"""

from collections.abc import Collection
from pathlib import Path

import sqlalchemy as sa
from optuna.storages import RDBStorage

from sweep.storage.rdb import open_storage
from sweep.storage.tables import OF_STUDIES, OF_TRIALS, evaluations

_COPIED = (*OF_STUDIES, "trials", *OF_TRIALS, evaluations.name)


def copy_studies(storage: RDBStorage, names: Collection[str], path: Path) -> RDBStorage:
    """Copy studies with all their rows, under the same ids, into a new SQLite file.

    Args:
        storage: Holds the studies, and perhaps others, which stay behind.
        names: Of the studies.
        path: There is no file yet.

    Returns:
        The copy, opened.
    """
    copy = open_storage(str(path), create=True)
    source = sa.MetaData()
    with _at_one_moment(storage) as old, copy.engine.begin() as new:
        source.reflect(old, only=lambda name, _: name in _COPIED)
        studies = source.tables["studies"]
        trials = source.tables["trials"]
        chosen = sa.select(studies.c.study_id).where(studies.c.study_name.in_(names))
        of_chosen = sa.select(trials.c.trial_id).where(trials.c.study_id.in_(chosen))
        target = sa.MetaData()
        target.reflect(new)
        for name in _COPIED:
            if name not in source.tables:  # evaluations, where Optuna's tools made the database
                continue
            table = source.tables[name]
            mine = (
                table.c.study_id.in_(chosen)
                if "study_id" in table.c
                else table.c.trial_id.in_(of_chosen)
            )
            rows = [dict(row) for row in old.execute(sa.select(table).where(mine)).mappings()]
            if rows:
                new.execute(target.tables[name].insert(), rows)
    return copy


def _at_one_moment(storage: RDBStorage) -> sa.Connection:
    """Return a connection all of whose reads see the database as it is at the first of them."""
    connection = storage.engine.connect()
    if storage.engine.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")  # SQLite by Python begins only where it writes
        return connection
    return connection.execution_options(isolation_level="REPEATABLE READ")
