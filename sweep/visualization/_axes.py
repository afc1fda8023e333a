"""Parts of several plots: axes of parameters, hover texts, shifts that keep arms apart."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from sweep.study.metric import Metric
from sweep.visualization.style import log_ticks


def parameter_axis(parameter: str, distribution: BaseDistribution) -> dict[str, Any]:
    """Make an axis over the range that was searched, also where no trial was."""
    axis: dict[str, Any] = {"title_text": parameter}
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        axis |= {"type": "category", "categoryorder": "array", "categoryarray": choices}
        return axis | {"range": [-0.5, len(choices) - 0.5]}
    ends: Any = distribution  # float and int distributions alike
    if ends.log:
        low, high = math.log10(ends.low), math.log10(ends.high)
        axis |= log_axis(ends.low, ends.high)
    else:
        low, high = ends.low, ends.high
    if isinstance(distribution, IntDistribution) and not ends.log:
        return axis | {"range": [low - 0.5, high + 0.5]} | integer_ticks(high - low)
    margin = 0.04 * (high - low)
    return axis | {"range": [low - margin, high + margin]}


def log_axis(low: float, high: float) -> dict[str, Any]:
    """Make a logarithmic axis for values from `low` to `high`."""
    written = "~e" if low < 1e-3 else ",~g"  # 6e-5 rather than 0.00006
    return {"type": "log", "tickformat": written, "nticks": log_ticks(low, high, most=2.5)}


def integer_ticks(extent: float) -> dict[str, Any]:
    """Make ticks at integers: plotly would label halves as well, rounded."""
    return {"tickformat": "d", "dtick": 1 if extent <= 12 else None}


def offsets(arms: Sequence[str]) -> dict[str, float]:
    """Return a small shift per arm, so that equal integers do not hide each other."""
    return {arm: 0.16 * (i - (len(arms) - 1) / 2) for i, arm in enumerate(arms)}


def labelled(arm: str, hover: str = "%{text}") -> dict[str, Any]:
    """Return name, legend group and hover text of a trace, with "<" escaped for plotly."""
    name = html.escape(arm, quote=False)
    text = f"<b>{name}</b><br>{hover}<extra></extra>"
    return {"name": name, "legendgroup": name, "hovertemplate": text}


def colour_scale(
    low: float, high: float, shown: Callable[[float], float], metric: Metric
) -> dict[str, Any]:
    """Make a scale of colours from `low` to `high` on which dark is better.

    Args:
        low: In the unit of the map.
        high: Likewise.
        shown: Returns the result that a number of that unit stands for.
        metric: What the trials are ranked by.
    """
    marks = [low + i * (high - low) / 4 for i in range(5)]
    bar = {
        "title": {"text": "perplexity", "side": "right"},
        "tickvals": marks,
        "ticktext": [f"{shown(mark):,.3g}" for mark in marks],
        "outlinewidth": 0,
        "thickness": 14,
    }
    colours = "Cividis_r" if metric.maximize else "Cividis"
    return {"colorscale": colours, "cmin": low, "cmax": high, "colorbar": bar}


def written(value: float, metric: Metric) -> str:
    """Write a result in a hover text."""
    return f"{value:,.2f}" if metric.is_perplexity else metric.shown(value)


def rows(data: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table, with Python values."""
    return data.to_dict("records")
