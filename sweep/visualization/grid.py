"""Map over two parameters: number of trials in each cell, and the best of them."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from plotly.subplots import make_subplots

from sweep.analysis.results import UNFINISHED
from sweep.study.format import column_format
from sweep.study.metric import PERPLEXITY, Metric
from sweep.visualization._axes import colour_scale, labelled, rows
from sweep.visualization.style import (
    GREY,
    empty_figure,
    finish,
    plain,
)

MAX_CELLS = 6  # along a parameter; more of them would mostly be empty


def grid_data(
    trials: pd.DataFrame,
    x: str,
    y: str,
    space: dict[str, BaseDistribution],
    metric: Metric = PERPLEXITY,
) -> pd.DataFrame:
    """Count the finished trials of an arm in each cell of two parameters, with the best of them.

    Args:
        trials: results.trials_table.
        x: A searched parameter, cut into at most MAX_CELLS intervals of equal length if a number.
        y: Another one, likewise.
        space: Optuna's distribution of each parameter.

    Returns:
        arm, x, y (labels such as "0.05–0.1"), count (finished trials, whatever their end), best
        (the best perplexity of a complete one; NaN without any). Only cells with a trial.
    """
    finished = trials[~trials["outcome"].isin(UNFINISHED) & trials[x].notna() & trials[y].notna()]
    complete = finished["perplexity"].where(finished["outcome"] == "complete")
    data = pd.DataFrame(
        {
            "arm": finished["arm"],
            "x": _cells(finished[x], space[x]),
            "y": _cells(finished[y], space[y]),
            "perplexity": complete,
        }
    )
    cells = data.groupby(["arm", "x", "y"], observed=True)["perplexity"]
    best = "max" if metric.maximize else "min"
    table = cells.agg(count="size", best=best).reset_index()
    return table.astype({"x": "string", "y": "string"})


def _cells(values: "pd.Series[Any]", distribution: BaseDistribution) -> "pd.Series[Any]":
    """Return the label of each value's cell, as a category in the order of the cells."""
    labels = _labels(values, distribution)
    return labels.astype(pd.CategoricalDtype(_cell_names(distribution)[0], ordered=True))


def _labels(values: "pd.Series[Any]", distribution: BaseDistribution) -> "pd.Series[str]":
    names, edges = _cell_names(distribution)
    if isinstance(distribution, CategoricalDistribution):
        return values.map(dict(zip(distribution.choices, names, strict=True)))  # 0.0 is 0
    if edges is None:
        return values.map(str)
    logs = isinstance(distribution, FloatDistribution) and distribution.log
    numbers = values.astype("float64").map(math.log) if logs else values.astype("float64")
    step = (edges[1] - edges[0]) / len(names)
    cells = ((numbers - edges[0]) / step).clip(0, len(names) - 1).astype("int64")
    return cells.map(lambda cell: names[cell])


def _cell_names(distribution: BaseDistribution) -> tuple[list[str], tuple[float, float] | None]:
    """Return labels in order, and the ends of the range; without ends, a value is its own label."""
    if isinstance(distribution, CategoricalDistribution):
        return [str(choice) for choice in distribution.choices], None
    ends: Any = distribution
    if not isinstance(distribution, FloatDistribution) and ends.high - ends.low < 2 * MAX_CELLS:
        return [str(value) for value in range(ends.low, ends.high + 1)], None
    log = ends.log
    low, high = (math.log(ends.low), math.log(ends.high)) if log else (ends.low, ends.high)
    step = (high - low) / MAX_CELLS
    marks = [low + i * step for i in range(MAX_CELLS + 1)]
    shown = [f"{math.exp(mark) if log else mark:.2g}" for mark in marks]
    return [f"{a}–{b}" for a, b in pairwise(shown)], (low, high)


def plot_grid(
    trials: pd.DataFrame,
    x: str,
    y: str,
    arms: Sequence[str],
    space: dict[str, BaseDistribution],
    metric: Metric = PERPLEXITY,
) -> go.Figure:
    """Draw the best perplexity in each cell of two parameters and its trials, one map per arm.

    Colours are cividis, which reads the same in every form of colour blindness; dark is better.
    """
    data = grid_data(trials, x, y, space, metric)
    if data.empty:
        return empty_figure(f"No finished trial has {x} and {y} yet.")
    logs = bool((data["best"].dropna() > 0).all())
    write = column_format(data["best"], log=logs)
    titles = [labelled(arm)["name"] for arm in arms]
    figure = make_subplots(1, len(arms), subplot_titles=titles, horizontal_spacing=0.06)
    columns, lines = _cell_names(space[x])[0], _cell_names(space[y])[0]
    for position, arm in enumerate(arms, start=1):
        of_arm = data[data["arm"] == arm]
        cells = _heatmap(of_arm, arm, columns, lines, logs, write)
        figure.add_trace(cells, row=1, col=position)
        figure.add_trace(_without(of_arm[of_arm["best"].isna()], arm), row=1, col=position)
    figure.update_xaxes(title_text=x, type="category")
    figure.update_yaxes(type="category", showticklabels=False)
    figure.update_yaxes(title_text=y, showticklabels=True, col=1)
    figure.update_layout(coloraxis=_scale(data["best"], logs, metric))
    figure = finish(figure, height=150 + 46 * len(lines))
    return figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)


def _scale(best: "pd.Series[float]", logs: bool, metric: Metric) -> dict[str, Any]:
    """Return a colour scale, logarithmic unless a value is below 0, labelled with perplexities."""
    heights = best.dropna().map(math.log10 if logs else float)
    low, high = (float(heights.min()), float(heights.max())) if len(heights) else (0.0, 1.0)
    shown: Callable[[float], float] = (lambda mark: 10**mark) if logs else float
    return colour_scale(low, high, shown, metric)


def _heatmap(
    data: pd.DataFrame,
    arm: str,
    columns: list[str],
    lines: list[str],
    logs: bool,
    write: Callable[[float], str],
) -> go.Heatmap:
    of_cell = {(row["x"], row["y"]): row for row in rows(data)}
    found = [[of_cell.get((column, line)) for column in columns] for line in lines]
    return go.Heatmap(
        x=columns,
        y=lines,
        z=[[_height(cell, logs) for cell in cells] for cells in found],
        text=[[_cell_text(cell, write) for cell in cells] for cells in found],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertemplate="%{x}<br>%{y}<br>%{text}<extra></extra>",
        coloraxis="coloraxis",
        name=labelled(arm)["name"],
        xgap=2,
        ygap=2,
    )


def _without(data: pd.DataFrame, arm: str) -> go.Scatter:
    """Label cells without a complete trial in grey, which is readable on light and dark pages."""
    return go.Scatter(
        x=plain(data["x"]),
        y=plain(data["y"]),
        text=[f"–<br>{_trials(count)}" for count in data["count"]],
        mode="text",
        textfont={"color": GREY, "size": 11},
        showlegend=False,
        hoverinfo="skip",
        name=labelled(arm)["name"],
    )


def _height(cell: dict[Any, Any] | None, logs: bool) -> float | None:
    if cell is None or pd.isna(cell["best"]):
        return None
    return math.log10(cell["best"]) if logs else float(cell["best"])


def _cell_text(cell: dict[Any, Any] | None, write: Callable[[float], str]) -> str:
    """Write the best perplexity, and the number of trials below it."""
    if cell is None or pd.isna(cell["best"]):
        return ""
    return f"<b>{write(cell['best'])}</b><br>{_trials(cell['count'])}"


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"
