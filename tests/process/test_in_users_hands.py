"""A study after people have done with it what they do: copied, renamed, enqueued, moved."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from invariants import assert_sound, start_command, stored_trials, study_of
from optuna.trial import TrialState, create_trial
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.errors import InputError
from sweep.analysis.results import best_by_arm, evaluations_table, trials_table
from sweep.storage.rdb import load_study, open_storage
from sweep.storage.schema import trial_attrs


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


def squen(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in `folder`, as a user types it."""
    command = [sys.executable, "-m", "sweep", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_after_a_command_the_database_is_one_complete_file(text: Path, tmp_path: Path):
    tiny_study(tmp_path, text)
    output, _ = start_command(tmp_path, 2).communicate(timeout=300)
    assert sorted(p.name for p in tmp_path.glob("sweep.db*")) == ["sweep.db"], output
    shutil.copy(tmp_path / "sweep.db", tmp_path / "copy.db")
    study = load_study(open_storage(str(tmp_path / "copy.db")), "tiny")
    assert len(study.trials) == 2


def test_an_enqueued_trial_is_run_with_what_it_fixes_and_the_rest_drawn(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text)
    run_tiny(spec, tmp_path, trials=2)
    study = study_of(tmp_path)
    study.enqueue_trial({"learning_rate": 5e-3, "loss": "squentropy"})
    study.enqueue_trial({"learning_rate": 1e9})  # outside of its range
    study.enqueue_trial({})
    summary = run_tiny(spec, tmp_path, trials=6)
    trials = stored_trials(tmp_path)
    assert (summary.finished, len(trials)) == (6, 6)
    assert trials[2].params["learning_rate"] == 5e-3
    assert trials[2].params["loss"] == "squentropy"
    assert [trial_attrs(t).origin for t in trials[2:5]] == ["enqueued", None, "enqueued"]
    assert trials[3].state == TrialState.FAIL
    assert "learning_rate must be from" in (trial_attrs(trials[3]).reason or "")
    assert {t.state for t in trials if t.number != 3} == {TrialState.COMPLETE}


def test_a_trial_from_outside_counts_and_is_not_ranked(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text)
    run_tiny(spec, tmp_path, trials=2)
    study = study_of(tmp_path)
    before = best_by_arm(study)
    study.add_trial(create_trial(value=0.001))  # better than anything that trains
    asked = study.ask()
    assert best_by_arm(study_of(tmp_path)) == before
    assert list(trials_table(study)["arm"][2:]) == ["outside", "outside"]
    assert run_tiny(spec, tmp_path, trials=5).finished == 4
    assert stored_trials(tmp_path)[asked.number].state == TrialState.RUNNING  # left to its owner
    for words in (["status"], ["report"], ["export"]):
        done = squen(tmp_path, *words, "--study", "tiny", "--storage", "sweep.db")
        assert done.returncode == 0, done.stderr


def test_a_renamed_study_goes_on_under_its_new_name_with_its_runs(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text)
    run_tiny(spec, tmp_path, trials=2)
    with sqlite3.connect(tmp_path / "sweep.db") as connection:  # as the dashboard does
        connection.execute("UPDATE studies SET study_name = 'renamed'")
    connection.close()
    with pytest.raises(InputError, match="renamed or deleted"):
        run_tiny(spec, tmp_path, trials=3)
    assert run_tiny(spec.model_copy(update={"name": "renamed"}), tmp_path, trials=4).finished == 4
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["tiny"]
    study = load_study(open_storage(str(tmp_path / "sweep.db")), "renamed")
    steps = evaluations_table(open_storage(str(tmp_path / "sweep.db")), "renamed")
    assert set(steps["trial_number"]) == {0, 1, 2, 3}
    assert len(study.trials) == 4


def test_a_copy_shows_what_it_has_and_goes_on_as_the_original_only(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text)
    run_tiny(spec, tmp_path, trials=2)
    url = f"sqlite:///{tmp_path / 'sweep.db'}"
    optuna.copy_study(
        from_study_name="tiny", from_storage=url, to_storage=url, to_study_name="copy"
    )
    storage = open_storage(str(tmp_path / "sweep.db"))
    ours, theirs = (evaluations_table(storage, name)["perplexity"] for name in ("tiny", "copy"))
    assert list(ours) == list(theirs)
    with pytest.raises(InputError, match="it is a copy of 'tiny'"):
        run_tiny(spec.model_copy(update={"name": "copy"}), tmp_path, trials=3)
    assert run_tiny(spec, tmp_path, trials=3).finished == 3
    assert_sound(tmp_path, trials=3)


def test_a_project_that_is_moved_reports_exports_and_goes_on_there(text: Path, tmp_path: Path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.move(text, before / "text")
    tiny_study(before, before / "text")
    start_command(before, 2).communicate(timeout=300)
    shutil.move(before, after)
    for words in (["report"], ["export", "-o", "best.toml"]):
        done = squen(after, *words, "--study", "tiny", "--storage", "sweep.db")
        assert done.returncode == 0, done.stderr
    assert (after / "runs" / "tiny" / "report.html").is_file()
    done = squen(after, "sample", "runs/tiny/0", "--max-new-tokens", "5")
    assert done.returncode == 0, done.stderr
    spec = tiny_study(after, after / "text")
    assert run_tiny(spec, after, trials=3).finished == 3
