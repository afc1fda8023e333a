"""Which trials come in which order: balanced arms, shared points, proposals from the history."""

import copy
import itertools
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sweep.search.arms import arm_trials, arm_view, gp_observations
from sweep.search.samplers import MAX_GP_TRIALS, next_arm, next_proposal, sobol_params
from sweep.study.spec import SamplerSpec, StudySpec
from sweep.study.toml_file import read_study_file

CROSS, SQUEN = "cross_entropy", "squentropy"
STARTUP = 4


@pytest.fixture(scope="session")
def spec() -> StudySpec:
    """One baseline, four Sobol points, then TPE; square_weight is searched for squentropy only."""
    path = Path(__file__).parents[1] / "helpers" / "mine.toml"
    return with_sampler(read_study_file(str(path), "cpu"), startup_trials=STARTUP)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def with_sampler(spec: StudySpec, **keys: Any) -> StudySpec:
    return spec.model_copy(update={"sampler": SamplerSpec(**keys)})


def ask(study: optuna.Study, spec: StudySpec, arm: str | None = None) -> Trial:
    """A new trial, stored as the tuner stores it."""
    arm = arm or next_arm(study, spec)
    proposal = next_proposal(study, spec, arm)
    params, origin = proposal.params, proposal.origin
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=spec.distributions(params),
            user_attrs={"arm": arm, "origin": origin},
        )
    )
    return Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)


def bowl(params: dict[str, Any]) -> float:
    """A perplexity that is lowest, 10, at a learning rate of 2e-3."""
    return 10.0 + 100.0 * math.log10(params["learning_rate"] / 2e-3) ** 2


def run(
    study: optuna.Study,
    spec: StudySpec,
    n: int,
    value: Callable[[dict[str, Any]], float] = bowl,
    arm: str | None = None,
) -> None:
    """Ask for n trials and finish each before the next."""
    for _ in range(n):
        trial = ask(study, spec, arm)
        trial.report(value(trial.params), 40)
        study.tell(trial, value(trial.params))


def proposals(study: optuna.Study, arm: str, origin: str = "sampler") -> list[dict[str, Any]]:
    return [t.params for t in arm_trials(study, arm) if t.user_attrs["origin"] == origin]


# --- arms and their order --------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 30))
def test_arms_are_balanced_for_any_number_of_trials(spec: StudySpec, n: int) -> None:
    study = optuna.create_study()
    run(study, with_sampler(spec, kind="random"), n)

    sizes = [len(arm_trials(study, arm)) for arm in spec.arms]
    assert sum(sizes) == n
    assert sizes[0] - sizes[1] in (0, 1)  # a tie goes to the first arm of the file


def test_each_arm_starts_with_the_baselines_then_sobol_points_then_the_sampler(
    study: optuna.Study, spec: StudySpec
) -> None:
    run(study, spec, 16)

    for arm in spec.arms:
        origins = [trial.user_attrs["origin"] for trial in arm_trials(study, arm)]
        assert origins == ["baseline:base"] + ["sobol"] * STARTUP + ["sampler"] * 3


def test_every_trial_has_the_compared_parameter_of_its_arm(
    study: optuna.Study, spec: StudySpec
) -> None:
    run(study, spec, 16)

    assert all(trial.params["loss"] == trial.user_attrs["arm"] for trial in study.trials)


def test_conditional_parameter_is_there_only_where_it_applies(
    study: optuna.Study, spec: StudySpec
) -> None:
    run(study, spec, 20)

    for trial in study.trials:
        assert ("square_weight" in trial.params) == (trial.user_attrs["arm"] == SQUEN)


def test_a_study_that_compares_nothing_gets_trials_of_one_arm(
    study: optuna.Study, spec: StudySpec
) -> None:
    search = {name: spec.search[name] for name in ("learning_rate", "n_layer")}
    run(study, spec.model_copy(update={"compare": None, "search": search}), 8)

    assert [trial.user_attrs["arm"] for trial in study.trials] == ["all"] * 8


def test_study_that_searches_only_what_it_compares_has_trials(
    study: optuna.Study, spec: StudySpec
) -> None:
    search = {"loss": spec.search["loss"]}
    run(study, spec.model_copy(update={"search": search, "baselines": []}), 12, lambda params: 1.0)

    assert [t.params["loss"] for t in study.trials] == [CROSS, SQUEN] * 6


# --- Sobol points ----------------------------------------------------------------------------


def test_arms_have_the_same_sobol_points_in_what_they_share(spec: StudySpec) -> None:
    for index in range(16):
        cross, squen = (sobol_params(spec, arm, index) for arm in (CROSS, SQUEN))
        assert cross["learning_rate"] == squen["learning_rate"]
        assert cross["n_layer"] == squen["n_layer"]


def test_sixteen_sobol_points_are_even_in_every_dimension(spec: StudySpec) -> None:
    points = [sobol_params(spec, SQUEN, index) for index in range(16)]

    layers = [point["n_layer"] for point in points]
    rates = [math.log10(point["learning_rate"] / 1e-4) / 2 for point in points]  # in [0, 1]
    weights = [(point["square_weight"] - 0.1) / 9.9 for point in points]
    assert sorted(layers) == sorted([1, 2, 3, 4] * 4)
    assert sorted(int(16 * u) for u in rates) == list(range(16))
    assert sorted(int(16 * u) for u in weights) == list(range(16))


def test_sobol_points_follow_the_seed(spec: StudySpec) -> None:
    points = [sobol_params(with_sampler(spec, seed=seed), CROSS, 0) for seed in (0, 0, 1)]

    assert points[0] == points[1] != points[2]


def test_qmc_draws_the_same_points_for_each_arm_throughout(
    study: optuna.Study, spec: StudySpec
) -> None:
    run(study, with_sampler(spec, kind="qmc"), 20)

    drawn = [[p["learning_rate"] for p in proposals(study, arm, "sobol")] for arm in spec.arms]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 9


# --- the sampler -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_same_history_gives_the_same_proposal(spec: StudySpec, kind: str) -> None:
    spec = with_sampler(spec, kind=kind, startup_trials=STARTUP)
    studies = [optuna.create_study(), optuna.create_study()]
    for study in studies:
        run(study, spec, 20)

    assert [t.params for t in studies[0].trials] == [t.params for t in studies[1].trials]


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_a_resumed_sweep_proposes_what_an_uninterrupted_one_does(
    spec: StudySpec, tmp_path: Path, kind: str
) -> None:
    spec = with_sampler(spec, kind=kind, startup_trials=STARTUP)
    whole = optuna.create_study()
    run(whole, spec, 16)
    url = f"sqlite:///{tmp_path}/sweep.db"
    for total in (13, 14, 15, 16):  # the last ones each in a new process's view of the file
        study = optuna.create_study(storage=url, study_name="s", load_if_exists=True)
        run(study, spec, total - len(study.trials))

    assert [t.params for t in study.trials] == [t.params for t in whole.trials]


@pytest.mark.parametrize(("kind", "trials"), [("tpe", 60), ("gp", 24), ("random", 60)])
def test_no_proposal_is_made_twice(
    study: optuna.Study, spec: StudySpec, kind: str, trials: int
) -> None:
    run(study, with_sampler(spec, kind=kind, startup_trials=STARTUP), trials)

    rates = [trial.params["learning_rate"] for trial in arm_trials(study, CROSS)]
    assert len(set(rates)) == len(rates)


def test_arms_draw_different_random_parameters(study: optuna.Study, spec: StudySpec) -> None:
    run(study, with_sampler(spec, kind="random", startup_trials=0), 12)

    rates = [trial.params["learning_rate"] for trial in study.trials[2:]]  # after the baselines
    assert len(set(rates)) == len(rates)


def test_trials_of_the_other_arm_do_not_change_a_proposal(spec: StudySpec) -> None:
    alone, beside = optuna.create_study(), optuna.create_study()
    run(alone, spec, 10, arm=CROSS)
    for _ in range(10):
        run(beside, spec, 2, lambda params: -bowl(params), arm=SQUEN)
        run(beside, spec, 1, arm=CROSS)

    assert next_proposal(alone, spec, CROSS) == next_proposal(beside, spec, CROSS)


def test_results_of_its_own_arm_change_a_proposal(spec: StudySpec) -> None:
    up, down = optuna.create_study(), optuna.create_study()
    run(up, spec, 10, arm=CROSS)
    run(down, spec, 10, lambda params: -bowl(params), arm=CROSS)

    assert next_proposal(up, spec, CROSS) != next_proposal(down, spec, CROSS)


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_running_trials_change_a_proposal(study: optuna.Study, spec: StudySpec, kind: str) -> None:
    spec = with_sampler(spec, kind=kind, startup_trials=STARTUP)
    run(study, spec, 12, arm=CROSS)
    pending = [ask(study, spec, CROSS).params["learning_rate"] for _ in range(4)]

    assert len(set(pending)) == 4


def test_sobol_points_go_on_until_half_as_many_trials_have_ended(
    study: optuna.Study, spec: StudySpec
) -> None:
    origins = [ask(study, spec, CROSS).user_attrs["origin"] for _ in range(12)]
    assert origins == ["baseline:base", *["sobol"] * 11]
    for number, origin in ((0, "sobol"), (1, "sampler")):
        study.tell(number, 50.0)
        assert ask(study, spec, CROSS).user_attrs["origin"] == origin


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_what_many_slots_ask_for_at_once_differs(
    study: optuna.Study, spec: StudySpec, kind: str
) -> None:
    spec = with_sampler(spec, kind=kind, startup_trials=STARTUP)
    run(study, spec, 6, arm=CROSS)
    asked = [ask(study, spec, CROSS).params["learning_rate"] for _ in range(16)]
    rates = sorted(map(math.log, asked))
    assert min(b - a for a, b in itertools.pairwise(rates)) > 1e-4


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_with_eight_slots_no_trial_is_asked_for_where_another_still_trains(
    study: optuna.Study, spec: StudySpec, kind: str
) -> None:
    spec = with_sampler(spec, kind=kind, startup_trials=STARTUP)
    training: list[Trial] = []
    for _ in range(24):  # a slot that is free gets the next trial at once
        trial = ask(study, spec, CROSS)
        place = (trial.params["n_layer"], math.log(trial.params["learning_rate"]))
        for one in training:
            other = (one.params["n_layer"], math.log(one.params["learning_rate"]))
            assert math.dist(place, other) > 1e-3
        training.append(trial)
        if len(training) == 8:
            ended = training.pop(0)
            study.tell(ended, bowl(ended.params))


def test_tpe_comes_closer_to_the_optimum_than_its_start(
    study: optuna.Study, spec: StudySpec
) -> None:
    run(study, spec, 40)

    for arm in spec.arms:
        start = [bowl(params) for params in proposals(study, arm, "sobol")]
        later = [bowl(params) for params in proposals(study, arm)]
        assert sorted(later)[len(later) // 2] < sorted(start)[len(start) // 2]
        assert min(later) < 10.5


def test_a_gaussian_process_comes_close_in_a_few_trials(
    study: optuna.Study, spec: StudySpec
) -> None:
    run(study, with_sampler(spec, kind="gp", startup_trials=STARTUP), 20)

    for arm in spec.arms:  # each has had five points to learn from, and proposes five
        assert min(bowl(params) for params in proposals(study, arm)) < 10.1


def test_a_gaussian_process_learns_from_pruned_trials_by_the_log_of_all_perplexities(
    study: optuna.Study, spec: StudySpec
) -> None:
    run(study, spec, 4)
    pruned, running = ask(study, spec), ask(study, spec)
    pruned.report(math.exp(5), 20)  # where no other was evaluated
    study.tell(pruned, state=TrialState.PRUNED)

    seen = gp_observations(study.trials)

    assert [trial.value for trial in seen[:4]] == [math.log(t.value) for t in study.trials[:4]]
    assert (seen[4].state, seen[4].value) == (TrialState.COMPLETE, pytest.approx(5))
    assert (seen[5].state, seen[5].number) == (TrialState.RUNNING, running.number)


@pytest.mark.parametrize(
    ("outcome", "last", "expected"),
    [
        ("pruned", 75.0, 75 * 20 / 90),  # nearer to the one that fell from 90 to 20 than from 50
        ("pruned", 66.0, 66 * 10 / 50),  # by their quotient: 66 / 50 < 90 / 66
        ("diverged", 75.0, 75.0),
        ("timeout", 75.0, 75.0),
    ],
)
def test_a_pruned_trial_counts_with_what_it_was_on_its_way_to(
    outcome: str, last: float, expected: float
) -> None:
    def told(state: TrialState, curve: dict[int, float], outcome: str) -> FrozenTrial:
        return create_trial(
            state=state,
            value=list(curve.values())[-1],
            intermediate_values=curve,
            user_attrs={"outcome": outcome},
        )

    trials = [
        told(TrialState.COMPLETE, {40: 50.0, 80: 10.0}, "complete"),
        told(TrialState.COMPLETE, {40: 90.0, 80: 20.0}, "complete"),
        told(TrialState.COMPLETE, {80: 75.0}, "complete"),  # another grid: says nothing of step 40
        told(TrialState.PRUNED, {40: last}, outcome),
    ]

    assert gp_observations(trials)[3].value == pytest.approx(math.log(expected))


@pytest.mark.parametrize(
    ("curve", "last", "expected"),
    [
        ([4.0, 3.0], math.inf, 3.0),  # as bad as the worst
        ([math.inf, 3.0], 5.0, 5.0),  # from infinity it fell by no factor
        ([0.0, 3.0], 5.0, 5.0),
        ([4.0, math.inf], 5.0, 5.0),
        ([4.0, 3.0], 0.0, math.ulp(0.0)),
        ([1e-300, 1e-300], 1e300, 1e300),
        ([4.0, 0.0], 5.0, math.ulp(0.0)),
    ],
)
def test_a_figure_of_zero_or_infinity_can_be_learned_from(
    curve: list[float], last: float, expected: float
) -> None:
    complete = create_trial(value=curve[-1], intermediate_values=dict(enumerate(curve)))
    pruned = create_trial(state=TrialState.PRUNED, value=last, intermediate_values={0: last})

    seen = gp_observations([complete, pruned])

    assert seen[1].value == pytest.approx(math.log(expected))
    assert all(trial.value is not None and math.isfinite(trial.value) for trial in seen)


def test_many_trials_of_an_arm_are_left_to_tpe(study: optuna.Study, spec: StudySpec) -> None:
    run(study, with_sampler(spec, kind="random", startup_trials=STARTUP), MAX_GP_TRIALS, arm=CROSS)
    tpe, gp = (with_sampler(spec, kind=kind, startup_trials=STARTUP) for kind in ("tpe", "gp"))

    assert next_proposal(study, gp, CROSS) == next_proposal(study, tpe, CROSS)
    fewer = optuna.create_study()
    fewer.add_trials(study.trials[:-1])
    assert next_proposal(fewer, gp, CROSS) != next_proposal(fewer, tpe, CROSS)


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_asking_writes_no_log(
    study: optuna.Study, spec: StudySpec, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    spec = with_sampler(spec, kind=kind, startup_trials=STARTUP)
    run(study, spec, 12)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    capfd.readouterr()

    next_proposal(study, spec, CROSS)

    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO  # as it was before


# --- the view of an arm ----------------------------------------------------------------------


def frozen(state: TrialState, value: float | None = None) -> FrozenTrial:
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    return create_trial(state=state, value=value, params={"x": 0.5}, distributions=space)


def test_view_leaves_out_failed_trials_and_counts_waiting_ones_as_running() -> None:
    view = arm_view(
        [
            frozen(TrialState.COMPLETE, 1.0),
            frozen(TrialState.FAIL),
            frozen(TrialState.PRUNED, 2.0),
            frozen(TrialState.WAITING),
        ],
        compare=None,
    )

    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING]
    assert [trial.state for trial in view.trials] == states


def test_a_trial_that_blew_up_late_ranks_below_one_that_was_pruned_early() -> None:
    """TPE prefers pruned trials that came far; a divergence at a late step must not profit."""
    curve = {10: 90.0, 500: 2048.0}
    blown = create_trial(
        state=TrialState.PRUNED,
        value=2048.0,
        intermediate_values=curve,
        user_attrs={"outcome": "diverged"},
    )
    pruned = create_trial(
        state=TrialState.PRUNED,
        value=300.0,
        intermediate_values={100: 300.0},
        user_attrs={"outcome": "pruned"},
    )

    seen = arm_view([blown, pruned], compare=None).trials

    assert [trial.last_step for trial in seen] == [0, 100]
    assert seen[0].value == 2048.0


@pytest.mark.parametrize("seed", range(5))
def test_view_is_asked_as_a_study_that_holds_its_trials(seed: int, spec: StudySpec) -> None:
    stored = optuna.create_study()
    run(stored, spec, 12, arm=CROSS)
    for _ in range(2):
        ask(stored, spec, CROSS)
    plain = optuna.create_study(sampler=TPESampler(seed=seed, n_startup_trials=STARTUP))
    plain.add_trials(stored.trials)

    view = arm_view(stored.trials, None, TPESampler(seed=seed, n_startup_trials=STARTUP))

    assert spec.suggest(view.ask(), CROSS) == spec.suggest(plain.ask(), CROSS)


def test_view_leaves_the_trials_as_they_are(study: optuna.Study, spec: StudySpec) -> None:
    run(study, spec, 12)
    trials = arm_trials(study, SQUEN)
    before = copy.deepcopy(trials)

    arm_view(trials, spec.compare, TPESampler(seed=0)).ask()

    assert trials == before


def test_failed_trials_do_not_count_for_the_sampler_but_do_for_the_order(
    study: optuna.Study, spec: StudySpec
) -> None:
    trial = ask(study, spec)
    study.tell(trial, state=TrialState.FAIL)

    assert next_arm(study, spec) == SQUEN
    assert (
        next_proposal(study, spec, CROSS).origin == "sobol"
    )  # a baseline that cannot run is not retried


def test_running_trial_that_was_added_can_be_adopted_reported_and_told(
    spec: StudySpec, tmp_path: Path
) -> None:
    """What the tuner relies on: params without study.ask, and a new process that goes on."""
    storage = f"sqlite:///{tmp_path}/sweep.db"
    first = optuna.create_study(storage=storage, study_name="s")
    asked = ask(first, spec)
    asked.report(30.0, 10)

    study = optuna.load_study(storage=storage, study_name="s")
    adopted = Trial(study, study.trials[0]._trial_id)
    adopted.report(20.0, 20)
    study.tell(adopted, 20.0)

    told = optuna.load_study(storage=storage, study_name="s").trials[0]
    assert told.params == asked.params
    assert told.intermediate_values == {10: 30.0, 20: 20.0}
    assert (told.state, told.value) == (TrialState.COMPLETE, 20.0)


def test_the_gaussian_process_has_what_it_optimises_with_in_every_installation() -> None:
    """Optuna declares no greenlet; without it, it warns in the middle of a sweep and is slower."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert [line for line in project["dependencies"] if line.startswith("greenlet>")]
