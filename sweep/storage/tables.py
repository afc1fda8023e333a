"""The table of ours beside Optuna's in a database, and rows that the tuner writes by itself.

evaluations            one row for each Evaluation of a trial: trial_id (of Optuna's table
                       trials), step, and the other fields of gpt.events.Evaluation
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeGuard

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import StudySystemAttributeModel as StudyAttribute
from optuna.storages._rdb.models import StudyUserAttributeModel as StudyUserAttribute
from optuna.storages._rdb.models import TrialIntermediateValueModel as IntermediateValue
from optuna.storages._rdb.models import TrialUserAttributeModel as TrialAttribute
from sqlalchemy.dialects import postgresql, sqlite

from gpt.events import Evaluation

if TYPE_CHECKING:
    from sweep.storage.server import ServerStorage

_COLUMN_TYPES: dict[object, sa.types.TypeEngine[Any]] = {
    int: sa.BigInteger(),
    float: sa.Float(53),
    float | None: sa.Float(53),
}

metadata = sa.MetaData()
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True),
    *(
        sa.Column(field.name, _COLUMN_TYPES[field.type], primary_key=field.name == "step")
        for field in fields(Evaluation)
    ),
)

# Optuna's tables with rows of a study, and of a trial.
OF_STUDIES = ("studies", "study_directions", "study_user_attributes", "study_system_attributes")
OF_TRIALS = (
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)

optuna_studies = sa.table("studies", sa.column("study_id"), sa.column("study_name"))
optuna_trials = sa.table(
    "trials", sa.column("trial_id"), sa.column("number"), sa.column("study_id")
)


def upgrade(engine: sa.Engine) -> None:
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


def is_server(storage: RDBStorage) -> TypeGuard["ServerStorage"]:
    """Return True if a storage is a server's, which may be away."""
    return hasattr(storage, "patiently")


def record_evaluation(
    storage: RDBStorage, trial_id: int, evaluation: Evaluation, value: float | None = None
) -> None:
    """Add one row to the evaluations table; a step that is there already stays as it is.

    Args:
        storage: Opened.
        trial_id: Of a trial that trains.
        evaluation: Figures of a step.
        value: For Optuna, as `trial.report` stores it, but in one transaction and without reading
            the trial; None: nothing.
    """

    def insert() -> None:
        with _unsynced(storage.engine) as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            values = {name: _measured(value) for name, value in asdict(evaluation).items()}
            rows: list[tuple[Any, dict[str, Any]]] = [
                (evaluations, {"trial_id": trial_id, **values})
            ]
            if value is not None:
                stored, kind = IntermediateValue.intermediate_value_to_stored_repr(value)
                reported: dict[str, Any] = {
                    "intermediate_value": stored,
                    "intermediate_value_type": kind,
                }
                reported |= {"trial_id": trial_id, "step": evaluation.step}
                rows.append((IntermediateValue.__table__, reported))
            for table, row in rows:
                connection.execute(dialect.insert(table).on_conflict_do_nothing(), row)

    storage.patiently(insert) if is_server(storage) else insert()


def record_trial_attr(storage: RDBStorage, trial_id: int, name: str, value: Any) -> None:
    """Write a user attribute of a trial that is not finished, as Optuna does but for a sync.

    Raises:
        KeyError: there is no such trial any more.
    """

    def write() -> None:
        with _unsynced(storage.engine) as connection:
            _require(connection, optuna_trials.c.trial_id, trial_id)
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            row = dialect.insert(TrialAttribute.__table__).values(
                trial_id=trial_id, key=name, value_json=json.dumps(value)
            )
            new = {"value_json": row.excluded.value_json}
            keys = ["trial_id", "key"]
            connection.execute(row.on_conflict_do_update(index_elements=keys, set_=new))

    storage.patiently(write) if is_server(storage) else write()


def record_notes(storage: RDBStorage, study_id: int, notes: Mapping[int, str]) -> None:
    """Write notes for Optuna Dashboard, by trial id, at once: its own code reads all others first.

    A trial that has a note, as a user may write one while it trains, keeps it.

    Raises:
        KeyError: there is no such study any more.
    """
    from optuna_dashboard._note import note_ver_key, split_body

    texts = [
        {note_ver_key(trial_id): 1, **split_body(note, trial_id)}
        for trial_id, note in notes.items()
    ]

    def write() -> None:
        with _unsynced(storage.engine) as connection:
            _require(connection, optuna_studies.c.study_id, study_id)
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            for text in texts:
                rows = [
                    {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
                    for key, value in text.items()
                ]
                row = dialect.insert(StudyAttribute.__table__).on_conflict_do_nothing()
                if connection.execute(row, rows[0]).rowcount:
                    connection.execute(row, rows[1:])

    storage.patiently(write) if is_server(storage) else write()


def record_overview(
    storage: RDBStorage, study_id: int, note: str, figures: Mapping[str, str]
) -> None:
    """Write the note and the figures of a study for Optuna Dashboard, in place of those before.

    Its own code reads the notes of all trials again for each of them: seconds, for thousands.

    Args:
        storage: Opened.
        study_id: Of the study.
        note: In Markdown.
        figures: JSON of Plotly, by id.

    Raises:
        KeyError: there is no such study any more.
    """
    from optuna_dashboard._custom_plot_data import SYSTEM_ATTR_PLOT_DATA, split_plot_data
    from optuna_dashboard._note import note_str_key_prefix, note_ver_key, split_body

    prefixes = {name: f"{SYSTEM_ATTR_PLOT_DATA}{name}:" for name in figures}
    values: dict[str, Any] = dict(split_body(note, None))
    for name, figure in figures.items():
        values |= split_plot_data(figure, prefixes[name])
    table, version = StudyAttribute.__table__, note_ver_key(None)
    mine = table.c.study_id == study_id
    parts = sa.or_(
        *(
            table.c.key.startswith(prefix, autoescape=True)
            for prefix in (note_str_key_prefix(None), *prefixes.values())
        )
    )

    def write() -> None:
        with _unsynced(storage.engine) as connection:
            _require(connection, optuna_studies.c.study_id, study_id)
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            last = connection.scalar(
                sa.select(table.c.value_json).where(mine, table.c.key == version)
            )
            numbered = {version: (json.loads(last) if last else 0) + 1}
            connection.execute(sa.delete(table).where(mine, parts))
            row = dialect.insert(table)
            new = {"value_json": row.excluded.value_json}
            connection.execute(
                row.on_conflict_do_update(index_elements=["study_id", "key"], set_=new),
                [
                    {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
                    for key, value in (numbered | values).items()
                ],
            )

    storage.patiently(write) if is_server(storage) else write()


def user_attrs_of_studies(storage: RDBStorage) -> dict[str, tuple[int, dict[str, Any]]]:
    """Read id and user attributes of every study by its name, the oldest first.

    Optuna reads what the dashboard has of their trials, too.
    """
    table = StudyUserAttribute.__table__
    query = (
        sa.select(optuna_studies.c.study_id, optuna_studies.c.study_name)
        .add_columns(table.c.key, table.c.value_json)
        .outerjoin_from(optuna_studies, table, table.c.study_id == optuna_studies.c.study_id)
        .order_by(optuna_studies.c.study_id)
    )

    def read() -> dict[str, tuple[int, dict[str, Any]]]:
        found: dict[str, tuple[int, dict[str, Any]]] = {}
        with storage.engine.connect() as connection:
            for study_id, name, key, value in connection.execute(query):
                _, attrs = found.setdefault(name, (study_id, {}))
                if key is not None:
                    attrs[key] = json.loads(value)
        return found

    return storage.patiently(read) if is_server(storage) else read()


def _require(connection: sa.Connection, column: sa.ColumnClause[Any], number: int) -> None:
    """Refuse to write to what was deleted: SQLite gives its id, and so the rest, to another."""
    if connection.scalar(sa.select(column).where(column == number)) is None:
        raise KeyError(f"{column.name} {number} was deleted")


@contextmanager
def _unsynced(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begin a transaction at whose end SQLite does not wait for the disk; the next one's does.

    A machine that loses power may lose evaluations, which events.jsonl has, and notes, but no trial
    and no order: a write-ahead log is written from its beginning to its end. A busy disk takes
    10 ms to sync, and a thousand trials are evaluated a hundred times a second.
    """
    with engine.connect() as connection:
        file = connection.dialect.name == "sqlite"
        if file:
            connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
        try:
            yield connection
            connection.commit()
        finally:
            connection.rollback()
            if file:
                connection.exec_driver_sql("PRAGMA synchronous=FULL")


def _measured(value: float | None) -> float | None:
    """Return None for NaN, which means the same and which not every database takes."""
    return None if value is None or math.isnan(value) else value
