"""A study after people have done with it what they do: copied, renamed, enqueued, moved.

Every test takes a copy of a project that commands made, so each also reads one that was copied.
"""

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from commands import Commands
from forked import Forked
from invariants import assert_undisturbed, wait_until
from optuna.trial import TrialState, create_trial
from postgresql import free_port
from tiny_runs import write_stories
from tiny_studies import tiny_study

from gpt.config import read_config
from sweep.analysis.results import best_by_arm, evaluations_table, trials_table
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.storage.schema import study_attrs, trial_attrs

VERDICT = "\n[verdict]\ntop = 1\nseeds = 2\nmargin = 0.5\n"
TINY = ("--study", "tiny")
FILE = ("--study", "tiny.toml", "--device", "cpu", "--workers", "2", "--quiet")


def done(process: Forked) -> str:
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def make_project(folder: Path, **study: int) -> Path:
    """A folder with a text and a study file that names it by a relative path."""
    write_stories(folder / "text")
    tiny_study(folder, Path("text"), **study)
    with (folder / "tiny.toml").open("a") as file:
        file.write(VERDICT)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a sweep of three trials and its verdict."""
    folder = make_project(tmp_path_factory.mktemp("finished") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder.parent / "cache"))
        done(Forked(folder, "run", *FILE, "--trials", "3"))
        done(Forked(folder, "verdict", *TINY, "--quiet"))
        yield folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


@pytest.fixture
def squen(project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Commands:
    return Commands(monkeypatch, capsys, project)


def study_of(project: Path, name: str = "tiny") -> optuna.Study:
    return load_study(open_storage(str(project / "runs" / "sweep.db")), name)


def files_of_the_database(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "runs").glob("sweep.db*"))


def rename(project: Path, **names: str) -> None:
    """Rename studies as the dashboard does."""
    with sqlite3.connect(project / "runs" / "sweep.db") as connection:
        for old, new in names.items():
            update = "UPDATE studies SET study_name = ? WHERE study_name = ?"
            connection.execute(update, (new, old.replace("__", ".")))
    connection.close()


# --- the database is one file ----------------------------------------------------------------


def test_after_a_sweep_and_its_verdict_the_database_is_one_complete_file(finished: Path, tmp_path):
    assert files_of_the_database(finished) == ["sweep.db"]
    shutil.copy(finished / "runs" / "sweep.db", tmp_path / "copy.db")
    copied = load_study(open_storage(str(tmp_path / "copy.db")), "tiny")
    assert len(copied.trials) == 3
    assert study_attrs(copied).verdict is not None


def test_every_command_leaves_one_file_also_when_it_is_refused(squen: Commands, project: Path):
    for words in (
        ("studies",),
        ("status", *TINY),
        ("report", *TINY),
        ("plot", "curves", *TINY),
        ("export", *TINY),
        ("doctor",),
        ("verdict", *TINY, "--quiet"),
        ("run", *FILE, "--trials", "3"),
        ("verdict", *TINY, "--arms", "cross_entropy,mse"),
        ("export", *TINY, "--trial", "99"),
        ("run", *FILE, "--trials", "3", "--data", "built-in"),
        ("status", "--study", "other"),
    ):
        outcome = squen(*words)
        assert outcome.is_right, (words, outcome)
        assert files_of_the_database(project) == ["sweep.db"], words


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["run", "verdict", "report", "dashboard"])
def test_a_command_that_is_stopped_leaves_one_file(command: str, number: int, project: Path):
    log = project / "runs" / "sweep.db-wal"
    words, is_busy = {
        "run": ((*FILE, "--trials", "30"), (project / "runs/tiny/3/events.jsonl").exists),
        "verdict": (
            (*TINY, "--seeds", "20", "--quiet"),
            (project / "runs/tiny.confirm/4/events.jsonl").exists,
        ),
        "report": (TINY, log.exists),
        "dashboard": (("--port", str(free_port())), log.exists),
    }[command]
    process = Forked(project, command, *words)
    wait_until(lambda: is_busy() or process.poll() is not None)
    if command == "dashboard":
        wait_until(lambda: "Ctrl-C ends it" in process.printed())
    process.send_signal(number)
    output, _ = process.communicate()
    by_itself = command == "report" or (command, number) == ("dashboard", signal.SIGINT)
    assert process.returncode in {128 + number, *([0] if by_itself else [])}, output
    assert files_of_the_database(project) == ["sweep.db"], output


def test_doctor_names_a_log_that_a_killed_command_left(squen: Commands, project: Path):
    process = Forked(project, "run", *FILE, "--trials", "30")
    log = project / "runs" / "sweep.db-wal"
    wait_until((project / "runs/tiny/3/events.jsonl").exists)
    running = squen("doctor")
    assert running.code == 0, running
    assert "sweep.db-wal are not in the database file" in running.out
    process.kill()
    process.communicate()
    wait_until(log.exists)
    killed = squen("doctor")
    assert killed.code == 65
    assert "sweep.db-wal are not in the database file, since a command was killed" in killed.out
    assert done(Forked(project, "run", *FILE, "--trials", "5")) == ""
    assert files_of_the_database(project) == ["sweep.db"]
    assert squen("doctor").code == 0


# --- Optuna's own operations -----------------------------------------------------------------


def test_an_enqueued_trial_is_run_with_what_it_fixes_and_the_rest_drawn(
    squen: Commands, project: Path
):
    study = study_of(project)
    study.enqueue_trial({"learning_rate": 5e-3, "loss": "squentropy"})
    study.enqueue_trial({"learning_rate": 1e9})  # outside of its range
    study.enqueue_trial({})
    assert squen("run", *FILE, "--trials", "7").code == 0
    trials = study_of(project).trials
    assert len(trials) == 7
    assert trials[3].params["learning_rate"] == 5e-3
    assert trials[3].params["loss"] == "squentropy"
    assert [trial_attrs(t).origin for t in trials[3:6]] == ["enqueued", None, "enqueued"]
    assert trials[4].state == TrialState.FAIL
    assert "learning_rate must be from" in (trial_attrs(trials[4]).reason or "")
    assert {t.state for t in trials if t.number != 4} == {TrialState.COMPLETE}


def test_a_trial_from_outside_counts_is_shown_as_such_and_is_not_ranked(
    squen: Commands, project: Path
):
    study = study_of(project)
    before = best_by_arm(study)
    study.add_trial(create_trial(value=0.001))  # better than anything that trains
    asked = study.ask()
    assert best_by_arm(study_of(project)) == before
    assert list(trials_table(study)["arm"][3:]) == ["outside", "outside"]
    assert squen("run", *FILE, "--trials", "6").code == 0
    trials = study_of(project).trials
    assert (len(trials), trials[asked.number].state) == (6, TrialState.RUNNING)  # its owner's
    shown = json.loads(squen("status", *TINY, "--json").out)
    assert [trial["arm"] for trial in shown["trials"][3:5]] == ["outside", "outside"]
    assert squen("status", *TINY).out.count("outside") >= 2
    assert squen("report", *TINY).code == 0
    assert "outside" in (project / "runs" / "tiny" / "report.html").read_text()
    assert "trial 3 " not in squen("export", *TINY).out.splitlines()[0]
    refused = squen("export", *TINY, "--trial", "3")
    assert (refused.code, refused.is_right) == (2, True)
    assert squen("verdict", *TINY, "--quiet").code == 0
    assert squen("doctor").code == 0


def test_a_renamed_study_and_its_phases_go_on_under_their_new_names(squen: Commands, project: Path):
    directories = sorted((project / "runs").glob("*/[0-9]*"))
    record = study_attrs(study_of(project)).verdict
    rename(project, tiny="renamed", tiny__confirm="fresh")
    refused = squen("run", *FILE, "--trials", "4")
    assert refused.code == 2
    assert "renamed or deleted" in refused.err
    for words in (["status"], ["report"], ["export"], ["verdict", "--quiet"]):
        outcome = squen(*words, "--study", "renamed")
        assert outcome.code == 0, (words, outcome)
    assert sorted((project / "runs").glob("*/[0-9]*")) == directories  # nothing trained again
    again = study_attrs(study_of(project, "renamed")).verdict
    assert (again or {})["confirmed"] == (record or {})["confirmed"]
    refused = squen("verdict", "--study", "fresh")
    assert "pass --study renamed" in refused.err
    assert squen("run", *FILE, "--as", "renamed", "--trials", "4").code == 0
    assert (project / "runs" / "tiny" / "3" / "config.json").exists()
    steps = evaluations_table(open_storage(str(project / "runs" / "sweep.db")), "renamed")
    assert set(steps["trial_number"]) == {0, 1, 2, 3}
    assert squen("doctor").code == 0


@pytest.mark.parametrize("same_file", [True, False])
def test_a_copied_study_shows_what_it_has_and_loses_nothing(
    same_file: bool, squen: Commands, project: Path
):
    url = f"sqlite:///{project / 'runs' / 'sweep.db'}"
    to = url if same_file else f"sqlite:///{project / 'other.db'}"
    name = "copy" if same_file else "tiny"
    optuna.copy_study(from_study_name="tiny", from_storage=url, to_storage=to, to_study_name=name)
    options = ("--study", name, "--storage", to)
    for words in (["status"], ["report"], ["export"], ["plot", "curves"], ["verdict", "--quiet"]):
        outcome = squen(*words, *options)
        assert outcome.is_right, (words, outcome)
        assert words[0] in ("verdict",) or outcome.code == 0, (words, outcome)
    theirs = evaluations_table(open_storage(to), name)["perplexity"]
    ours = evaluations_table(open_storage(url), "tiny")["perplexity"]
    assert list(theirs) == list(ours)
    renamed = ("--as", "copy") if same_file else ()
    outcome = squen("run", *FILE, *renamed, "--storage", to, "--trials", "4")
    assert outcome.is_right, outcome
    if same_file:
        assert "it is a copy of 'tiny'" in outcome.err
    assert squen("run", *FILE, "--trials", "5").is_right
    assert [t.state for t in study_of(project).trials[:3]] == [TrialState.COMPLETE] * 3


def test_a_study_that_is_deleted_and_made_again_has_a_verdict_of_its_own(
    squen: Commands, project: Path
):
    storage = open_storage(str(project / "runs" / "sweep.db"))
    optuna.delete_study(study_name="tiny", storage=storage)
    refused = squen("run", *FILE, "--trials", "2")
    assert (refused.code, refused.is_right) == (2, True)  # the runs are those of the deleted one
    again = ("--runs", "again")
    assert squen("run", *FILE, *again, "--trials", "2").code == 0
    assert squen("status", *TINY).code == 0
    assert study_attrs(study_of(project)).verdict is None
    assert squen("verdict", *TINY, *again, "--quiet").code == 0
    names = optuna.get_all_study_names(open_storage(str(project / "runs" / "sweep.db")))
    assert len([name for name in names if name.endswith(".confirm")]) == 2
    assert len(study_of(project, "tiny.confirm").trials) == 4  # as it was
    assert squen("report", *TINY).code == 0


# --- the file manager's operations -----------------------------------------------------------


def test_without_a_run_directory_all_but_its_weights_is_there(squen: Commands, project: Path):
    _, (winner, _) = sorted(best_by_arm(study_of(project)).items())[0]
    before = squen("export", *TINY, "--trial", str(winner)).out
    record = study_attrs(study_of(project)).verdict or {}
    shutil.rmtree(project / "runs" / "tiny" / str(winner))
    shutil.rmtree(project / "runs" / "tiny.confirm" / "0")
    assert squen("export", *TINY, "--trial", str(winner)).out == before
    best = next(line for line in squen("status", *TINY).out.splitlines() if "best:" in line)
    assert f"trial {winner}" in best
    assert json.loads(squen("status", *TINY, "--json").out)["missing_runs"] == [winner]
    assert squen("report", *TINY).code == 0
    page = (project / "runs" / "tiny" / "report.html").read_text()
    assert f"run directories of trial {winner}:" in page
    assert f"stories of {Path('runs/tiny.confirm/0')}:" in page
    sample = squen("sample", f"runs/tiny/{winner}")
    assert sample.code == 2
    assert "squen-sweep export --trial" in sample.err
    judged = squen("verdict", *TINY, "--json")
    assert judged.code == 0
    assert json.loads(judged.out)["confirmed"] == record["confirmed"]
    assert "runs/tiny.confirm/0 left no stories" in judged.err
    found = squen("doctor")
    assert found.code == 65
    assert f"trial {winner} has no run directory" in found.out
    assert squen("run", *FILE, "--trials", "4").code == 0
    assert [t.state for t in study_of(project).trials] == [TrialState.COMPLETE] * 4


def test_without_any_run_directory_a_sweep_is_read_and_judged(squen: Commands, project: Path):
    shutil.rmtree(project / "runs" / "tiny")
    for words in (["status"], ["export"], ["report"], ["verdict", "--quiet"]):
        outcome = squen(*words, *TINY)
        assert outcome.code == 0, (words, outcome)
    refused = squen("run", *FILE, "--trials", "4")
    assert (refused.code, refused.is_right) == (2, True)
    assert "bring the folder back" in refused.err


def test_a_truncated_log_of_events_loses_no_result(squen: Commands, project: Path):
    before = best_by_arm(study_of(project))
    for log in project.glob("runs/*/[0-9]*/events.jsonl"):
        log.write_bytes(log.read_bytes()[:100])
    for words in (["status"], ["report"], ["export"], ["verdict", "--quiet"]):
        assert squen(*words, *TINY).code == 0
    assert squen("run", *FILE, "--trials", "4").code == 0
    assert (
        best_by_arm(study_of(project)).items() <= (before | best_by_arm(study_of(project))).items()
    )
    assert [t.state for t in study_of(project).trials] == [TrialState.COMPLETE] * 4


def test_a_project_that_was_moved_does_everything_from_its_own_files(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("SQUEN_SWEEP_CACHE", str(tmp_path / "cache"))  # of another machine
    first = shutil.copytree(finished, tmp_path / "first")
    shutil.move(first, tmp_path / "other machine")
    project = tmp_path / "other machine"
    squen = Commands(monkeypatch, capsys, project)
    directories = sorted(path.relative_to(project) for path in project.glob("runs/*/[0-9]*"))
    assert squen("export", *TINY, "-o", "best.toml").code == 0
    assert str(project / "text") in (project / "best.toml").read_text()
    assert squen("export", *TINY, "-o", "best.py").code == 0  # prepares the text
    assert squen("sample", "runs/tiny/0", "--max-new-tokens", "5").code == 0
    assert squen("verdict", *TINY, "--quiet").code == 0
    assert squen("report", *TINY).code == 0
    assert str(finished) not in (project / "runs" / "tiny" / "report.html").read_text()
    assert sorted(p.relative_to(project) for p in project.glob("runs/*/[0-9]*")) == directories
    assert squen("doctor").code == 0
    assert squen("run", *FILE, "--trials", "4").code == 0
    moved = read_config(project / "runs" / "tiny" / "3" / "config.json")
    assert moved.data.source == str(project / "text")
    assert squen("train", "best.toml", "--steps", "3").code == 0


@pytest.mark.slow
def test_trials_that_were_interrupted_go_on_after_a_move(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    before = make_project(tmp_path / "before", max_steps=400, eval_interval=20)
    process = Forked(before, "run", *FILE, "--trials", "2")
    events = before / "runs" / "tiny" / "1" / "events.jsonl"
    wait_until(lambda: events.exists() and events.read_text().count('"evaluation"') > 1)
    process.send_signal(signal.SIGINT)
    assert "continue" in process.communicate()[0]
    after = Path(shutil.move(before, tmp_path / "after"))
    squen = Commands(monkeypatch, capsys, after)
    assert squen("run", *FILE, "--trials", "2").code == 0
    for number in (0, 1):
        run_dir = after / "runs" / "tiny" / str(number)
        assert read_config(run_dir / "config.json").data.source == str(after / "text")
        assert (run_dir / "events.jsonl").read_text().count('"event": "start"') == 2
    (after / "sweep.db").symlink_to(after / "runs" / "sweep.db")
    assert_undisturbed(after)
