"""The answer over searches in plain words, and its tables' rows."""

from collections.abc import Mapping
from typing import Any

from sweep.verdict.statistics import ERROR_RATE
from sweep.verdict.summary_text import (
    answered,
    apart_of,
    confidence,
    figure_format,
    listed,
    lost_in_both,
    percent,
    settled_alone,
)


def sentences(found: Mapping[str, Any], metric: str, margin: float) -> list[str]:
    """Return one sentence per comparison: the answer to which loss is better when tuned so.

    Args:
        found: searches.compare.SearchesVerdict as plain values.
        metric: The study's, in words.
        margin: Of perplexity.
    """
    return [
        " ".join([_compared(one, found, metric, margin), *_alone(one, found, margin)])
        for one in found["comparisons"]
    ]


def basis(found: Mapping[str, Any]) -> list[str]:
    """Say what the intervals over searches have in them."""
    spreads = [
        f"{one['arm']} to {one['reference']} {100 * one['between_searches']:.2f}% between searches "
        f"and {100 * one['between_seeds']:.2f}% between seeds"
        for one in found["comparisons"]
    ]
    analyses = [
        f"{one['arm']} and {one['reference']} have been analysed "
        f"{len(one['analysed_searches'])} times, over {listed(one['analysed_searches'])} searches "
        f"with other winners, seeds or trials; each but the first has a small share of the "
        f"{ERROR_RATE:.0%}."
        for one in found["comparisons"]
        if len(one["analysed_searches"]) > 1
    ]
    return [
        f"That is over {found['searches']} independent searches of {found['trials']} trials in "
        f"all, the winners of each trained on {found['seeds']} seeds of their own, so the luck of "
        f"the search is in these intervals. Standard deviations: {'; '.join(spreads)}.",
        *analyses,
        "What follows is about the settings that the first search found.",
    ]


def _compared(one: Mapping[str, Any], found: Mapping[str, Any], metric: str, margin: float) -> str:
    arm, reference = one["arm"], one["reference"]
    up_to = "up to " if found["trials"] % found["arms"] else ""
    trials = -(-found["trials"] // found["arms"])
    pairs = found["searches"] * found["seeds"]
    lost = lost_in_both(one["lost_pairs"], pairs, arm, reference)
    tuned = f"{lost}Tuned with {up_to}{trials} trial{'s' if trials > 1 else ''} each,"
    level = confidence(one["difference"]["error_rate"])
    apart = (
        f"{apart_of(one['ratio'])} that of {reference} ({level} interval over searches and seeds "
        f"{percent(one['ratio_low'])} to {percent(one['ratio_high'])}; as the only analysis ever "
        f"made, {confidence(ERROR_RATE)} {' to '.join(map(percent, one['only_analysis']))})"
    )
    return answered(tuned, arm, reference, one["answer"], metric, apart, margin)


def _alone(one: Mapping[str, Any], found: Mapping[str, Any], margin: float) -> list[str]:
    """Explain an open answer beside an interval that seems to settle it."""
    ends, own_margin = (one["ratio_low"], one["ratio_high"]), 0.0 if one["lost_pairs"] else margin
    return settled_alone(one["answer"], *ends, own_margin, len(found["comparisons"]))


def winner_columns(metric: str) -> list[str]:
    """Return the headings of `winner_rows`."""
    return ["search", "study", "arm", "its winner", metric, "change"]


def winner_rows(found: Mapping[str, Any], *, is_perplexity: bool) -> list[list[str]]:
    """Return a row per search and arm: what was found, and what it is worth on fresh seeds."""
    shown = figure_format(is_perplexity)
    return [
        [
            str(one["search"]),
            one["study"],
            winner["arm"],
            f"trial {winner['trial']}",
            shown(winner["perplexity"]),
            "" if winner["ratio"] is None else percent(winner["ratio"]),
        ]
        for one in found["of_each"]
        for winner in one["winners"]
    ]
