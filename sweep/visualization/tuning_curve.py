"""Quantile tuning curve of each arm: the median of the best of n trials, with a band."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sweep.analysis.tuning_curve import LOWEST_PERPLEXITY
from sweep.study.metric import PERPLEXITY, Metric
from sweep.visualization._axes import integer_ticks, labelled, rows, written
from sweep.visualization.style import (
    Frame,
    add_floor,
    arm_colours,
    arm_dashes,
    arm_symbols,
    empty_figure,
    finish,
    frame,
    plain,
)

MAX_MARKS = 40  # along the curve; a search of 500 trials needs no point for each of them
BAND = 0.16  # opacity


def plot_tuning_curve(
    table: pd.DataFrame,
    arms: Sequence[str],
    floor: float | None = None,
    metric: Metric = PERPLEXITY,
) -> go.Figure:
    """Draw the median perplexity of the best of n trials against what n trials cost.

    Arms are compared at equal cost, in tokens; where that is not known, at equal n. The band is
    drawn to the edge of the frame if the trials do not bound it.

    Args:
        table: tuning_curve.tuning_curve_table.
        arms: All arms of the study.
        floor: The lowest perplexity that any model can reach, if it is known.
        metric: What the trials are ranked by.
    """
    found = table[table["perplexity"].abs() < math.inf]
    if found.empty:
        return empty_figure("No complete trial yet.")
    by_cost = bool(table["cost"].notna().all())
    table = table.assign(x=table["cost"] if by_cost else table["n"])
    found = table[table["perplexity"].abs() < math.inf]
    ends = table["high"][(table["high"] < math.inf) & (table["n"] > 1)]
    shown = frame([*found["perplexity"], *ends], floor)
    figure = go.Figure()
    banded = table[table["high"].notna()]
    for arm, colour in arm_colours(arms).items():
        if (banded["arm"] == arm).any():
            figure.add_trace(_band(_thinned(banded[banded["arm"] == arm]), arm, colour, shown))
    for arm, colour in arm_colours(arms).items():
        curve = _curve(_thinned(found[found["arm"] == arm]), arm, metric)
        marker = {"symbol": arm_symbols(arms)[arm], "size": 6}
        figure.add_trace(curve.update(line={"color": colour, "dash": arm_dashes(arms)[arm]}))
        figure.data[-1].update(marker=marker)
    add_floor(figure, floor, [float(table["x"].min()), float(table["x"].max())], shown)
    figure.update_xaxes(_cost_axis(table) if by_cost else _trials_axis(int(table["n"].max())))
    return finish(figure, shown)


def _cost_axis(table: pd.DataFrame) -> dict[str, Any]:
    most = float(table["cost"].max())
    title = "tokens that n trials of the arm trained on"
    return {"title_text": title, "range": [0.0, 1.03 * most], "tickformat": "~s"}


def _trials_axis(most: int) -> dict[str, Any]:
    return {
        "title_text": "trials of the arm, n",
        "range": [0.5, most + 0.5],
        **integer_ticks(most),
    }


def _thinned(of_arm: pd.DataFrame) -> pd.DataFrame:
    """Select all of the first rows, then ever fewer: the curve bends at its beginning."""
    last = len(of_arm)
    if last <= MAX_MARKS:
        return of_arm
    kept = {round(last ** (i / (MAX_MARKS - 1))) - 1 for i in range(MAX_MARKS)}
    return of_arm.iloc[sorted(kept)]


def _band(of_arm: pd.DataFrame, arm: str, colour: str, shown: Frame) -> go.Scatter:
    """Draw one outline: along the upper ends, and back along the lower ones."""
    steps = plain(of_arm["x"])
    high = plain(of_arm["high"].where(of_arm["high"] < math.inf, shown.high))
    low = plain(of_arm["low"].clip(lower=shown.low))  # never under what is possible
    area = go.Scatter(x=steps + steps[::-1], y=high + low[::-1], fill="toself", mode="none")
    area.update(fillcolor=colour, opacity=BAND, **labelled(arm))
    return area.update(showlegend=False, hoverinfo="skip", hovertemplate=None)


def _curve(of_arm: pd.DataFrame, arm: str, metric: Metric) -> go.Scatter:
    texts = [
        f"{row['n']} trials{_tokens(row['cost'])}: {written(row['perplexity'], metric)}"
        f"{_ends(row['low'], row['high'])}"
        for row in rows(of_arm)
    ]
    return go.Scatter(
        x=plain(of_arm["x"]),
        y=plain(of_arm["perplexity"]),
        text=texts,
        mode="lines+markers",
        line={"width": 2.5},
        **labelled(arm),
    )


def _tokens(cost: float) -> str:
    return "" if math.isnan(cost) else f", {cost:,.0f} tokens"


def _ends(low: float, high: float) -> str:
    """Put the band into words, as far as the trials bound it; nothing where there is none."""
    if math.isnan(high):
        return ""
    bounded = low > LOWEST_PERPLEXITY
    if high == math.inf:
        ends = f"from {low:,.2f} on" if bounded else "not bounded by so few trials"
    else:
        ends = f"{low:,.2f} to {high:,.2f}" if bounded else f"up to {high:,.2f}"
    return f"<br>95% band {ends}"
