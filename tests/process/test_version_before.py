"""A project that version 0.1.0 left, with its verdict, and then moved to another folder.

tests/helpers/version_0_1_0 holds its database as SQL and the small files of its run directories.
It trained on tiny_runs.write_stories; its evaluations were keyed by study name and trial number,
and its run directories were stored as absolute paths.
"""

import json
import sqlite3
from pathlib import Path

import pytest
from commands import Commands
from tiny_runs import write_stories

from gpt.config import read_config
from sweep.analysis.results import evaluations_table, run_dir
from sweep.export.trial import export
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study

KEPT = Path(__file__).parents[1] / "helpers" / "version_0_1_0"


@pytest.fixture
def project(tmp_path: Path, cache: Path) -> Path:
    folder = tmp_path / "project"
    write_stories(folder / "text")
    for name, text in json.loads((KEPT / "files.json").read_text()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    connection = sqlite3.connect(folder / "runs" / "sweep.db")
    connection.executescript((KEPT / "sweep.sql").read_text())
    connection.close()
    return folder


@pytest.fixture
def squen(project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Commands:
    return Commands(monkeypatch, capsys, project)


def test_its_runs_and_evaluations_are_found_where_they_lie_now(project: Path):
    storage = open_storage(str(project / "runs" / "sweep.db"))
    study = load_study(storage, "tiny")
    assert run_dir(study, study.trials[0]) == project / "runs" / "tiny" / "0"
    table = evaluations_table(storage, "tiny")
    assert list(table["trial_number"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [trial.values[0] for trial in study.trials] == list(table["perplexity"][2::3])


def test_its_trials_are_exported_as_their_directories_have_them_on_the_moved_text(project: Path):
    study = load_study(open_storage(str(project / "runs" / "sweep.db")), "tiny")
    for number in range(3):
        exported, _ = export(study, number=number)
        stored = read_config(project / "runs" / "tiny" / str(number) / "config.json")
        text = stored.data.model_copy(update={"source": str(project / "text")})
        assert exported == stored.model_copy(update={"data": text})


def test_every_command_that_reads_is_right(squen: Commands, project: Path):
    shown = squen("status", "--study", "tiny").out
    assert "3/3 trials finished" in shown
    assert "no run directory" not in shown
    assert "3 of 3" in squen("studies").out
    assert squen("export", "--study", "tiny", "-o", "best.toml").code == 0
    assert str(project / "text") in (project / "best.toml").read_text()
    assert squen("report", "--study", "tiny").code == 0
    page = (project / "runs" / "tiny" / "report.html").read_text()
    assert "equivalent" in page  # the verdict that was recorded then
    assert "/home/somebody" not in page
    assert squen("plot", "curves", "--study", "tiny", "-o", "curves.json").code == 0
    done = squen("doctor")
    assert (done.code, "nothing is wrong" in done.out) == (0, True), done.out


@pytest.mark.slow
def test_it_is_judged_from_the_runs_it_has_and_goes_on(squen: Commands, project: Path):
    done = squen("verdict", "--study", "tiny", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [one["trial"] for one in record["confirmed"]] == [0, 1]
    study = load_study(open_storage(str(project / "runs" / "sweep.db")), "tiny.confirm")
    assert len(study.trials) == 4  # as they were: nothing was trained again
    assert not (project / "runs" / "tiny.confirm" / "0" / "checkpoints").exists()
    done = squen("run", "--study", "tiny.toml", "--trials", "4", "--device", "cpu", "--quiet")
    assert done.code == 0, done.err
    assert "4/4 trials finished" in squen("status", "--study", "tiny").out
