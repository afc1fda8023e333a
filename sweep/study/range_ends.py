"""Settings at an end of what was searched: values beyond might be better, or might not.

"n_layer 1 (the least)" says that no smaller network was tried.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.study.format import number
from sweep.study.search_space import Parameter

EDGE = 0.01  # of a range: a value that near to an end is at the end


@dataclass(frozen=True)
class RangeEnd:
    """A value at an end of what was searched."""

    parameter: str
    value: float
    end: str  # "least" or "most"


def range_ends(search: Mapping[str, Parameter], params: Mapping[str, Any]) -> Iterator[RangeEnd]:
    """Yield the numbers that lie at an end of their range, or within EDGE of it.

    Of logarithmic ranges, EDGE is a share of the logarithm. The least and the most of three or more
    numbers to choose from are ends, too.
    """
    for name, value in params.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        share = _share_of_range(search[name], value)
        if share <= EDGE or share >= 1 - EDGE:
            yield RangeEnd(name, value, "least" if share <= EDGE else "most")


def _share_of_range(parameter: Parameter, value: float) -> float:
    """Return 0 at the low end and 1 at the high end; of choices, 0.5 is anything between."""
    if parameter.choices is not None:
        numbers = [one for one in parameter.choices if isinstance(one, int | float)]
        if len(numbers) < 3 or min(numbers) < value < max(numbers):
            return 0.5
        return float(value == max(numbers))
    values = parameter.values()
    at, low, high = (
        math.log(one) if parameter.log else float(one) for one in (value, values[0], values[-1])
    )
    return (at - low) / (high - low)


def ends_of_trial(spec: Mapping[str, Any] | None, params: Mapping[str, Any]) -> str:
    """Name the settings of a trial that lie at an end of what was searched; "" if none does.

    Args:
        spec: StudySpec as JSON, as a database holds it; None: another program's study.
        params: Of the trial.
    """
    tables = (spec or {}).get("search", {})
    not_tuned = {(spec or {}).get("compare"), "seed"}  # seeds: of a verdict
    drawn = [name for name in params if name in tables and name not in not_tuned]
    search = {name: Parameter.model_validate(tables[name]) for name in drawn}
    return ends_in_words(range_ends(search, {name: params[name] for name in drawn}))


def ends_in_words(ends: Iterable[RangeEnd]) -> str:
    """Name values at an end: "n_layer 1 (the least), dropout 0 (the least)"."""
    return ", ".join(f"{end.parameter} {number(end.value)} (the {end.end})" for end in ends)
