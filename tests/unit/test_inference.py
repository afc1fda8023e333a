import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sweep.verdict.statistics import (
    ERROR_RATE,
    Difference,
    answers,
    error_rate,
    further_seeds,
    holm,
    outlier,
    paired_difference,
    paired_differences,
    search_error_rate,
    two_level_bootstrap,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from looks import (
    MIXTURE,
    OURS,
    RULES,
    WIDTHS,
    boundary,
    intervals,
    obrien_fleming,
    pocock,
    quantiles,
)

MARGIN = math.log(1.01)
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


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
    found = paired_difference([0.001, -0.001, 0.0], [0.0] * 3)
    assert found.p_equivalent is None
    assert answers([found]) == ["inconclusive"]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]


def test_holm_makes_two_weak_comparisons_inconclusive_where_one_alone_is_not():
    weak = paired_difference([0.040, 0.008, 0.022, 0.036], [0.0] * 4)
    assert ERROR_RATE / 2 < weak.p < ERROR_RATE
    assert answers([weak]) == ["worse"]
    assert answers([weak, weak]) == ["inconclusive", "inconclusive"]


def spread(mean: float, sd: float, n: int = 5) -> Difference:
    """Differences of exactly this mean and standard deviation."""
    shape = np.linspace(-1, 1, n)
    shape *= sd / shape.std(ddof=1)
    return paired_difference(list(mean + shape), [0.0] * n, MARGIN)


def test_further_seeds_settle_as_often_as_they_promise():
    mean, sd = 0.015, 0.03
    more = further_seeds(spread(mean, sd), MARGIN, first=5)
    assert more is not None
    rng = np.random.default_rng(0)
    draws = rng.normal(mean, sd, (400, 5 + more))
    found = paired_differences(draws, MARGIN, error_rate(5 + more, 5))
    settled = [answers([one]) != ["inconclusive"] for one in found]
    assert 0.72 < np.mean(settled) < 0.92


def test_further_seeds_are_fewer_for_a_larger_difference_and_may_be_too_many():
    small, large = (further_seeds(spread(mean, 0.03), MARGIN, 5) for mean in (0.015, 0.03))
    assert small is not None
    assert large is not None
    assert 0 < large < small
    assert further_seeds(spread(0.0098, 1.0), MARGIN, 5) is None


def test_no_more_seeds_are_advised_than_a_verdict_may_have():
    assert further_seeds(spread(0.0, 0.055), MARGIN, 5) == 746
    assert further_seeds(spread(0.0, 0.06), MARGIN, 5) is None  # 908 in all, which are refused


def test_a_seed_far_above_the_others_is_named():
    nats = np.log([62.7, 55.7, 61.4, 64.3, 135.8])
    assert outlier(list(nats)) == 4
    assert outlier([4.0, 4.0, 4.0, 4.0, 4.8]) is None  # nothing shows a usual spread
    assert outlier(list(nats[2:])) is None  # two others are too few
    assert outlier(list(-nats)) is None  # far below is luck, not a run that went wrong


@pytest.mark.parametrize("seeds", [4, 5, 12])
def test_a_seed_is_named_in_one_of_a_hundred_arms_whose_seeds_are_alike(seeds: int):
    rng = np.random.default_rng(7)
    named = [outlier(list(arm)) is not None for arm in rng.normal(4, 0.01, (4000, seeds))]
    assert 0.004 < np.mean(named) < 0.016


def test_bootstrap_of_one_certain_difference_is_that_difference():
    tokens = np.array([10.0, 30.0])
    first = np.tile(2.0 * tokens, (3, 1))
    assert two_level_bootstrap(first, first - 0.1 * tokens, tokens) == pytest.approx((0.1, 0.1))


def test_bootstrap_holds_the_truth_as_often_as_it_says_with_five_seeds():
    rng = np.random.default_rng(1)
    tokens = np.full(40, 100.0)
    held = []
    for _ in range(200):
        seeds = rng.normal(0, 0.01, (5, 1))
        first = (2.0 + seeds + rng.normal(0, 0.0126, (5, 40))) * tokens
        low, high = two_level_bootstrap(first, np.full((5, 40), 2.0) * tokens, tokens)
        held.append(low <= 0 <= high)
    assert 0.92 <= np.mean(held) <= 0.985


def test_many_comparisons_at_once_are_those_one_by_one():
    rng = np.random.default_rng(2)
    diffs = np.concatenate([rng.normal(0.01, 0.01, (6, 5)), np.full((1, 5), 0.5)])
    at_once = paired_differences(diffs, MARGIN)
    assert at_once == [paired_difference(list(row), [0.0] * 5, MARGIN) for row in diffs]


# --- interim analyses ------------------------------------------------------------------------


def test_error_rates_by_hand():
    assert [error_rate(n, 5) for n in (5, 6, 10, 40)] == pytest.approx(
        [0.03, 0.0065 * 5 / 6, 0.00325, 0.0008125]
    )
    assert error_rate(9, 9) == 0.03  # whatever the first number is
    assert [error_rate(5, 5, question) for question in (2, 3)] == [0.03 / 32, 0.03 / 64]


def test_error_rates_of_all_analyses_over_searches_sum_to_that_of_one_answer():
    rates = [search_error_rate(nth) for nth in range(1, 60)]
    assert sum(rates) == pytest.approx(ERROR_RATE)
    assert rates[:3] == pytest.approx([0.04, 0.005, 0.0025])


LOOKS = [(5, 9, 29), (5, 10, 20, 40), tuple(range(5, 41)), tuple(range(2, 41))]


def missed(pairs: np.ndarray, seeds: tuple[int, ...]) -> float:
    """Share of rows of which any of these intervals misses zero, their mean."""
    means, errors = intervals(pairs, seeds)
    limits = quantiles([error_rate(n, seeds[0]) for n in seeds], seeds)
    return float((np.abs(means) > limits * errors).any(axis=1).mean())


@pytest.mark.parametrize("seeds", LOOKS)
def test_equal_settings_analysed_again_and_again_are_called_unequal_in_at_most_5_percent(
    seeds: tuple[int, ...],
):
    pairs = np.random.default_rng(3).normal(0, 0.05, (6000, max(seeds)))
    assert 0.025 <= missed(pairs, seeds) <= 0.05  # nor are they wasteful
    heavy = np.random.default_rng(4).standard_t(3, (6000, max(seeds)))
    assert missed(heavy, seeds) <= 0.045


@pytest.mark.parametrize(
    ("spending", "published"),
    [  # Lan and DeMets (1983), two-sided 5 %, five equally spaced looks: Jennison, Turnbull (2000)
        (obrien_fleming, [4.877, 3.357, 2.680, 2.290, 2.031]),
        (pocock, [2.438, 2.427, 2.410, 2.397, 2.386]),
    ],
)
def test_the_boundaries_that_ours_is_compared_with_are_the_published_ones(spending, published):
    share = np.arange(1, 6) / 5
    bounds = boundary(share, np.diff([0.0, *spending(share)]))
    assert bounds == pytest.approx(published, abs=0.002)


def test_a_confidence_sequence_is_wider_than_ours_with_five_seeds_and_no_wider_with_thirty():
    ours, mixed = (RULES[name](WIDTHS) for name in (OURS, MIXTURE))
    assert mixed[0] > 1.5 * ours[0]
    assert mixed[2] == pytest.approx(ours[2], rel=0.05)


@pytest.mark.parametrize("first", [6, 3])
def test_equivalent_is_said_only_where_the_interval_that_is_shown_lies_within_the_margin(
    first: int,
):
    pairs = np.random.default_rng(4).normal(0.003, 0.005, (2000, 6))
    found = paired_differences(pairs, MARGIN, error_rate(6, first))
    within = [one.low >= -MARGIN and one.high <= MARGIN for one in found]
    assert [answers([one]) == ["equivalent"] for one in found] == within
    assert any(within)
    assert not all(within)


def test_three_losses_are_what_the_readme_says_with_29_seeds():
    found = json.loads((BENCHMARKS / "three_losses.json").read_text())
    pairs = np.array([one["difference"]["per_seed"] for one in found["comparisons"]])
    assert pairs.shape == (2, 29)
    squentropy, rescaled = paired_differences(pairs, MARGIN, error_rate(29, 5))
    assert answers([squentropy, rescaled]) == ["equivalent", "worse"]
    ends = (squentropy.mean, squentropy.low, squentropy.high)
    assert [100 * math.expm1(end) for end in ends] == pytest.approx([0.22, -0.25, 0.69], abs=0.005)
    ends = (rescaled.mean, rescaled.low, rescaled.high)
    assert [100 * math.expm1(end) for end in ends] == pytest.approx([73.2, 71.9, 74.5], abs=0.05)
