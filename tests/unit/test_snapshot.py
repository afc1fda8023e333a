"""A snapshot of a SQLite file is what Optuna's own storage reads from it."""

import math
import sqlite3
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from stored_studies import StoredStudy, empty_database

from gpt.errors import DataError
from sweep.storage.location import runs_folder
from sweep.storage.reader import open_snapshot
from sweep.storage.snapshot import Snapshot
from sweep.tuner.doctor import examine

STARTED, ENDED = datetime(2026, 1, 2, 3, 4, 5, 678), datetime(2026, 1, 2, 3, 5)
SPACE = {
    "x": FloatDistribution(-1e300, 1e300),
    "rate": FloatDistribution(1e-12, 1.0, log=True),
    "size": IntDistribution(0, 10**30),
    "kind": CategoricalDistribution([None, True, 1.5, "adam", 7]),
}


def trial(state: TrialState, values: list[float] | None = None, **params: object):
    given = {"x": 0.1, "rate": 1e-12, "size": 3 * 10**20, "kind": None} | params
    made = create_trial(
        state=state,
        values=values,
        params=given,
        distributions={name: SPACE[name] for name in given},
        user_attrs={"note": ["a", {"b": None}]},
        system_attrs={"constraints": [1.0]},
        intermediate_values={2: math.inf, 1: -math.inf, 7: math.nan, 3: 0.25},
    )
    made.datetime_start = None if state == TrialState.WAITING else STARTED
    made.datetime_complete = ENDED if state.is_finished() else None
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Studies of every kind that Optuna can store."""
    path = tmp_path / "foreign.db"
    path.write_bytes(empty_database())
    storage = RDBStorage(f"sqlite:///{path}")
    for name, directions in (
        ("one", ["maximize"]),
        ("two", ["minimize", "maximize"]),
        ("../'odd' [name]", ["minimize"]),
        ("empty", ["minimize"]),
    ):
        study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        study.set_user_attr("data", "mnist")
        if name == "empty":
            continue
        ends = [math.inf, -math.inf, 0.5]
        for end in ends:
            study.add_trial(trial(TrialState.COMPLETE, [end] * len(directions)))
        for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING):
            study.add_trial(trial(state, kind="adam"))
    storage.engine.dispose()
    return path


def test_a_snapshot_has_every_study_and_trial_as_optunas_storage_has_them(path: Path):
    theirs, ours = RDBStorage(f"sqlite:///{path}"), Snapshot(path)
    names = optuna.get_all_study_names(theirs)
    assert optuna.get_all_study_names(ours) == names
    for name in names:
        expected = optuna.load_study(study_name=name, storage=theirs)
        found = optuna.load_study(study_name=name, storage=ours)
        assert found.directions == expected.directions
        assert found.user_attrs == expected.user_attrs
        for mine, other in zip(found.trials, expected.trials, strict=True):
            assert repr(mine) == repr(other)  # NaN is equal to no NaN, but prints the same
    theirs.engine.dispose()


def test_a_snapshot_leaves_the_file_and_its_folder_as_they_were(path: Path):
    before = path.read_bytes()
    study = optuna.load_study(study_name="one", storage=open_snapshot(str(path)))
    study.enqueue_trial({"x": 1.0})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_only_reads_folds_the_log_of_a_killed_command_in(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [60.0])
    copy = tmp_path / "left" / "sweep.db"
    copy.parent.mkdir()
    for suffix in ("", "-wal"):  # as they are while somebody writes
        source = stored.path.with_name(stored.path.name + suffix)
        copy.with_name(copy.name + suffix).write_bytes(source.read_bytes())
    assert copy.with_name("sweep.db-wal").stat().st_size > 0
    for read in (open_snapshot, lambda path: examine(path, tmp_path / "runs", str)):
        read(str(copy))
        assert [file.name for file in copy.parent.iterdir()] == ["sweep.db"]


def test_run_directories_are_found_from_a_snapshot_too(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [60.0])
    found = optuna.load_study(study_name="tiny", storage=open_snapshot(str(stored.path)))
    assert runs_folder(found) == runs_folder(stored.study)


def test_tables_of_another_revision_are_left_to_optuna(path: Path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
    connection.close()
    with pytest.raises(DataError, match="newer Optuna"):
        open_snapshot(str(path))


def test_the_installed_optuna_writes_a_revision_that_is_read_fast(tmp_path: Path):
    path = tmp_path / "new.db"
    path.write_bytes(empty_database())
    assert isinstance(open_snapshot(str(path)), Snapshot)
