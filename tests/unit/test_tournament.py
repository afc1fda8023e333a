"""Rounds of tests/benchmarks/tournament.py, and the seeds that `--until settled` adds."""

import sys
from pathlib import Path

import pytest
import torch

from gpt.losses import LOSSES
from gpt.losses.link_functions import floored, squentropy
from gpt.plugins.load import load_file
from sweep.study.toml_file import read_study_file
from sweep.study.validation import validate
from sweep.verdict.interim.until import is_settled, next_seeds, starting_seeds

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from tournament import FILE, TRIALS, Ranked, counts, going_on, round_spec


def test_half_of_the_others_go_on_and_the_reference_always_does():
    values = {"a": 9.0, "b": 5.0, "c": None, "d": 4.0, "e": 6.0}
    ranked = [Ranked(member, value) for member, value in values.items()]
    assert going_on(ranked, "a", 2) == ["a", "d", "b"]
    assert going_on(ranked, "a", 9) == ["a", "d", "b", "e"]  # none without a complete trial
    assert counts(13, 3, 3) == [6, 3, 3]
    assert counts(5, 2, 3) == [3, 3]


def test_a_round_searches_what_its_members_have_with_seeds_of_its_own():
    spec = read_study_file(str(FILE), "cpu")
    second = round_spec(spec, 2, ["cross_entropy", "focal", "brier_ce"])
    validate(second)
    assert second.arms == ["cross_entropy", "focal", "brier_ce"]
    assert {"gamma", "brier_weight", "loss_schedule"} < set(second.search)
    assert not {"square_weight", "epsilon"} & set(second.search)
    assert second.search["loss_schedule"].when == {"loss": ["brier_ce"]}
    assert round_spec(spec, 1, spec.arms).seed == spec.seed
    assert second.seed > spec.seed + 3000  # after all seeds of a verdict on the first


def test_rounds_cost_about_as_much_as_each_other():
    spec = read_study_file(str(FILE), "cpu")
    members = [len(spec.arms), *(1 + left for left in counts(len(spec.arms), len(TRIALS), 3))]
    costs = [trials * count for trials, count in zip(TRIALS, members, strict=False)]
    assert max(costs) < 1.5 * min(costs)


@pytest.mark.parametrize(
    ("seeds", "at_once", "following"), [(5, 1, 6), (5, 4, 9), (20, 1, 22), (38, 1, 40), (39, 8, 40)]
)
def test_seeds_fill_the_slots_or_grow_by_a_tenth(seeds: int, at_once: int, following: int):
    assert next_seeds(seeds, 40, at_once) == following


def test_a_later_call_begins_where_an_earlier_one_stopped():
    stored = {"arms": ["a", "b"], "seeds": [1] * 9}
    assert starting_seeds(stored, ["a", "b"], 5, 40) == 9
    assert starting_seeds(stored, ["a", "b"], 12, 40) == 12
    assert starting_seeds(stored, ["a", "b"], 5, 8) == 5
    assert starting_seeds(stored, ["b", "a"], 5, 40) == 5
    assert starting_seeds(None, ["a", "b"], 5, 40) == 5


def test_it_is_settled_once_no_comparison_is_open():
    answers = [{"settings_answer": "better"}, {"settings_answer": "inconclusive"}]
    assert not is_settled({"comparisons": answers})
    assert is_settled({"comparisons": answers[:1]})


@pytest.mark.usefixtures("our_choices")
@pytest.mark.parametrize("square_weight", [0.001, 1.0, 10.0])
def test_own_link_is_the_cross_entropy_of_what_squentropys_link_function_reads(square_weight):
    load_file(FILE.with_name("tournament_losses.py"))
    logits = 4 * torch.randn(50, 40, dtype=torch.float64, generator=torch.manual_seed(0))
    targets = torch.arange(50) % 40
    p = logits.softmax(1)
    pi = floored(squentropy(p, logits.clone(), square_weight), p)
    expected = pi.sum(1).log() - pi.gather(1, targets[:, None]).squeeze(1).log()
    loss = LOSSES["own_link"](logits, targets, "none", square_weight=square_weight)
    torch.testing.assert_close(loss, expected)
