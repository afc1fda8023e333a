"""Figures of an evaluation and of a configuration, as all trackers log them."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sweep.study.metric import PERPLEXITY, Metric

if TYPE_CHECKING:
    from gpt.events import Evaluation


UNCOUNTED = ("tokens", "peak_memory_bytes")  # 0 where a program does not say


def metrics_of(evaluation: "Evaluation", metric: Metric = PERPLEXITY) -> dict[str, float]:
    """Return every figure of an evaluation that was measured, by its name, without the step.

    Args:
        evaluation: Of a trial.
        metric: The figure in its field `perplexity`.
    """
    values = asdict(evaluation)
    del values["step"]
    value = values.pop("perplexity")
    values = {**values, metric.name: value}  # a name that may be that of another field
    values = {name: value for name, value in values.items() if value or name not in UNCOUNTED}
    measured = {name: float(value) for name, value in values.items() if value is not None}
    return {name: value for name, value in measured.items() if not math.isnan(value)}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables to "table.key", as trackers show them best."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = value
    return values
