"""The answer in plain words: a table, then one paragraph. Add a warning in `_warnings`."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from sweep.format import number, perplexity
from sweep.verdict.compare import Comparison, ConfirmedArm, MetricComparison, Verdict
from sweep.verdict.statistics import ERROR_RATE

# Of simulated studies whose two arms are equally good at their best, the share in which the
# settings that one search found are better or worse: "no difference" in
# tests/benchmarks/verdict.json.
SEARCH_LUCK = 0.42


def paragraph(verdict: Verdict, search: tuple[int, int], notice: str | None) -> str:
    """Say what a reader should take away, in one paragraph.

    Args:
        verdict: The answer.
        search: Finished trials of the sweep, and how many there are to be.
        notice: What must be known of the text, such as that it is not the usual one.
    """
    sentences = [sentence for one in verdict.comparisons for sentence in _compared(one, verdict)]
    sentences += [*_basis(verdict), *_warnings(verdict, search)]
    return " ".join(sentences + ([f"Note: {notice.rstrip('.')}."] if notice else []))


def headline(verdict: Verdict) -> list[str]:
    """Return one sentence per comparison."""
    return [_compared(one, verdict)[0] for one in verdict.comparisons]


TABLE_COLUMNS = ("arm", "search's trial", "perplexity", "ratio", "interval", "these settings are")


def table_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Return a row per arm for TABLE_COLUMNS, the reference first.

    Args:
        record: sweep.verdict.record's.
    """
    compared = {one["arm"]: one for one in record["comparisons"]}
    rows = []
    for one in record["confirmed"]:
        row = [one["arm"], str(one["trial"]), perplexity(one["perplexity"])]
        if one["arm"] in compared:
            comparison = compared[one["arm"]]
            ends = f"{comparison['ratio_low']:.4f} to {comparison['ratio_high']:.4f}"
            level = confidence(comparison["difference"]["error_rate"])
            row += [f"{comparison['ratio']:.4f}", f"{ends} ({level})"]
            row += [comparison["settings_answer"]]
        else:
            row += ["", "", "the reference"]
        rows.append(row)
    return rows


def confidence(error_rate: float) -> str:
    """Return the level of an interval: "96%"."""
    return f"{100 * (1 - error_rate):.5g}%"


# --- comparisons -----------------------------------------------------------------------------


def _compared(comparison: Comparison, verdict: Verdict) -> list[str]:
    arm, reference = comparison.arm, comparison.reference
    level = confidence(comparison.difference.error_rate)
    ends = f"{_percent(comparison.ratio_low)} to {_percent(comparison.ratio_high)}"
    found = "With the settings that this search found,"
    interval = f"({level} interval of the change {ends})"
    apart = f"{_apart(comparison.ratio)} that of {reference} {interval}"
    further: list[str] = []
    if comparison.settings_answer == "equivalent":
        first = (
            f"{found} {arm} and {reference} are equivalent: the {verdict.metric} of {arm} is "
            f"{apart}, all within the {100 * verdict.margin:g}% that does not matter."
        )
    elif comparison.settings_answer == "inconclusive":
        first = (
            f"{found} it stays open whether {arm} is better than {reference}: its "
            f"{verdict.metric} is {apart}."
        )
        further = [_further(comparison)]
    else:
        first = (
            f"{found} {arm} is {comparison.settings_answer} than {reference}: its "
            f"{verdict.metric} is {apart}."
        )
    return [first, *further, *_by_other_metrics(comparison)]


def _further(comparison: Comparison) -> str:
    seeds = comparison.further_seeds
    if seeds is None:
        return "No number of seeds that anybody would run is expected to settle it."
    return (
        f"About {seeds} more seeds should settle it, if the figures are what they seem. Every "
        f"further analysis has its price: the interval of the next one is of "
        f"{confidence(comparison.next_error_rate)}."
    )


def _by_other_metrics(comparison: Comparison) -> list[str]:
    """Say by which metrics the answer is the same, and what the others say."""
    others = comparison.other_metrics
    same = [one for one in others if _is_same(one, comparison)]
    silent = [one for one in others if one not in same and _shows_nothing(one)]
    sentences = [_by(one) for one in others if one not in same and one not in silent]
    if same:
        names = _listed([one.metric for one in same])
        sentences.insert(0, f"By {names} the answer is the same.")
    if silent:
        names = _listed([f"{one.metric} {_means(one)}" for one in silent])
        sentences.append(
            f"By {names} no difference is shown, and none is ruled out, for want of a margin."
        )
    return sentences


def _is_same(one: MetricComparison, comparison: Comparison) -> bool:
    """Return whether a metric agrees; without a margin, an open answer says less than with one."""
    return one.settings_answer == comparison.settings_answer and not _shows_nothing(one)


def _shows_nothing(one: MetricComparison) -> bool:
    return one.margin is None and one.settings_answer == "inconclusive"


def _by(one: MetricComparison) -> str:
    if one.settings_answer == "inconclusive":
        return f"By {one.metric} it stays open {_means(one)}."
    are = "they are" if one.settings_answer == "equivalent" else "it is"
    return f"By {one.metric} {are} {one.settings_answer} {_means(one)}."


def _means(one: MetricComparison) -> str:
    if one.is_perplexity:
        return f"({perplexity(one.arm_mean)} against {perplexity(one.reference_mean)})"
    return f"({one.arm_mean:.4f} against {one.reference_mean:.4f})"


# --- what the answer rests on ----------------------------------------------------------------


def _basis(verdict: Verdict) -> list[str]:
    chosen = ", ".join(
        f"{one.arm} {perplexity(one.perplexity)} (the settings of the search's trial {one.trial})"
        for one in verdict.confirmed
    )
    tokens = f"{verdict.held_back_tokens:,} tokens of " if verdict.held_back_tokens else ""
    return [
        f"Mean {verdict.metric}: {chosen}, over {len(verdict.seeds)} seeds that neither the search "
        f"nor the choice of settings used, on {tokens}validation stories that no trial of the "
        f"search was measured on.",
        f"The answers are about these settings, and the luck of the search is not in the "
        f"intervals: another search may find others. In simulated studies of two arms that are "
        f"equally good at their best, {SEARCH_LUCK:.0%} of such answers were better or worse.",
    ]


def _warnings(verdict: Verdict, search: tuple[int, int]) -> list[str]:
    lines = []
    finished, total = search
    if finished < total:
        lines.append(f"The search is not finished: {finished} of {total} trials.")
    for one in verdict.confirmed:
        if one.range_ends:
            lines.append(_at_range_ends(one))
        if one.lost_seeds:
            lines.append(
                f"{len(one.lost_seeds)} of the {len(verdict.seeds)} runs of {one.arm} "
                f"({_seeds(one.lost_seeds)}) diverged, ran out of memory or took too long, and "
                f"count as guessing uniformly."
            )
        if one.outlier_seed is not None:
            lines.append(_outlier(one, verdict))
    return lines + [
        _interim(comparison)
        for comparison in verdict.comparisons
        if len(comparison.analysed_seeds) > 1
    ]


def _at_range_ends(one: ConfirmedArm) -> str:
    ends = [f"{end.parameter} {number(end.value)} (the {end.end})" for end in one.range_ends]
    return (
        f"The settings of {one.arm} are at the end of what was searched: {_listed(ends)}; whether "
        f"values beyond are better, this search cannot say."
    )


def _outlier(one: ConfirmedArm, verdict: Verdict) -> str:
    """Name the seed that is not like the others, and say what it does to the answer."""
    index = verdict.seeds.index(one.outlier_seed or 0)
    others = sorted(one.perplexities[:index] + one.perplexities[index + 1 :])
    pairs = [pair.difference.per_seed for pair in verdict.comparisons if pair.arm == one.arm]
    without = [_percent(math.exp(fmean(p[:index] + p[index + 1 :]))) for p in pairs]
    alone = f" Without it the change would be {without[0]}." if without else ""
    return (
        f"{one.arm} is not stable at these settings: seed {one.outlier_seed} ended at "
        f"{perplexity(one.perplexities[index])} and the others at {perplexity(others[0])} to "
        f"{perplexity(others[-1])}, which is what makes the interval wide.{alone} It counts all "
        f"the same, since whoever trains with them meets such seeds; more seeds say how often."
    )


def _interim(comparison: Comparison) -> str:
    seeds = _listed([str(count) for count in comparison.analysed_seeds])
    level = confidence(comparison.difference.error_rate)
    return (
        f"{comparison.arm} and {comparison.reference} have been analysed "
        f"{len(comparison.analysed_seeds)} times, with {seeds} seeds; this is analysis "
        f"{comparison.analysis}, so its interval is of {level}, for those of all analyses to hold "
        f"the truth together in {1 - ERROR_RATE:.0%} of studies."
    )


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {_listed([str(seed) for seed in seeds])}"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _apart(ratio: float) -> str:
    """Put a ratio of perplexities into words: "2.10% above"."""
    return f"{abs(ratio - 1):.2%}" + (" above" if ratio > 1 else " below")


def _percent(ratio: float) -> str:
    return f"{ratio - 1:+.2%}"
