"""Seeds that are added until a verdict is settled."""

import math
from collections.abc import Mapping
from typing import Any

DEFAULT_MAX_SEEDS = 40  # of each arm, where nobody says how many
GROWTH = 1.1  # of the seeds with each analysis: few runs are in vain, and few analyses in between


def next_seeds(seeds: int, most: int, at_once: int = 1, growth: float = GROWTH) -> int:
    """Return the number of seeds of the next analysis.

    Args:
        seeds: Of this one, below `most`.
        most: That there may be.
        at_once: Seeds whose runs fill all slots, so that none waits.
        growth: See GROWTH.
    """
    return min(most, max(seeds + at_once, math.ceil(growth * seeds)))


def is_settled(record: Mapping[str, Any]) -> bool:
    """Return True if no comparison of a verdict's record is open."""
    return all(one["settings_answer"] != "inconclusive" for one in record["comparisons"])


def starting_seeds(stored: Mapping[str, Any] | None, arms: list[str], seeds: int, most: int) -> int:
    """Return the seeds to begin with: where an earlier call stopped, else what is asked for.

    Args:
        stored: The study's last record.
        arms: That are compared.
        seeds: That are asked for.
        most: That there may be.
    """
    if stored is None or stored.get("arms") != arms:
        return seeds
    reached = len(stored["seeds"])
    return reached if seeds <= reached <= most else seeds


def analysis_in_words(record: Mapping[str, Any], following: int) -> str:
    """Say on a line what an analysis that settles nothing found, and what comes next."""
    found = ", ".join(
        f"{one['arm']} {one['settings_answer']} ({one['ratio'] - 1:+.2%}, "
        f"{one['ratio_low'] - 1:+.2%} to {one['ratio_high'] - 1:+.2%})"
        for one in record["comparisons"]
    )
    return f"{len(record['seeds'])} seeds: {found}; going on to {following}"
