"""The ledger of interim analyses: every number of seeds with which two arms were compared.

The error rate of an analysis depends on the first one of its question (sweep.verdict.statistics),
so the ledger is kept with the study, per pair, and only ever grows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna

from sweep.storage.schema import study_attrs

# arms (two, sorted), trials (of the sweep, in their order), seeds; or
# arms, searches, budget, seeds, winners (the two trials of each search)
Analysis = dict[str, Any]


def make_analysis(trials: Mapping[str, int], arm: str, reference: str, seeds: int) -> Analysis:
    """Return the ledger's entry of one comparison.

    Args:
        trials: The trial of the sweep whose settings stand for each arm.
        arm: One of the pair; which of them is the reference makes no difference.
        reference: The other one.
        seeds: Number of pairs of runs.
    """
    pair = sorted([arm, reference])
    return {"arms": pair, "trials": [trials[one] for one in pair], "seeds": seeds}


def stored_analyses(study: optuna.Study) -> list[Analysis]:
    """Read the ledger of a sweep, the oldest entry first."""
    attrs = study_attrs(study)
    if attrs.interim_analyses is not None:
        return attrs.interim_analyses
    return list(_of_earlier_version(attrs.verdict or {}))


def _of_earlier_version(record: Mapping[str, Any]) -> Iterable[Analysis]:
    """Analyses that a verdict of an earlier version lists, under the name of looks."""
    trials = {one["arm"]: one["trial"] for one in record.get("confirmed", [])}
    for seeds in record.get("looks", []):
        for one in record["comparisons"]:
            yield make_analysis(trials, one["arm"], one["reference"], seeds)


def extended(ledger: Sequence[Analysis], new: Iterable[Analysis]) -> list[Analysis]:
    """Append the entries that the ledger does not have yet."""
    longer = list(ledger)
    longer += [one for one in new if one not in longer]
    return longer


def of_pair(ledger: Iterable[Analysis], analysis: Analysis) -> list[Analysis]:
    """Return all analyses of the same two arms, whatever their settings."""
    return [one for one in ledger if one["arms"] == analysis["arms"] and "searches" not in one]


def search_analysis(
    winners: Sequence[Mapping[str, int]], arm: str, reference: str, seeds: int, budget: int
) -> Analysis:
    """Return the ledger's entry of a comparison over searches.

    Other winners, seeds or trials are other data, and so another chance of a false answer.

    Args:
        winners: The trial that stands for each arm, by search.
        arm: One of the pair; which of them is the reference makes no difference.
        reference: The other one.
        seeds: Number of pairs of runs of each search.
        budget: Trials of each search.
    """
    pair = sorted([arm, reference])
    return {
        "arms": pair,
        "searches": len(winners),
        "budget": budget,
        "seeds": seeds,
        "winners": [[of_search[one] for one in pair] for of_search in winners],
    }


def of_searches(ledger: Iterable[Analysis], analysis: Analysis) -> list[Analysis]:
    """Return all analyses over searches of the same two arms, whatever their data.

    Those that an earlier version noted have neither seeds nor winners, and count as others.
    """
    return [one for one in ledger if one["arms"] == analysis["arms"] and "searches" in one]


def question_of(analyses: Iterable[Analysis], analysis: Analysis) -> tuple[int, int]:
    """Return the number of an analysis's question, from 1 on, and the seeds of its first analysis.

    Settings other than before, or fewer seeds than at first, are another question.

    Args:
        analyses: Of the pair, the oldest first, with this one.
        analysis: This one.
    """
    firsts: list[Analysis] = []
    for one in analyses:
        of = next((n for n, first in enumerate(firsts) if _continues(first, one)), len(firsts))
        if of == len(firsts):
            firsts.append(one)
        if one == analysis:
            return of + 1, firsts[of]["seeds"]
    raise ValueError("the analyses must hold the one whose question is asked for")


def _continues(first: Analysis, one: Analysis) -> bool:
    return bool(one["trials"] == first["trials"] and one["seeds"] >= first["seeds"])
