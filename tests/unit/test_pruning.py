"""Which trials are stopped: hopeless ones of their own arm, after the warm-up, never a baseline."""

from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from sweep.search.pruners import may_stop_at, should_prune
from sweep.study.spec import PrunerSpec, StudySpec
from sweep.study.toml_file import read_study_file

STEPS = (10, 20, 30, 40)  # of 40; the warm-up of a fourth ends at 10


@pytest.fixture(scope="session")
def spec() -> StudySpec:
    study = read_study_file(str(Path(__file__).parents[1] / "helpers" / "mine.toml"), "cpu")
    return with_pruner(study, warmup_fraction=0.25, startup_trials=3)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def with_pruner(spec: StudySpec, kind: str = "median", **keys: float) -> StudySpec:
    return spec.model_copy(update={"pruner": PrunerSpec.model_validate({"kind": kind} | keys)})


def add(
    study: optuna.Study,
    curve: list[float],
    arm: str = "squentropy",
    origin: str = "sobol",
    state: TrialState = TrialState.RUNNING,
) -> int:
    """A trial that reported these perplexities on the grid; its number."""
    study.add_trial(
        create_trial(
            state=state,
            value=curve[-1] if state == TrialState.COMPLETE else None,
            intermediate_values=dict(zip(STEPS, curve, strict=False)),
            user_attrs={"arm": arm, "origin": origin},
        )
    )
    return len(study.trials) - 1


def add_complete(study: optuna.Study, level: float, arm: str = "squentropy") -> None:
    """Three complete trials around a level, whose median it is at every step."""
    for offset in (-1.0, 0.0, 1.0):
        add(study, [level + offset] * 4, arm, state=TrialState.COMPLETE)


def test_hopeless_trial_is_pruned(study: optuna.Study, spec: StudySpec) -> None:
    add_complete(study, 50.0)

    assert should_prune(study, spec, add(study, [90.0, 80.0]))


def test_trial_better_than_the_median_goes_on(study: optuna.Study, spec: StudySpec) -> None:
    add_complete(study, 50.0)

    assert not should_prune(study, spec, add(study, [90.0, 49.9]))


def test_best_perplexity_so_far_counts_not_the_last(study: optuna.Study, spec: StudySpec) -> None:
    add_complete(study, 50.0)

    assert not should_prune(study, spec, add(study, [45.0, 80.0]))


def test_arm_in_which_every_value_is_worse_than_the_others_is_not_pruned(
    study: optuna.Study, spec: StudySpec
) -> None:
    add_complete(study, 10.0, arm="cross_entropy")
    first = [add(study, [500.0] * n, arm="squentropy") for n in (2, 3)]
    add_complete(study, 500.0, arm="squentropy")
    later = add(study, [499.0, 499.0], arm="squentropy")

    assert not any(should_prune(study, spec, number) for number in (*first, later))


def test_better_arm_does_not_shield_its_own_hopeless_trial(
    study: optuna.Study, spec: StudySpec
) -> None:
    add_complete(study, 10.0, arm="cross_entropy")
    add_complete(study, 500.0, arm="squentropy")

    assert should_prune(study, spec, add(study, [20.0, 20.0], arm="cross_entropy"))


def test_no_trial_is_pruned_in_the_warm_up(study: optuna.Study, spec: StudySpec) -> None:
    add_complete(study, 50.0)
    longer = with_pruner(spec, warmup_fraction=0.5, startup_trials=3)  # to step 20 of 40

    assert not should_prune(study, longer, add(study, [90.0]))
    assert should_prune(study, longer, add(study, [90.0, 90.0]))


def test_no_trial_is_pruned_before_enough_are_complete_in_its_arm(
    study: optuna.Study, spec: StudySpec
) -> None:
    add_complete(study, 10.0, arm="cross_entropy")
    add(study, [50.0] * 4, state=TrialState.COMPLETE)
    add(study, [50.0] * 4, state=TrialState.COMPLETE)
    hopeless = add(study, [90.0, 90.0])

    assert not should_prune(study, spec, hopeless)
    add(study, [50.0] * 4, state=TrialState.COMPLETE)
    assert should_prune(study, spec, hopeless)


def test_trial_without_a_report_is_not_pruned(study: optuna.Study, spec: StudySpec) -> None:
    add_complete(study, 50.0)

    assert not should_prune(study, spec, add(study, []))


def test_baseline_is_never_pruned(study: optuna.Study, spec: StudySpec) -> None:
    add_complete(study, 50.0)

    assert not should_prune(study, spec, add(study, [90.0, 90.0], origin="baseline:base"))


def test_trial_at_its_last_step_is_complete_not_pruned(
    study: optuna.Study, spec: StudySpec
) -> None:
    add_complete(study, 50.0)

    assert should_prune(study, spec, add(study, [90.0] * 3))
    assert not should_prune(study, spec, add(study, [90.0] * 4))


def test_pruner_none_prunes_nothing(study: optuna.Study, spec: StudySpec) -> None:
    add_complete(study, 50.0)

    assert not should_prune(study, with_pruner(spec, kind="none"), add(study, [90.0, 90.0]))


def test_steps_of_the_warm_up_and_the_last_are_worth_no_look(spec: StudySpec) -> None:
    longer = with_pruner(spec, warmup_fraction=0.5)  # to step 20 of 40

    assert [step for step in STEPS if may_stop_at(longer, step)] == [20, 30]
    assert not any(may_stop_at(with_pruner(spec, kind="none"), step) for step in STEPS)


curves = st.lists(st.floats(1.0, 1e4), min_size=4, max_size=4)


@settings(max_examples=50)
@given(
    complete=st.lists(curves, min_size=3, max_size=7),
    others=st.lists(curves, max_size=5),
    curve=st.lists(st.floats(1.0, 1e4), min_size=1, max_size=3),
)
def test_decision_is_that_of_optuna_on_a_study_of_the_arm_alone(
    spec: StudySpec, complete: list[list[float]], others: list[list[float]], curve: list[float]
) -> None:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=10)
    both, alone = optuna.create_study(), optuna.create_study(pruner=pruner)
    for other in others:
        add(both, other, arm="cross_entropy", state=TrialState.COMPLETE)
    for study in (both, alone):
        for one in complete:
            add(study, one, state=TrialState.COMPLETE)
        add(study, curve)

    trial = optuna.trial.Trial(alone, alone.trials[-1]._trial_id)
    assert should_prune(both, spec, len(both.trials) - 1) == trial.should_prune()
