"""Searched parameters that are called as a column of the tables of trials."""

import json
from pathlib import Path

import pytest
from stored_studies import PROGRAM, StoredStudy

from sweep.analysis.importance import MIN_TRIALS, importances_table
from sweep.analysis.study_reader import best_of_arms, read_study
from sweep.report.report import render
from sweep.report.status_table import status_json
from sweep.report.tables import all_table, best_table

NAMES = ("tokens", "seconds", "state", "entropy", "slot", "story")
RANGES = "".join(f"[search.{name}]\nlow = 1\nhigh = 2000\n" for name in NAMES)
TEXT = PROGRAM.replace("{seed}", f"{{seed}} {' '.join(f'{{{name}}}' for name in NAMES)}") + RANGES


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    stored = StoredStudy(tmp_path, TEXT, files=[])
    for value, arm in ((1001, "adamw"), (1002, "muon")):
        stored.add(arm, [0.5, 0.9], **dict.fromkeys(NAMES, value))
    return stored


def test_a_parameter_called_as_a_column_keeps_its_values_in_tables_and_pages(stored: StoredStudy):
    reader = read_study(stored.storage, stored.study)
    for name in NAMES:
        assert reader.trials[f"params_{name}"].tolist() == [1001, 1002]
        assert dict(best_of_arms(reader)[0].settings)[f"params_{name}"] == "1001"
    for table in (all_table(reader), best_table(reader)):
        assert {f"params_{name}" for name in NAMES} <= set(table.names)
        assert len(set(table.names)) == len(table.names)
    assert reader.trials["tokens"].tolist() == [2000, 2000]
    assert "params_tokens" in render(reader)


def test_importances_name_a_parameter_as_its_column(stored: StoredStudy):
    for value in range(MIN_TRIALS):
        stored.add("sgd", [value / 10], **(dict.fromkeys(NAMES, 1) | {"tokens": value + 1}))
    names = importances_table(stored.study, ["sgd"])["parameter"]
    assert set(names) == {"params_tokens"}


def test_status_as_json_has_a_parameter_beside_the_column_of_its_name(stored: StoredStudy):
    row = json.loads(status_json(stored.study))["trials"][0]
    assert (row["state"], row["params_state"]) == ("complete", 1001)


def test_status_as_json_has_the_ranked_figure_under_its_own_name_alone(stored: StoredStudy):
    row = json.loads(status_json(stored.study))["trials"][0]
    assert row["accuracy"] == 0.9
    assert "perplexity" not in row
