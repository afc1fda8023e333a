"""Figures of an evaluation and of a configuration, as all trackers log them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt.events import Evaluation


def metrics_of(evaluation: "Evaluation | None") -> dict[str, float]:
    """Return every figure of an evaluation that was measured, by its name, without the step."""
    if evaluation is None:
        return {}
    values = asdict(evaluation)
    del values["step"]
    return {name: float(value) for name, value in values.items() if value is not None}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables to "table.key", as trackers show them best."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = value
    return values
