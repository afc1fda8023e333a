"""The answer in plain words: a table, then one paragraph. Add a warning in `_warnings`."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any

from sweep.study.format import number, perplexity
from sweep.study.range_ends import ends_in_words
from sweep.verdict.compare import Comparison, ConfirmedArm, MetricComparison, Verdict
from sweep.verdict.statistics import ERROR_RATE

# Of simulated studies whose two arms are equally good at their best, the share in which the
# settings that one search found are better or worse: "no difference" in
# tests/benchmarks/verdict.json.
SEARCH_LUCK = 0.39


LUCK_IS_LEFT_OUT = (
    f"The answers are about these settings, and the luck of the search is not in the intervals: "
    f"another search may find others (--searches K says how much that matters). In simulated "
    f"studies of two arms that are equally good at their best, {SEARCH_LUCK:.0%} of such answers "
    f"were better or worse."
)

GUESSING = "guessing uniformly"


def paragraph(
    verdict: Verdict,
    search: tuple[int, int],
    notice: str | None,
    earlier: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """Say what a reader should take away, in one paragraph.

    Args:
        verdict: The answer.
        search: Finished trials of the sweep, and how many there are to be.
        notice: What must be known of the text, such as that it is not the usual one.
        earlier: Trials by arm that ran before the study was extended.
    """
    sentences = [sentence for one in verdict.comparisons for sentence in _compared(one, verdict)]
    sentences += [*_basis(verdict), *_extended(verdict, earlier), *_warnings(verdict, search)]
    return " ".join(sentences + ([f"Note: {notice.rstrip('.')}."] if notice else []))


def headline(verdict: Verdict) -> list[str]:
    """Return one sentence per comparison."""
    return [_compared(one, verdict)[0] for one in verdict.comparisons]


def table_columns(record: Mapping[str, Any]) -> list[str]:
    """Return the headings of `table_rows`.

    Args:
        record: sweep.verdict.record's.
    """
    name = "perplexity" if record.get("is_perplexity", True) else record["metric"]
    columns = ["arm", "search's trial", name, "change", "interval", "if the only analysis"]
    return [*columns, "these settings are"]


def figure_format(is_perplexity: bool) -> Callable[[float], str]:
    """Return the function that writes values of the compared metric."""
    return perplexity if is_perplexity else number


def table_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """Return a row per arm for `table_columns`, the reference first.

    Args:
        record: sweep.verdict.record's.
    """
    compared = {one["arm"]: one for one in record["comparisons"]}
    shown = figure_format(record.get("is_perplexity", True))
    rows = []
    for one in record["confirmed"]:
        row = [one["arm"], str(one["trial"]), shown(one["perplexity"])]
        if one["arm"] in compared:
            comparison = compared[one["arm"]]
            ends = " to ".join(percent(comparison[key]) for key in ("ratio_low", "ratio_high"))
            level = confidence(comparison["difference"]["error_rate"])
            row += [percent(comparison["ratio"]), f"{ends} ({level})", _only_analysis(comparison)]
            row += [comparison["settings_answer"]]
        else:
            row += ["", "", "", "the reference"]
        rows.append(row)
    return rows


def _only_analysis(comparison: Mapping[str, Any]) -> str:
    """Write the interval of a single analysis; a record of an earlier version has none."""
    if "only_analysis" not in comparison:
        return ""
    return f"{' to '.join(map(percent, comparison['only_analysis']))} ({confidence(ERROR_RATE)})"


def confidence(error_rate: float) -> str:
    """Return the level of an interval: "97%"."""
    return f"{100 * (1 - error_rate):.4g}%"


# --- comparisons -----------------------------------------------------------------------------


def _compared(comparison: Comparison, verdict: Verdict) -> list[str]:
    arm, reference = comparison.arm, comparison.reference
    level = confidence(comparison.difference.error_rate)
    ends = f"{percent(comparison.ratio_low)} to {percent(comparison.ratio_high)}"
    lost = lost_in_both(comparison.lost_pairs, len(verdict.seeds), arm, reference)
    found = f"{lost}With the settings that this search found,"
    interval = f"({level} interval of the change {ends})"
    apart = f"{apart_of(comparison.ratio)} that of {reference} {interval}"
    answer = comparison.settings_answer
    margin = 0.0 if lost else verdict.margin
    first = answered(found, arm, reference, answer, verdict.metric, apart, verdict.margin)
    alone = settled_alone(
        answer, comparison.ratio_low, comparison.ratio_high, margin, len(verdict.comparisons)
    )
    further = [_further(comparison)] if answer == "inconclusive" and not lost else []
    ends = " to ".join(percent(end) for end in comparison.only_analysis)
    once = f"As the only analysis ever made, its {confidence(ERROR_RATE)} interval is {ends}."
    return [first, *alone, *further, once, *_by_other_metrics(comparison)]


def settled_alone(
    answer: str, low: float, high: float, margin: float, comparisons: int
) -> list[str]:
    """Explain an open answer beside an interval that seems to settle it; empty of all others.

    Args:
        answer: One of sweep.verdict.compare's.
        low: Of the ratio of perplexities.
        high: Of the ratio.
        margin: Of perplexity; 0: no equivalence is claimed.
        comparisons: With the reference, in all. Holm's correction is in answers, not in intervals.
    """
    apart = low > 1 or high < 1
    alike = 1 / (1 + margin) < low and high < 1 + margin
    if answer != "inconclusive" or comparisons < 2 or not (apart or alike):
        return []
    return [
        f"By itself this interval would settle it; corrected for {comparisons} comparisons it "
        f"does not."
    ]


def lost_in_both(pairs: int, of: int, arm: str, reference: str) -> str:
    """Return the sentence on pairs whose runs were both lost, and a space; empty without any."""
    if not pairs:
        return ""
    return (
        f"{pairs} of {of} pairs of runs of {arm} and {reference} were lost in both arms: they "
        f"count as no difference, so none is ruled out. "
    )


def answered(
    found: str, arm: str, reference: str, answer: str, metric: str, apart: str, margin: float
) -> str:
    """Return the sentence that answers a comparison.

    Args:
        found: The words before it, which say what it is about.
        arm: The arm that is compared.
        reference: With which.
        answer: One of sweep.verdict.compare's.
        metric: In words.
        apart: How far the arms are apart, with the interval.
        margin: Of perplexity.
    """
    if answer == "equivalent":
        return (
            f"{found} {arm} and {reference} are equivalent: the {metric} of {arm} is {apart}, all "
            f"within the {100 * margin:g}% that does not matter."
        )
    is_it = f"{arm} is {answer} than {reference}"
    if answer == "inconclusive":
        is_it = f"it stays open whether {arm} is better than {reference}"
    return f"{found} {is_it}: its {metric} is {apart}."


def _further(comparison: Comparison) -> str:
    seeds = comparison.further_seeds
    if seeds is None:
        return "No number of seeds that anybody would run is expected to settle it."
    total = len(comparison.difference.per_seed) + seeds
    return (
        f"About {seeds} more seeds should settle it, if the figures are what they seem: "
        f"`--until settled --max-seeds N` adds them until they do. The interval with {total} seeds "
        f"is of {confidence(comparison.next_error_rate)}, however many there were before."
    )


def _by_other_metrics(comparison: Comparison) -> list[str]:
    """Say by which metrics the answer is the same, and what the others say."""
    others = comparison.other_metrics
    same = [one for one in others if _is_same(one, comparison)]
    silent = [one for one in others if one not in same and _shows_nothing(one)]
    sentences = [_by(one) for one in others if one not in same and one not in silent]
    if same:
        names = listed([one.metric for one in same])
        sentences.insert(0, f"By {names} the answer is the same.")
    if silent:
        names = listed([f"{one.metric} {_means(one)}" for one in silent])
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
    shown = figure_format(verdict.is_perplexity)
    chosen = ", ".join(
        f"{one.arm} {shown(one.perplexity)} (the settings of the search's trial {one.trial})"
        for one in verdict.confirmed
    )
    of = f"{verdict.held_back_tokens:,} tokens of " if verdict.held_back_tokens else ""
    of += f"{verdict.held_back_stories:,} " if verdict.held_back_stories else ""
    measured_on = (
        "on the validation data of the search: the program keeps none back, so the runs are "
        "paired by seed alone"
        if verdict.is_program
        else f"on {of}validation stories that no trial of the search was measured on"
    )
    return [
        f"Mean {verdict.metric}: {chosen}, over {len(verdict.seeds)} seeds that neither the search "
        f"nor the choice of settings used, {measured_on}.",
        LUCK_IS_LEFT_OUT,
    ]


def _extended(verdict: Verdict, earlier: Mapping[str, int]) -> list[str]:
    """Say which arms searched a smaller space for a part of their budget."""
    counts = [
        f"{earlier[one.arm]} of {one.arm}" for one in verdict.confirmed if earlier.get(one.arm)
    ]
    if not counts:
        return []
    return [
        f"The study was extended while it ran: {listed(counts)} are trials from before, when it "
        f"searched less."
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
                f"count as {'the worst that was measured' if verdict.is_program else GUESSING}."
            )
        elif len(set(one.perplexities)) == 1:
            lines.append(
                f"All {len(verdict.seeds)} runs of {one.arm} ended at the same {verdict.metric}, "
                f"so they show no spread; check that the program uses its seed."
            )
        if one.outlier_seed is not None:
            lines.append(_outlier(one, verdict))
    return lines + [
        _interim(comparison)
        for comparison in verdict.comparisons
        if len(comparison.analysed_seeds) > 1
    ]


def _at_range_ends(one: ConfirmedArm) -> str:
    return (
        f"The settings of {one.arm} are at the end of what was searched: "
        f"{ends_in_words(one.range_ends)}; whether values beyond are better, this search "
        f"cannot say."
    )


def _outlier(one: ConfirmedArm, verdict: Verdict) -> str:
    """Name the seed that is not like the others, and say what it does to the answer."""
    shown = figure_format(verdict.is_perplexity)
    index = verdict.seeds.index(one.outlier_seed or 0)
    others = sorted(one.perplexities[:index] + one.perplexities[index + 1 :])
    pairs = [pair.difference.per_seed for pair in verdict.comparisons if pair.arm == one.arm]
    without = [percent(math.exp(fmean(p[:index] + p[index + 1 :]))) for p in pairs]
    alone = f" Without it the change would be {without[0]}." if without else ""
    return (
        f"{one.arm} is not stable at these settings: seed {one.outlier_seed} ended at "
        f"{shown(one.perplexities[index])} and the others at {shown(others[0])} to "
        f"{shown(others[-1])}, which is what makes the interval wide.{alone} It counts all "
        f"the same, since whoever trains with them meets such seeds; more seeds say how often."
    )


def _interim(comparison: Comparison) -> str:
    seeds = listed(comparison.analysed_seeds)
    level = confidence(comparison.difference.error_rate)
    other = (
        f" They are question {comparison.question} of these two arms, after other settings or more "
        f"seeds, which makes intervals wider."
        if comparison.question > 1
        else ""
    )
    return (
        f"{comparison.arm} and {comparison.reference} have been analysed "
        f"{len(comparison.analysed_seeds)} times, with {seeds} seeds. Every number of seeds "
        f"counts, analysed or not: this interval is of {level}, for all of them to hold the truth "
        f"together in {1 - ERROR_RATE:.0%} of studies.{other}"
    )


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {listed(seeds)}"


def listed(values: Sequence[object]) -> str:
    """Join values as in a sentence: "5, 9 and 29"."""
    names = [str(value) for value in values]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def apart_of(ratio: float) -> str:
    """Put a ratio of perplexities into words: "2.10% above"."""
    return f"{abs(ratio - 1):.2%}" + (" above" if ratio > 1 else " below")


def percent(ratio: float) -> str:
    """Write a ratio as a change: "+2.10%"."""
    return f"{ratio - 1:+.2%}"
