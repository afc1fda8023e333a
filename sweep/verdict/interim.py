"""The ledger of interim analyses: every number of seeds with which two arms were compared.

Each further analysis of a pair of arms has a smaller error rate (sweep.verdict.statistics), so the
ledger is kept with the study, per pair, and only ever grows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna

from sweep.storage.schema import study_attrs

Analysis = dict[str, Any]  # arms (two, sorted), trials (of the sweep, in their order), seeds


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
    return [one for one in ledger if one["arms"] == analysis["arms"]]
