"""Every command that reads, on studies that Optuna alone made: right figures, or one clear line."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from commands import Commands
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from stored_studies import StoredStudy, empty_database

from sweep.analysis import results

SPACE = {
    "x": FloatDistribution(-10.0, 10.0),
    "units": IntDistribution(1, 10**25),
    "state": CategoricalDistribution([None, "on", 3]),  # a name that tables of ours use too
}
PARAMS = {"x": 0.5, "units": 10**24, "state": None}


def add(study: optuna.Study, values: list[float] | None, state: TrialState = TrialState.COMPLETE):
    study.add_trial(
        create_trial(
            state=state,
            values=values,
            params=PARAMS,
            distributions=SPACE,
            intermediate_values={1: math.nan, 2: math.inf} if len(study.directions) == 1 else {},
        )
    )


def maximized(study: optuna.Study) -> None:
    for value in (0.25, 0.875, 0.5):
        add(study, [value])


def minimized(study: optuna.Study) -> None:
    for value in (-3.0, -8.5, math.inf):
        add(study, [value])


def two_goals(study: optuna.Study) -> None:
    for values in ([1.0, 1.0], [2.0, 5.0], [2.0, 4.0], [3.0, 0.5]):  # minimized, maximized
        add(study, values)


def infinite(study: optuna.Study) -> None:
    add(study, [-math.inf])
    add(study, [7.0])


def unfinished(study: optuna.Study) -> None:
    for state in (TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL, TrialState.PRUNED):
        add(study, None, state)


def borrowed(study: optuna.Study) -> None:
    """Attributes that are called as ours, with other meanings."""
    for name, value in {
        "spec": "v2",
        "data": "mnist",
        "device": 0,
        "n_trials": "many",
        "runs": ["a"],
        "of": 1,
        "verdict": "good",
    }.items():
        study.set_user_attr(name, value)
    attributes = {"arm": "left", "outcome": ["?"], "reason": {}, "run_dir": "/x", "n_params": 5}
    study.add_trial(create_trial(value=1.5, user_attrs=attributes))


def constrained(study: optuna.Study) -> None:
    add(study, [4.0])
    study.add_trial(create_trial(value=1.0, system_attrs={"constraints": [2.0]}))  # not allowed


KINDS: dict[str, tuple[list[str], Callable[[optuna.Study], None], str]] = {
    # the best trial that `status` names; "" where there is none
    "maximized": (["maximize"], maximized, "best (maximize): 0.875 (trial 1)"),
    "minimized": (["minimize"], minimized, "best (minimize): -8.5 (trial 1)"),
    "two_goals": (["minimize", "maximize"], two_goals, "best (minimize, maximize): trials 0, 1"),
    "infinite": (["minimize"], infinite, "best (minimize): 7 (trial 1)"),
    "unfinished": (["minimize"], unfinished, ""),
    "empty": (["minimize"], lambda study: None, ""),
    "borrowed": (["minimize"], borrowed, "best (minimize): 1.5 (trial 0)"),
    "constrained": (["minimize"], constrained, "best (minimize): 4 (trial 0)"),
    "[red]../odd\nname": (["maximize"], maximized, "best (maximize): 0.875 (trial 1)"),
}
COUNTS = {"maximized": 3, "minimized": 3, "two_goals": 4, "infinite": 2, "unfinished": 4}
COUNTS |= {"empty": 0, "borrowed": 1, "constrained": 2, "[red]../odd\nname": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A storage with a study of each kind, and one of ours."""
    folder = tmp_path_factory.mktemp("foreign")
    stored = StoredStudy(folder)
    stored.add("cross_entropy", [60.0])
    for name, (directions, fill, _) in KINDS.items():
        fill(optuna.create_study(storage=stored.storage, study_name=name, directions=directions))
    stored.storage.engine.dispose()
    return folder


@pytest.fixture
def squen(monkeypatch, capsys, folder: Path) -> Commands:
    return Commands(monkeypatch, capsys, folder)


def before(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.db")}


@pytest.mark.parametrize("name", KINDS)
def test_status_shows_the_trials_and_never_calls_the_worst_the_best(squen: Commands, name: str):
    done = squen("status", "--study", name, "--storage", "sweep.db")
    assert (done.code, done.err) == (0, "")
    assert "another program" in done.out
    assert f"{COUNTS[name]} trials finished" in done.out or name in ("unfinished", "empty")
    best = [line for line in done.out.splitlines() if line.startswith("best")]
    expected = KINDS[name][2]
    assert [line[: len(expected)] for line in best] == ([expected] if expected else [])


@pytest.mark.parametrize("name", KINDS)
def test_status_as_json_is_json_with_the_best_trials(squen: Commands, name: str):
    done = squen("status", "--study", name, "--storage", "sweep.db", "--json")
    found = json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["study"] == name
    assert len(found["trials"]) == COUNTS[name]
    assert found["directions"] == KINDS[name][0]
    assert [best["trial"] for best in found["best"]] == {
        "maximized": [1],
        "minimized": [1],
        "two_goals": [0, 1],
        "infinite": [1],
        "unfinished": [],
        "empty": [],
        "borrowed": [0],
        "constrained": [0],
    }.get(name, [1])


@pytest.mark.parametrize("width", ["60", "200"])
def test_status_in_a_terminal_has_a_column_for_each_value_and_parameter(
    squen: Commands, monkeypatch, width: str
):
    monkeypatch.setenv("COLUMNS", width)
    done = squen("status", "--study", "two_goals", "--storage", "sweep.db")
    for header in ("value 0", "value 1", "x", "units", "state"):
        assert header.split()[0] in done.out
    assert "None" in done.out  # a choice, not a missing parameter


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "words",
    [
        ["report"],
        ["plot", "curves"],
        ["plot", "--list"],
        ["export"],
        ["export", "--trial", "0", "-o", "x.toml"],
        ["verdict"],
    ],
    ids=" ".join,
)
def test_what_needs_a_study_of_ours_says_so_in_one_line_and_writes_nothing(
    squen: Commands, words: list[str], name: str
):
    files, stored = sorted(squen.folder.iterdir()), before(squen.folder)
    done = squen(*words, "--study", name, "--storage", "sweep.db")
    assert (done.code, done.out) == (2, "")
    assert done.is_right
    assert "another program" in done.err
    assert sorted(squen.folder.iterdir()) == files
    assert before(squen.folder) == stored


def test_studies_lists_every_study_with_its_trials(squen: Commands):
    done = squen("studies", "--storage", "sweep.db")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("made by another program") == len(KINDS)
    assert "3 of 3" in done.out
    assert "0 of 4" in done.out or "2 of 4" in done.out


def test_doctor_checks_what_is_ours_and_leaves_the_rest(squen: Commands):
    done = squen("doctor", "--storage", "sweep.db", "--runs", str(squen.folder))
    assert done.out.count("of another program, not checked") == len(KINDS)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("name", KINDS)
def test_a_study_of_another_program_is_a_table_of_its_values(folder: Path, name: str):
    storage = RDBStorage(f"sqlite:///{folder / 'sweep.db'}")
    study = optuna.load_study(study_name=name, storage=storage)
    table = results.trials_table(study)
    assert len(table) == COUNTS[name]
    if name == "maximized":
        assert table["perplexity"].tolist() == [0.25, 0.875, 0.5]
        assert table["cross_entropy"].isna().all()
        assert table["params_state"].isna().all()
        assert table["units"].tolist() == [int(1e24)] * 3  # a float in Optuna's own table
        assert results.best_trial(study).number == 1
    storage.engine.dispose()


def test_a_study_with_another_goal_is_not_taken_over(squen: Commands, tmp_path: Path):
    path = tmp_path / "taken.db"
    path.write_bytes(empty_database())
    storage = RDBStorage(f"sqlite:///{path}")
    optuna.create_study(storage=storage, study_name="smoke", directions=["maximize"])
    storage.engine.dispose()
    done = squen("run", "--study", "smoke", "--storage", str(path), "--runs", str(tmp_path))
    assert done.code == 2
    assert done.is_right
    assert "maximize" in done.err
