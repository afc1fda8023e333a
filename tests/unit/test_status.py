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
    lines = console.file.getvalue().splitlines()
    end = next(i for i, line in enumerate(lines) if "trials finished" in line)
    return [line.split() for line in lines[2:end]]


def next_commands(arms: list[str], complete: list[str], runs: str = "runs") -> list[str]:
    """The commands that the end of a sweep suggests."""
    best = {arm: (number, 60.0) for number, arm in enumerate(complete)}
    summary = Summary("tiny", 4, 4, {"complete": 4}, arms, best, False, None, False, 1.0)
    folder = Path(runs, "tiny")
    lines = closing_lines(summary, folder, "runs/sweep.db", "", 100, Path("report.html"))
    return [line.strip() for line in lines[lines.index("next:") + 1 :]]


def test_a_verdict_is_suggested_first_where_there_is_something_to_judge():
    two = ["cross_entropy", "squentropy"]
    assert next_commands(two, two)[0] == "squen-sweep verdict --study tiny"
    elsewhere = next_commands(two, two, runs="../my runs")[0]
    assert elsewhere == "squen-sweep verdict --study tiny --runs '../my runs'"
    for arms, complete in ((["all"], ["all"]), (two, two[:1])):
        suggested = next_commands(arms, complete)
        assert not any("verdict" in command for command in suggested)
        assert "squen-sweep export --study tiny -o best.toml" in suggested


def test_after_a_sweep_without_a_complete_trial_only_its_status_helps():
    assert next_commands(["all"], []) == ["squen-sweep status --study tiny"]


def test_a_table_of_sixty_columns_names_three_parameters_in_full(tmp_path: Path):
    header, first, second = table(tmp_path, THREE, 60)
    assert header[-5:] == ["step", "perplexity", "lr", "n_layer", "dropout"]
    assert first[-5:] == ["200", "214.30", "1.23e-03", "6", "0.123"]
    assert second[-5:] == ["200", "1,214", "1.23e-03", "6", "0.123"]
    assert (first[1][:4], second[1][:4]) == ("cros", "sque")


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_table_never_cuts_a_number(tmp_path: Path, width: int):
    *_, first, second = table(tmp_path, STUDY + DROPOUT, width)
    assert first[-6:] == ["200", "214.30", "1.23e-03", "6", "-", "0.123"]
    assert second[-6:] == ["200", "1,214", "1.23e-03", "6", "0.500", "0.123"]


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
