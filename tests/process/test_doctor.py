"""squen-sweep doctor: findings in a damaged sweep, and that it changes nothing."""

import shutil
from pathlib import Path

import optuna
import pytest
from invariants import assert_sound
from optuna.trial import TrialState
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.errors import DataError, InputError
from sweep.storage.lock import only_tuner
from sweep.storage.rdb import open_storage
from sweep.tuner.doctor import examine


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two complete trials; tests take copies."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        run_tiny(tiny_study(folder, write_stories(folder / "text")), folder, trials=2)
    return folder


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sweep"
    shutil.copytree(finished, folder)
    return folder


def doctor(folder: Path) -> tuple[int, str]:
    """The number of findings, and everything that was shown."""
    lines: list[str] = []
    found = examine(str(folder / "sweep.db"), folder / "runs", lines.append)
    return found, "\n".join(lines)


def content(folder: Path) -> dict[Path, bytes]:
    """Every file, without SQLite's own beside the database."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("sweep.db-"))
    return {path: path.read_bytes() for path in files if path.name != ".driver.lock"}


def damage(folder: Path) -> None:
    """One of everything that can be wrong but a lost run."""
    storage = open_storage(str(folder / "sweep.db"), create=True)
    study = optuna.load_study(study_name="tiny", storage=storage)
    study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"arm": "x"}))
    storage.remove_session()
    storage.engine.dispose()  # nothing of it is left in the log that SQLite keeps beside it
    runs = folder / "runs" / "tiny"
    shutil.copytree(runs / "1", runs / "7")
    (weights,) = (runs / "0").glob("checkpoints/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (runs / "1" / "checkpoints" / ".step-000008.4711").mkdir()
    (runs / "1" / ".config.json.4711").write_text("{")


def test_doctor_finds_nothing_in_a_sound_study(sweep: Path):
    found, shown = doctor(sweep)
    assert found == 0
    assert "study tiny: 2 trials, 0 findings" in shown
    assert f"storage: {sweep / 'sweep.db'}" in shown
    assert "optuna 5." in shown
    assert " free in " in shown


def test_doctor_lists_what_is_wrong_and_changes_nothing(sweep: Path):
    damage(sweep)
    before = content(sweep)
    found, shown = doctor(sweep)
    assert found == 5
    assert "trial 2 is RUNNING, but no process trains it; run the study again" in shown
    assert "tiny/7 belongs to no trial" in shown
    assert "is damaged: model.safetensors is damaged (its SHA-256 differs)" in shown
    assert shown.count("was left half-written") == 2
    assert content(sweep) == before


def test_doctor_names_a_trial_whose_run_directory_is_gone(sweep: Path):
    shutil.rmtree(sweep / "runs" / "tiny" / "1")
    found, shown = doctor(sweep)
    assert found == 1
    assert "trial 1 has no run directory" in shown


def test_doctor_skips_a_study_that_is_running(sweep: Path):
    damage(sweep)
    with only_tuner(sweep / "runs" / "tiny", "tiny"):
        found, shown = doctor(sweep)
    assert found == 0
    assert "study tiny: 3 trials; skipped" in shown


def test_doctor_says_how_to_rescue_a_truncated_database(sweep: Path):
    path = sweep / "sweep.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"sqlite3 .*\.recover.* rescued.db"):
        doctor(sweep)
    assert path.read_bytes() == before


def test_doctor_of_nothing_creates_nothing(tmp_path: Path):
    with pytest.raises(InputError, match="must exist"):
        doctor(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_database_put_back_from_a_copy_takes_over_no_other_trials_run(
    finished: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SQUEN_SWEEP_CACHE", str(finished / "cache"))
    runs = sweep / "runs" / "tiny"
    shutil.copytree(runs / "1", runs / "2")  # as if a third trial had been lost from the database
    spec = tiny_study(sweep, finished / "text")
    with pytest.raises(DataError, match=r"tiny/2 must be the run of trial 2, but .*loss"):
        run_tiny(spec, sweep, trials=3)
    assert doctor(sweep)[0] == 0
    shutil.rmtree(runs / "2")
    run_tiny(spec, sweep, trials=3)
    assert_sound(sweep, trials=3)
