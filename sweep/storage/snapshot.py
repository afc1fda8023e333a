"""A SQLite file of Optuna's, read into memory in a tenth of the time that RDBStorage takes.

RDBStorage imports SQLAlchemy and Alembic. Commands that only show what is stored need neither.
"""

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweep.storage.sqlite import TIMEOUT

REVISIONS = ("v3.2.0.a",)  # of Optuna's tables: those that are read here

_OF_TYPE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}  # numbers that SQL has not


class Snapshot(InMemoryStorage):
    """Every study and trial of a file as they are now; whatever is written stays in memory.

    Args:
        path: A database whose tables are of one of REVISIONS.

    Raises:
        sqlite3.Error: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        with closing(sqlite3.connect(path, timeout=TIMEOUT)) as connection:
            connection.execute("BEGIN")  # so that all tables are read at one moment
            _copy(connection, self)

    def add(
        self,
        study_id: int,
        user_attrs: dict[str, Any],
        system_attrs: dict[str, Any],
        trials: Iterable[FrozenTrial],
    ) -> None:
        """Take attributes and trials over as they are, with the ids that notes know trials by.

        Optuna's own methods copy each trial, count ids anew, and copy all attributes for each: the
        notes of 10,000 trials would take longer than all else.
        """
        self._studies[study_id].user_attrs = user_attrs
        self._studies[study_id].system_attrs = system_attrs
        for trial in trials:
            trial.number = len(self._studies[study_id].trials)
            self._studies[study_id].trials.append(trial)
            self._trial_id_to_study_id_and_number[trial._trial_id] = (study_id, trial.number)
            self._max_trial_id = max(self._max_trial_id, trial._trial_id)
            self._update_cache(trial._trial_id, study_id)


def _copy(connection: sqlite3.Connection, storage: Snapshot) -> None:
    directions = _grouped(
        connection.execute("SELECT study_id, direction FROM study_directions ORDER BY objective")
    )
    attributes = _attributes(connection, "study_user_attributes", "study_id")
    of_system = _attributes(connection, "study_system_attributes", "study_id")
    trials = _trials(connection)
    for found, name in connection.execute(
        "SELECT study_id, study_name FROM studies ORDER BY study_id"
    ):
        study = storage.create_new_study(
            [StudyDirection[direction] for (direction,) in directions[found]], name
        )
        storage.add(study, attributes[found], of_system[found], trials[found])


def _trials(connection: sqlite3.Connection) -> dict[int, list[FrozenTrial]]:
    """Read the trials of every study, by number."""
    params = _grouped(
        connection.execute(
            "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params "
            "ORDER BY param_id"
        )
    )
    values = _grouped(
        connection.execute(
            "SELECT trial_id, value, value_type FROM trial_values ORDER BY objective"
        )
    )
    reported = _grouped(
        connection.execute(
            "SELECT trial_id, step, intermediate_value, intermediate_value_type "
            "FROM trial_intermediate_values ORDER BY step"
        )
    )
    attributes = _attributes(connection, "trial_user_attributes", "trial_id")
    of_system = _attributes(connection, "trial_system_attributes", "trial_id")
    found: dict[int, list[FrozenTrial]] = defaultdict(list)
    for trial, study, number, state, started, ended in connection.execute(
        "SELECT trial_id, study_id, number, state, datetime_start, datetime_complete FROM trials "
        "ORDER BY trial_id"
    ):
        spaces = {name: _distribution(text) for name, _, text in params[trial]}
        found[study].append(
            FrozenTrial(
                number=number,
                trial_id=trial,
                state=TrialState[state],
                value=None,
                values=[_number(*value) for value in values[trial]] or None,
                datetime_start=None if started is None else datetime.fromisoformat(started),
                datetime_complete=None if ended is None else datetime.fromisoformat(ended),
                params={
                    name: spaces[name].to_external_repr(value) for name, value, _ in params[trial]
                },
                distributions=spaces,
                user_attrs=attributes[trial],
                system_attrs=of_system[trial],
                intermediate_values={step: _number(*value) for step, *value in reported[trial]},
            )
        )
    return found


@lru_cache(maxsize=1000)  # thousands of trials have the same few
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _attributes(
    connection: sqlite3.Connection, table: str, owner: str
) -> dict[int, dict[str, Any]]:
    rows = connection.execute(f"SELECT {owner}, key, value_json FROM {table}")
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for each, key, value in rows:
        found[each][key] = json.loads(value)
    return found


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    """Group rows by their first column."""
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for owner, *row in rows:
        found[owner].append(tuple(row))
    return found


def _number(value: float | None, kind: str) -> float:
    return _OF_TYPE[kind] if kind in _OF_TYPE or value is None else value
