"""What a study's storage keeps, in a SQLite file and in a PostgreSQL server alike."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import Trial, TrialState, create_trial
from stored_studies import evaluation

from sweep.analysis.results import evaluations_table
from sweep.search.known_trials import in_memory, known_trials, report_evaluation
from sweep.storage.rdb import close_all, open_storage
from sweep.storage.schema import set_trial_attrs
from sweep.storage.tables import record_evaluation

SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield str(tmp_path / "sweep.db")
    else:
        server = request.getfixturevalue("postgresql")
        name = f"d{uuid4().hex}"
        server.execute("postgres", f"CREATE DATABASE {name}")
        yield server.url(name)
    close_all()


@pytest.fixture
def study(url: str) -> optuna.Study:
    """A study as its one writer has it."""
    storage = open_storage(url, create=True)
    return in_memory(optuna.create_study(storage=storage, study_name="one"), storage)


@pytest.fixture
def others(url: str, study: optuna.Study) -> optuna.Study:
    """The same study as another program has it."""
    return optuna.load_study(study_name="one", storage=open_storage(url))


def add(study: optuna.Study, x: float, arm: str | None = "all") -> Trial:
    """A trial that trains; without an arm it is another program's."""
    attributes = {} if arm is None else {"arm": arm}
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params={"x": x},
            distributions=SPACE,
            user_attrs=attributes,
        )
    )
    return Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)


def test_the_trials_in_memory_are_those_that_are_stored(study, others):
    trials = [add(study, number / 10) for number in range(4)]
    for trial, value in zip(trials, (1.5, math.inf, math.nan, 3.0), strict=True):
        trial.report(value, 10)
        report_evaluation(study, trial._trial_id, evaluation(20, 2.0), value)
    set_trial_attrs(trials[0], n_params=7, threads=2)
    study._storage.set_trial_system_attr(trials[1]._trial_id, "rung", 1)
    set_trial_attrs(trials[2], outcome="complete")
    study.tell(trials[2], 0.25)
    study.tell(trials[1], state=TrialState.PRUNED)
    study._storage.set_trial_state_values(trials[3]._trial_id, TrialState.WAITING)
    assert repr(known_trials(study)) == repr(others.get_trials())  # NaN is not equal to itself
    assert repr(study.get_trials()) == repr(others.get_trials())


def test_what_other_programs_add_and_change_is_read(study, others):
    add(study, 0.1)
    others.enqueue_trial({"x": 0.5})
    theirs = add(others, 0.9, arm=None)
    states = [TrialState.RUNNING, TrialState.WAITING, TrialState.RUNNING]
    assert [trial.state for trial in study.get_trials()] == states
    theirs.report(2.0, 1)
    assert study.get_trials()[2].intermediate_values == {1: 2.0}
    others.tell(theirs, 2.0)
    add(others, 0.3, arm=None)
    found = study.get_trials()
    assert (found[2].state, found[2].value, len(found)) == (TrialState.COMPLETE, 2.0, 4)
    assert found == others.get_trials()


def test_an_enqueued_trial_that_got_an_arm_is_kept_and_put_back(study, others):
    others.enqueue_trial({"x": 0.5})
    (waiting,) = study.get_trials(states=(TrialState.WAITING,))
    storage = study._storage
    storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
    trial = Trial(study, waiting._trial_id)
    storage.set_trial_param(trial._trial_id, "x", 0.5, SPACE["x"])
    set_trial_attrs(trial, arm="all")
    study.get_trials()
    trial.report(1.0, 10)
    assert known_trials(study) == others.get_trials()
    storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    assert known_trials(study) == others.get_trials()
    assert known_trials(study)[0].intermediate_values == {10: 1.0}


def test_the_writer_does_not_read_what_it_knows(study):
    trial = add(study, 0.1)
    said: list[str] = []
    engine = study._storage._backend.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *words: said.append(words[2]))
    trial.report(1.0, 10)
    said.clear()
    assert known_trials(study)[0].intermediate_values == {10: 1.0}
    assert study._storage.get_trial(trial._trial_id).intermediate_values == {10: 1.0}
    assert said == []
    study.get_trials(deepcopy=False)  # asks whether there are new ones
    assert not any("trial_intermediate_values" in words for words in said)


def test_whoever_has_the_trials_sees_them_as_they_were(study):
    trial = add(study, 0.1)
    before = known_trials(study)
    trial.report(1.0, 10)
    study._storage.set_trial_system_attr(trial._trial_id, "rung", 1)
    assert (before[0].intermediate_values, before[0].system_attrs) == ({}, {})
    assert known_trials(study)[0].system_attrs == {"rung": 1}


def test_an_evaluation_is_kept_once_with_all_its_figures(url, study):
    storage = open_storage(url)
    trial = add(study, 0.1)
    first = replace(evaluation(10, 3.0), grad_norm=math.inf, train_loss=math.nan)
    for one in (first, evaluation(10, 4.0), evaluation(20, 2.5)):
        record_evaluation(storage, trial._trial_id, one, one.perplexity)
    assert storage.get_trial(trial._trial_id).intermediate_values == {10: 3.0, 20: 2.5}
    table = evaluations_table(storage, "one")
    assert table["step"].tolist() == [10, 20]
    assert table["perplexity"].tolist() == [3.0, 2.5]
    assert (table["grad_norm"][0], math.isnan(table["train_loss"][0])) == (math.inf, True)
