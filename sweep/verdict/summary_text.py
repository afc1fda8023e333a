"""The answer as one paragraph in plain words. Knows no statistics."""

import math
from statistics import fmean

from sweep.format import perplexity
from sweep.verdict.compare import Comparison, Confirmed, Reading, Verdict


def paragraph(
    verdict: Verdict, search: tuple[int, int], notice: str | None, looks: list[int]
) -> str:
    """What a reader should take away.

    Args:
        verdict: The answer.
        search: Finished trials of the sweep, and how many there are to be.
        notice: What must be known of the text, such as that it is not the usual one.
        looks: Numbers of seeds with which this question has been answered before, and now.
    """
    sentences = [sentence for one in verdict.comparisons for sentence in _of(one, verdict.margin)]
    sentences += [*_basis(verdict), *_warnings(verdict, search, looks)]
    return " ".join(sentences + ([f"Note: {notice.rstrip('.')}."] if notice else []))


def headline(verdict: Verdict) -> list[str]:
    """Of that paragraph the sentences that answer, one per comparison."""
    return [_of(one, verdict.margin)[0] for one in verdict.comparisons]


def _of(comparison: Comparison, margin: float) -> list[str]:
    arm, reference = comparison.arm, comparison.reference
    ends = f"{_percent(comparison.ratio_low)} to {_percent(comparison.ratio_high)}"
    interval = f"(95% interval of the change {ends})"
    further: list[str] = []
    measured = f"its perplexity is {_apart(comparison.ratio)} that of {reference} {interval}"
    if comparison.answer == "equivalent":
        matters = f"surely less than the {100 * margin:g}% that would matter"
        first = f"{arm} and {reference} are equivalent: {measured}, {matters}."
    elif comparison.answer == "inconclusive":
        first = f"Whether {arm} is better than {reference} stays open: {measured}."
        further = [_further(comparison.further_seeds)]
    else:
        first = f"{arm} is {comparison.answer} than {reference}: {measured}."
    return [first, *further, *_by_other_yardsticks(comparison)]


def _by_other_yardsticks(comparison: Comparison) -> list[str]:
    """Whether the answer is the same however it is measured."""
    same = [one.yardstick for one in comparison.readings if one.answer == comparison.answer]
    other = [_reading(one) for one in comparison.readings if one.answer != comparison.answer]
    sentences = [f"By {_listed(same)} the answer is the same."] if same else []
    return sentences + [f"By {words}." for words in other]


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _reading(one: Reading) -> str:
    shown = (
        f"{perplexity(one.arm_mean)} against {perplexity(one.reference_mean)}"
        if one.is_perplexity
        else f"{one.arm_mean:.4f} against {one.reference_mean:.4f}"
    )
    answer = "the question stays open" if one.answer == "inconclusive" else f"it is {one.answer}"
    return f"{one.yardstick} {answer} ({shown})"


def _basis(verdict: Verdict) -> list[str]:
    chosen = ", ".join(
        f"{one.arm} {perplexity(one.perplexity)} (the settings of trial {one.trial})"
        for one in verdict.confirmed
    )
    tokens = f"{verdict.held_back_tokens:,} tokens of " if verdict.held_back_tokens else ""
    return [
        f"Confirmed perplexities: {chosen}; each is a mean over {len(verdict.seeds)} seeds that "
        f"neither the search nor the choice of settings used, on {tokens}validation stories that "
        f"no trial of the search was measured on. The answer and its interval are about these "
        f"settings: the luck of the search is not in them, another search may find others."
    ]


def _warnings(verdict: Verdict, search: tuple[int, int], looks: list[int]) -> list[str]:
    lines = []
    finished, total = search
    if finished < total:
        lines.append(f"The search is not finished: {finished} of {total} trials.")
    for one in verdict.confirmed:
        if one.blown_up:
            lines.append(
                f"{len(one.blown_up)} of the {len(verdict.seeds)} runs of {one.arm} "
                f"({_seeds(one.blown_up)}) diverged, ran out of memory or took too long, and "
                f"count as guessing uniformly."
            )
        if one.unstable is not None:
            lines.append(_unstable(one, verdict))
    if len(looks) > 1:
        lines.append(
            f"This question was answered before, with {', '.join(map(str, looks[:-1]))} seeds: "
            f"asking until the answer pleases makes a false one likelier than 5%."
        )
    return lines


def _unstable(one: Confirmed, verdict: Verdict) -> str:
    """Which seed is not like the others, and what it does to the answer."""
    place = verdict.seeds.index(one.unstable or 0)
    others = sorted(one.perplexities[:place] + one.perplexities[place + 1 :])
    pairs = [pair.difference.per_seed for pair in verdict.comparisons if pair.arm == one.arm]
    without = [_percent(math.exp(fmean(p[:place] + p[place + 1 :]))) for p in pairs]
    alone = f" Without it the change would be {without[0]}." if without else ""
    return (
        f"{one.arm} is not stable at these settings: seed {one.unstable} ended at "
        f"{perplexity(one.perplexities[place])} and the others at {perplexity(others[0])} to "
        f"{perplexity(others[-1])}, which is what makes the interval wide.{alone} It counts all "
        f"the same, since whoever trains with them meets such seeds; more seeds say how often."
    )


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {_listed([str(seed) for seed in seeds])}"


def _further(seeds: int | None) -> str:
    if seeds is None:
        return "No number of seeds that anybody would run is expected to settle it."
    return f"About {seeds} more seeds should settle it, if the figures are what they seem."


def _apart(ratio: float) -> str:
    """A ratio of perplexities in words: "2.1 % above"."""
    return f"{abs(ratio - 1):.1%}" + (" above" if ratio > 1 else " below")


def _percent(ratio: float) -> str:
    return f"{ratio - 1:+.1%}"
