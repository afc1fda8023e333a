"""Facts of a study that the scripts of its page need: axes, colours, other units of the curves."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution

from sweep.analysis.machine import flops_per_token
from sweep.analysis.study_reader import StudyReader, rows_of
from sweep.report.tables import metric_column
from sweep.study.format import SHORT_NAMES
from sweep.visualization.style import (
    FADED,
    FADED_ON_DARK,
    ON_DARK,
    PALETTE,
    arm_colours,
)

FILTERED = ("arm", "outcome", "origin")  # columns by whose values trials are filtered
UNITS = {  # of the horizontal axis of learning curves
    "tokens": "training tokens",
    "seconds": "seconds of training and evaluation",
    "flops": "floating-point operations of training",
}


@dataclass(frozen=True)
class Axis:
    """Axis of the parallel coordinates: a column of the table of all trials, and its ends."""

    name: str
    title: str
    low: float
    high: float
    log: bool
    choices: list[str] | None = None  # positions 0, 1, ... on the axis


def axes(reader: StudyReader) -> list[Axis]:
    """List the axes: arm, searched parameters, result. None that nothing was measured on."""
    found = [_of_choices("arm", reader.arms)] if len(reader.arms) > 1 else []
    found += [_of_parameter(name, space) for name, space in reader.parameters.items()]
    measured = reader.trials["perplexity"]
    measured = measured[measured.between(-math.inf, math.inf, inclusive="neither")]
    if len(measured):
        low, high = float(measured.min()), float(measured.max())
        log = low > 0 and high >= 10 * low
        metric = reader.metric
        found.append(Axis(metric_column(metric), metric.name, *_apart(low, high), log))
    return found


def _of_parameter(name: str, space: BaseDistribution) -> Axis:
    if isinstance(space, CategoricalDistribution):
        return _of_choices(name, [str(choice) for choice in space.choices])
    ends: Any = space  # float and int distributions alike
    return Axis(name, name, *_apart(float(ends.low), float(ends.high)), ends.log)


def _of_choices(name: str, choices: list[str]) -> Axis:
    return Axis(name, name, -0.5, len(choices) - 0.5, log=False, choices=choices)


def _apart(low: float, high: float) -> tuple[float, float]:
    if low < high:
        return low, high
    return low - abs(low) / 2 - 0.5 * (low == 0), high + abs(high) / 2 + 0.5


def kinds(reader: StudyReader) -> dict[str, list[str]]:
    """Return the values of each of FILTERED that distinguish trials, in the order of the trials."""
    found = {name: [str(v) for v in reader.trials[name].dropna().unique()] for name in FILTERED}
    found["arm"] = [arm for arm in reader.arms if arm in found["arm"]]
    return {name: values for name, values in found.items() if len(values) > 1}


def study_json(reader: StudyReader, of_page: list[Axis]) -> str:
    """Write the facts as JSON that may stand in a script element."""
    curves = reader.evaluations.sort_values(["trial_number", "step"])
    lowest = 0 if reader.metric.is_perplexity else -math.inf  # as in learning curves
    curves = curves[curves["perplexity"].between(lowest, math.inf, inclusive="neither")]
    timed = curves[curves["elapsed_seconds"].notna()]  # a copied study has no times
    facts = {
        "name": reader.study.study_name,
        "axes": [asdict(axis) for axis in of_page],
        "arms": {
            arm: {"colour": f"var(--arm-{PALETTE.index(colour)})"}
            for arm, colour in arm_colours(reader.arms).items()
        },
        "short_names": {short: name for name, short in SHORT_NAMES.items()},
        "on_dark": [
            *zip(PALETTE, ON_DARK, strict=True),
            (f'"opacity":{FADED}', f'"opacity":{FADED_ON_DARK}'),
        ],
        "seconds": {
            str(number): [round(float(value), 2) for value in of_trial]
            for number, of_trial in timed.groupby("trial_number")["elapsed_seconds"]
        },
        "flops": _flops(reader),
    }
    text = json.dumps(facts, allow_nan=False)
    return text.replace("<", "\\u003c")  # only a "<" could end the script element


def _flops(reader: StudyReader) -> dict[int, float]:
    """Return the floating-point operations a token of each trial whose model is known."""
    known = reader.trials[reader.trials["n_params"].notna()]
    train = reader.spec.get("train", {})  # read once: it comes from the database
    return {
        row["number"]: flops_per_token(
            {name: row[name] for name in reader.parameters if not pd.isna(row[name])},
            train,
            float(row["n_params"]),
        )
        for row in rows_of(known)
    }


def curve_units(reader: StudyReader) -> dict[str, str]:
    """Return the units of UNITS that every curve of the study can be drawn over, with words."""
    curves = reader.evaluations
    without_model = set(curves["trial_number"]) - set(_flops(reader))
    missing = {
        "seconds": curves["elapsed_seconds"].isna().any(),
        "flops": bool(without_model) or not curves["tokens"].any(),
    }
    units = UNITS if curves["tokens"].any() else UNITS | {"tokens": "training steps"}
    return {unit: words for unit, words in units.items() if not missing.get(unit)}
