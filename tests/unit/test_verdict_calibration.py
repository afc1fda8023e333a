"""Simulated studies with a known truth: a small version of tests/benchmarks/verdict.py."""

import sys
from pathlib import Path

import numpy as np
from stored_studies import STUDY, StoredStudy

from sweep.search.pruners import should_prune

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from verdict import (
    CASES,
    MEASURED,
    TWO_PERCENT,
    World,
    advised,
    curves,
    judge,
    pruned,
    replace_chosen,
    schemes,
    simulate,
)

STUDIES = 300


def test_without_a_difference_few_studies_say_better_or_worse_and_intervals_hold():
    found = simulate(CASES["no difference"], STUDIES, seed=1)
    equal = judge(replace_chosen(found))
    assert equal["false"] <= 0.05 + 0.025
    assert 0.92 <= equal["coverage"] <= 0.98
    assert abs(equal["bias_nats"]) < 0.001


def test_a_difference_of_two_percent_is_found_with_the_default_budget():
    world = CASES["2 % better"]
    found = simulate(world, STUDIES, seed=2)
    said = judge(replace_chosen(found, -TWO_PERCENT))["answers"]
    assert said["better"] > 0.9
    assert said.get("worse", 0.0) == 0.0


def test_a_better_arm_that_starts_slower_completes_its_share_of_trials():
    complete = simulate(CASES["2 % better but slower"], STUDIES, seed=3).complete.sum(0)
    assert 0.4 <= complete[1] / complete.sum() <= 0.6
    across = simulate(CASES["the same, pruned across arms"], STUDIES, seed=3).complete.sum(0)
    assert across[1] / across.sum() < 0.4  # what it would be without arms


def test_screening_first_is_cheaper_than_all_seeds_for_each_and_at_least_as_honest():
    found = schemes(MEASURED, 1500, seed=4)
    ours, split, flattered, in_turn, unscreened = found.values()
    assert ours["runs_of_an_arm"] < split["runs_of_an_arm"]
    assert 0.93 <= ours["coverage"] <= 0.97
    assert ours["false"] <= 0.05 + 0.025
    assert abs(ours["bias"]) < 0.002
    assert split["half_width"] > 1.5 * ours["half_width"]  # three seeds judge, not five
    assert flattered["bias"] > 0.003  # the steep arm has less to flatter itself with
    assert in_turn["coverage"] < 0.93  # its turns share their runs
    assert unscreened["loss_of_choice"] > 1.5 * ours["loss_of_choice"]


def test_whoever_adds_the_seeds_that_are_advised_keeps_the_coverage():
    found = advised(0.012, 0.0, STUDIES, seed=5)
    assert found["corrected"]["last_interval_holds_the_truth"] >= 0.93
    assert found["corrected"]["false_answers"] <= 0.05 + 0.02


def test_the_simulated_pruner_stops_what_the_sweeps_pruner_stops(tmp_path: Path):
    world = World(trials=8)
    shown = curves(world, np.full((1, 2, 8), 4.0), np.random.default_rng(5))
    stopped = pruned(world, shown)[0]
    assert 0 < stopped.sum() < stopped.size
    stored = StoredStudy(tmp_path, f"{STUDY}[train]\nmax_steps = 1600\n")
    for trial in range(8):
        for arm, name in enumerate(("cross_entropy", "squentropy")):
            assert is_stopped(stored, name, list(np.exp(shown[0, arm, trial]))) == bool(
                stopped[arm, trial]
            )


def is_stopped(stored: StoredStudy, arm: str, perplexities: list[float]) -> bool:
    """Show a trial to the pruner of the sweep, evaluation by evaluation, and store how it ended."""
    number = stored.add(arm, perplexities[:1], outcome="running")
    trial_id = stored.study.trials[number]._trial_id
    for index, value in enumerate(perplexities, start=1):
        stored.storage.set_trial_intermediate_value(trial_id, 100 * index, value)
        if should_prune(stored.study, stored.spec, number):
            stored.finish(number, "pruned", None)
            return True
    stored.finish(number, "complete", perplexities[-1])
    return False
