"""Whole studies with a known truth, simulated: a small version of tests/benchmarks/verdict.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
from stored_studies import STUDY, StoredStudy

from sweep.pruning import should_prune

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from verdict import (
    CASES,
    TWO_PERCENT,
    World,
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


def test_choosing_by_the_seeds_that_judge_flatters_and_by_all_others_in_turn_is_too_sure():
    found = schemes(World(), 1500, seed=4)
    ours, flattered = found["screening seeds, then others (ours)"], found["the seeds that judge"]
    assert abs(ours["bias_of_an_arm_nats"]) < 0.0005
    assert 0.93 <= ours["coverage"] <= 0.97
    assert flattered["bias_of_an_arm_nats"] < -0.0003
    assert found["all other seeds, in turn"]["coverage"] < ours["coverage"]
    assert ours["loss_of_choice_nats"] < found["the search's best"]["loss_of_choice_nats"]


@pytest.mark.slow
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
