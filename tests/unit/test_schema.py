"""One file spells what the database holds beside Optuna's columns; nothing in it is absolute."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
import stored_studies

from sweep.analysis.results import evaluations_table, run_dir, trials_table
from sweep.storage.location import relative_to_database, runs_folder
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.storage.schema import (
    StudyAttrs,
    new_trial_attrs,
    set_study_attrs,
    set_trial_attrs,
    study_attrs,
    trial_attrs,
)

ROOT = Path(__file__).parents[2]


def test_attributes_that_are_written_are_read_back_and_others_are_none():
    study = optuna.create_study()
    assert study_attrs(study) == StudyAttrs()
    set_study_attrs(study, n_trials=40, device="cpu")
    study.set_user_attr("somebody_elses", 1)
    assert study_attrs(study) == StudyAttrs(n_trials=40, device="cpu")
    trial = study.ask()
    set_trial_attrs(trial, arm="squentropy", shadow=200)
    assert (trial_attrs(trial).arm, trial_attrs(study.trials[0]).shadow) == ("squentropy", 200)


def test_an_attribute_that_is_no_field_is_refused():
    with pytest.raises(TypeError, match="colour"):
        set_study_attrs(optuna.create_study(), colour="red")
    with pytest.raises(TypeError, match="colour"):
        new_trial_attrs(arm="all", colour="red")


def test_no_attribute_name_is_a_literal_outside_the_schema():
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "sweep").rglob("*.py"))
        # the last two copy them, whatever their names
        if path.name not in ("schema.py", "snapshot.py", "known_trials.py")
        for line in path.read_text().splitlines()
        if re.search(r"user_attrs?\b(?!=)", line)
    ]
    assert found == []


def test_a_folder_that_is_moved_is_read_where_it_lies(tmp_path: Path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    stored = stored_studies.StoredStudy(before)
    stored.add("squentropy", [90.0, 80.0])
    set_study_attrs(stored.study, runs="runs/tiny")
    stored.storage.engine.dispose()
    shutil.move(before, after)
    study = load_study(open_storage(str(after / "sweep.db")), "tiny")
    assert runs_folder(study) == after / "runs" / "tiny"
    assert run_dir(study, study.trials[0]) == after / "runs" / "tiny" / "0"


def test_nothing_in_the_database_is_an_absolute_path(tmp_path: Path):
    stored = stored_studies.StoredStudy(tmp_path, name=str(tmp_path / "my" / "stories.txt"))
    stored.add("squentropy", [90.0, 80.0])
    runs = relative_to_database(stored.study, tmp_path / "runs" / "tiny")
    set_study_attrs(stored.study, runs=runs)
    attributes = [stored.study.user_attrs, *(trial.user_attrs for trial in stored.study.trials)]
    assert str(tmp_path) not in json.dumps(attributes)


def test_a_renamed_study_keeps_its_evaluations(tmp_path: Path):
    stored = stored_studies.StoredStudy(tmp_path)
    stored.add("squentropy", [90.0, 80.0])
    with sqlite3.connect(stored.path) as connection:
        connection.execute("UPDATE studies SET study_name = 'renamed'")
    connection.close()
    storage = open_storage(str(stored.path))
    assert list(evaluations_table(storage, "renamed")["perplexity"]) == [90.0, 80.0]
    assert list(trials_table(load_study(storage, "renamed"))["perplexity"]) == [80.0]


def test_evaluations_of_an_earlier_version_are_read_by_their_trial(tmp_path: Path):
    stored = stored_studies.StoredStudy(tmp_path)
    stored.add("squentropy", [90.0, 80.0])
    stored.add("cross_entropy", [70.0])
    stored.storage.engine.dispose()
    with sqlite3.connect(stored.path) as connection:  # as version 0.1.0 wrote it
        connection.execute(
            "CREATE TABLE old AS SELECT 'tiny' AS study_name, number AS trial_number, e.* "
            "FROM evaluations e JOIN trials USING (trial_id)"
        )
        connection.execute("ALTER TABLE old DROP COLUMN trial_id")
        connection.execute("DROP TABLE evaluations")
        connection.execute("ALTER TABLE old RENAME TO evaluations")
    connection.close()
    table = evaluations_table(open_storage(str(stored.path)), "tiny")
    read = table[["trial_number", "step", "perplexity"]].itertuples(index=False)
    assert [tuple(row) for row in read] == [(0, 100, 90.0), (0, 200, 80.0), (1, 100, 70.0)]


def test_a_trial_never_inherits_the_evaluations_of_a_deleted_one(tmp_path: Path):
    stored = stored_studies.StoredStudy(tmp_path)
    stored.add("squentropy", [90.0])
    optuna.delete_study(study_name="tiny", storage=stored.storage)
    open_storage(str(stored.path), create=True)  # as each run does
    again = stored_studies.StoredStudy(tmp_path)
    again.add("cross_entropy", [], outcome="running")
    assert evaluations_table(again.storage, "tiny").empty


def test_optunas_own_table_of_trials_has_a_column_for_each_fact_and_no_other(tmp_path: Path):
    stored = stored_studies.StoredStudy(tmp_path)
    stored.add("squentropy", [80.0, 60.0], square_weight=0.5)
    stored.add("cross_entropy", [90.0], outcome="pruned")
    columns = set(stored.study.trials_dataframe().columns)
    named = {"number", "datetime_start", "datetime_complete", "duration", "state"}
    named |= {f"params_{name}" for name in stored.spec.search}
    named |= {f"user_attrs_{name}" for name in ("arm", "origin", "outcome", "reason", "n_params")}
    assert columns - named == {"value_validation perplexity"}


def test_a_text_of_many_files_adds_no_attribute(tmp_path: Path):
    names = [f"part-{number}.txt" for number in range(1000)]
    splits = {"train": names, "validation": [], "unread": [], "cut": "by hash"}
    for folder in ("one", "many"):
        (tmp_path / folder).mkdir()
    one, many = (
        stored_studies.StoredStudy(tmp_path / "one"),
        stored_studies.StoredStudy(tmp_path / "many", splits=splits),
    )
    assert set(one.study.user_attrs) == set(many.study.user_attrs)
    assert all(re.fullmatch("[a-z_]+", name) for name in many.study.user_attrs)
