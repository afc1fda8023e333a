import math

import numpy as np
import pytest
from scipy import stats

from sweep.verdict.statistics import (
    LEVEL,
    Difference,
    answers,
    further_seeds,
    holm,
    outlying,
    paired_difference,
    paired_differences,
    two_level_bootstrap,
)

MARGIN = math.log(1.01)


def test_paired_difference_is_a_t_test_over_the_pairs():
    first, second = [4.02, 4.05, 3.99], [4.00, 4.01, 3.98]
    found = paired_difference(first, second, MARGIN)
    diffs = np.array([0.02, 0.04, 0.01])
    half = stats.t.ppf(0.975, 2) * diffs.std(ddof=1) / math.sqrt(3)
    assert found.mean == pytest.approx(diffs.mean())
    assert (found.low, found.high) == pytest.approx((diffs.mean() - half, diffs.mean() + half))
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.per_seed == pytest.approx(diffs)


def test_pairing_removes_what_the_seeds_have_in_common():
    shared = np.array([0.0, 0.3, -0.2, 0.1, 0.4])
    own = np.array([0.001, -0.001, 0.002, 0.0, -0.002])
    found = paired_difference(list(4 + shared + own), list(4.05 + shared))
    assert found.high < 0
    assert found.sd == pytest.approx(own.std(ddof=1))


def test_a_difference_that_never_varies_is_its_own_interval():
    found = paired_difference([2.5, 3.5], [2.0, 3.0], MARGIN)
    assert (found.low, found.mean, found.high, found.p, found.p_equivalent) == (0.5, 0.5, 0.5, 0, 1)
    same = paired_difference([2.0, 3.0], [2.0, 3.0], MARGIN)
    assert (same.p, same.p_equivalent) == (1, 0)


@pytest.mark.parametrize(
    ("diffs", "answer"),
    [
        ([-0.05, -0.06, -0.055], "better"),
        ([0.05, 0.06, 0.055], "worse"),
        ([0.0005, -0.0004, 0.0001, 0.0002], "equivalent"),
        ([0.002, 0.0021, 0.0019, 0.002], "equivalent"),  # surely there, surely too small
        ([0.05, -0.04, 0.01], "inconclusive"),
    ],
)
def test_answers(diffs, answer):
    assert answers([paired_difference(diffs, [0.0] * len(diffs), MARGIN)]) == [answer]


def test_without_a_margin_nothing_is_equivalent():
    assert answers([paired_difference([0.001, -0.001, 0.0], [0.0] * 3)]) == ["inconclusive"]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]


def test_holm_makes_two_weak_comparisons_inconclusive_where_one_alone_is_not():
    weak = paired_difference([0.040, 0.008, 0.022, 0.036], [0.0] * 4)
    assert LEVEL / 2 < weak.p < LEVEL
    assert answers([weak]) == ["worse"]
    assert answers([weak, weak]) == ["inconclusive", "inconclusive"]


def spread(mean: float, sd: float, n: int = 5) -> Difference:
    """Differences of exactly this mean and standard deviation."""
    shape = np.linspace(-1, 1, n)
    shape *= sd / shape.std(ddof=1)
    return paired_difference(list(mean + shape), [0.0] * n, MARGIN)


def test_further_seeds_settle_as_often_as_they_promise():
    mean, sd = 0.015, 0.03
    more = further_seeds(spread(mean, sd), MARGIN)
    assert more is not None
    rng = np.random.default_rng(0)
    settled = [
        answers([paired_difference(list(draw), [0.0] * (5 + more), MARGIN)]) != ["inconclusive"]
        for draw in rng.normal(mean, sd, (400, 5 + more))
    ]
    assert 0.72 < np.mean(settled) < 0.92


def test_further_seeds_are_fewer_for_a_larger_difference_and_may_be_too_many():
    small, large = (further_seeds(spread(mean, 0.03), MARGIN) for mean in (0.015, 0.03))
    assert small is not None
    assert large is not None
    assert 0 < large < small
    assert further_seeds(spread(0.0098, 1.0), MARGIN) is None


def test_a_seed_far_above_the_others_is_named():
    nats = np.log([62.7, 55.7, 61.4, 64.3, 135.8])
    assert outlying(list(nats)) == 4
    assert outlying([4.0, 4.0, 4.0, 4.0, 4.8]) is None  # nothing to tell a usual spread by
    assert outlying(list(nats[2:])) is None  # two others are too few
    assert outlying(list(-nats)) is None  # far below is luck, not a run that went wrong


@pytest.mark.parametrize("seeds", [4, 5, 12])
def test_a_seed_is_named_in_one_of_a_hundred_arms_whose_seeds_are_alike(seeds: int):
    rng = np.random.default_rng(7)
    named = [outlying(list(arm)) is not None for arm in rng.normal(4, 0.01, (4000, seeds))]
    assert 0.004 < np.mean(named) < 0.016


def test_bootstrap_of_one_certain_difference_is_that_difference():
    tokens = np.array([10.0, 30.0])
    first = np.tile(2.0 * tokens, (3, 1))
    assert two_level_bootstrap(first, first - 0.1 * tokens, tokens) == pytest.approx((0.1, 0.1))


def test_bootstrap_sees_noise_between_seeds_that_one_over_stories_alone_does_not():
    rng = np.random.default_rng(1)
    tokens = np.full(200, 100.0)
    seeds = rng.normal(0, 0.01, (5, 1))
    first = (2.0 + seeds + rng.normal(0, 0.02, (5, 200))) * tokens
    second = np.full((5, 200), 2.0) * tokens
    low, high = two_level_bootstrap(first, second, tokens)
    one_low, one_high = two_level_bootstrap(first[:1], second[:1], tokens)
    assert high - low > 2 * (one_high - one_low)
    assert 0.5 < (high - low) / (2 * 1.96 * seeds.std() / math.sqrt(5)) < 1.6


def test_many_comparisons_at_once_are_those_one_by_one():
    rng = np.random.default_rng(2)
    diffs = np.concatenate([rng.normal(0.01, 0.01, (6, 5)), np.full((1, 5), 0.5)])
    at_once = paired_differences(diffs, MARGIN)
    assert at_once == [paired_difference(list(row), [0.0] * 5, MARGIN) for row in diffs]
