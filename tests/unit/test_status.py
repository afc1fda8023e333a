"""The table of trials in terminals of few columns."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from stored_studies import STUDY, StoredStudy

from sweep.report.status_table import closing_lines, study_status
from sweep.tuner.summary import Summary

DROPOUT = "[search.dropout]\nlow = 0.0\nhigh = 0.3\n"
THREE = STUDY.replace("[search.square_weight]\nlow = 0.1\nhigh = 2.0\n", DROPOUT)
THREE = THREE.replace('when = { loss = "squentropy" }\n', "")
POINT = {"learning_rate": 1.234e-3, "dropout": 0.1234, "n_layer": 6}


def table(folder: Path, text: str, width: int) -> list[list[str]]:
    """The words of every line of the table: a header of one line or more, and two trials."""
    stored = StoredStudy(folder, text)
    stored.add("cross_entropy", [300.0, 214.3], **POINT)
    own = {"square_weight": 0.5} if "square_weight" in text else {}
    stored.add("squentropy", [300.0, 1214.3], "pruned", **POINT, **own)
    console = Console(file=io.StringIO(), width=width)
    console.print(*study_status(stored.study, width), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()[2:-2]]


@pytest.mark.parametrize("arms", [["all"], ["cross_entropy", "squentropy"]])
def test_a_verdict_is_suggested_where_there_is_something_to_compare(arms: list[str]):
    best = {arm: (number, 60.0) for number, arm in enumerate(arms)}
    summary = Summary("tiny", 4, 4, {"complete": 4}, best, False, None, False, 1.0)
    lines = closing_lines(summary, Path("runs"), "runs/sweep.db", "", 100, Path("report.html"))
    suggested = "  squen-sweep verdict --study tiny" in lines
    assert suggested == (len(arms) > 1)
    assert "  squen-sweep export --study tiny -o best.toml" in lines


def test_a_table_of_sixty_columns_names_three_parameters_in_full(tmp_path: Path):
    header, first, second = table(tmp_path, THREE, 60)
    assert header[-5:] == ["step", "perplexity", "lr", "n_layer", "dropout"]
    assert first[-5:] == ["200", "214.30", "1.23e-03", "6", "0.1234"]
    assert second[-5:] == ["200", "1,214", "1.23e-03", "6", "0.1234"]
    assert (first[1][:4], second[1][:4]) == ("cros", "sque")


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_table_never_cuts_a_number(tmp_path: Path, width: int):
    *_, first, second = table(tmp_path, STUDY + DROPOUT, width)
    assert first[-6:] == ["200", "214.30", "1.23e-03", "6", "-", "0.1234"]
    assert second[-6:] == ["200", "1,214", "1.23e-03", "6", "0.5", "0.1234"]


@pytest.mark.parametrize(("width", "drawn"), [(140, True), (80, False)])
def test_the_curve_of_a_running_trial_is_drawn_where_there_is_room(tmp_path, width, drawn):
    stored = StoredStudy(tmp_path, STUDY + "[train]\nmax_steps = 400\neval_interval = 100")
    stored.add("cross_entropy", [60.0])
    stored.add("squentropy", [90.0, 45.0], outcome="running")
    console = Console(file=io.StringIO(), width=width)
    console.print(*study_status(stored.study, width), sep="\n")
    assert ("████▁▁▁▁········" in console.file.getvalue()) == drawn
    assert "left" not in console.file.getvalue()  # nobody trains it, so nobody knows


def test_a_table_without_a_running_trial_has_no_column_for_curves(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [60.0])
    console = Console(file=io.StringIO(), width=140)
    console.print(*study_status(stored.study, 140), sep="\n")
    assert "curve" not in console.file.getvalue()
