"""Contour of a trial's result over two parameters, one map per arm."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution
from plotly.subplots import make_subplots
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import QhullError

from sweep.study.metric import PERPLEXITY, Metric
from sweep.visualization._axes import colour_scale, labelled, parameter_axis, rows, written
from sweep.visualization.style import GREY, empty_figure, finish, plain

CELLS = 40  # of the grid on which it is interpolated, along each parameter

_Floats = npt.NDArray[np.float64]


def most_important(
    importances: pd.DataFrame, arm: str, space: Mapping[str, BaseDistribution]
) -> list[str]:
    """Return the two numeric parameters that matter most in an arm, or fewer.

    Args:
        importances: The rows of one question of importance.importances_table.
        arm: The arm.
        space: Optuna's distribution of each parameter.
    """
    of_arm = importances[importances["arm"] == arm].sort_values("importance", ascending=False)
    return [
        name
        for name in of_arm["parameter"]
        if name in space and not isinstance(space[name], CategoricalDistribution)
    ][:2]


def contour_data(
    trials: pd.DataFrame,
    x: str,
    y: str,
    space: Mapping[str, BaseDistribution],
    *,
    logs: bool = True,
) -> tuple[_Floats, _Floats, _Floats]:
    """Interpolate the result of complete trials linearly between them, on the scales of the search.

    Trials at one point are averaged, whatever else differs between them.

    Returns:
        x: (CELLS,), y: (CELLS,), result: (CELLS, CELLS), in logarithms if `logs`; NaN where no
        trials enclose the point, so everywhere for two trials or for trials on one line.
    """
    complete = trials[(trials["outcome"] == "complete") & trials[x].notna() & trials[y].notna()]
    across, upwards = _ends(space[x]), _ends(space[y])
    points = pd.DataFrame(
        {
            "x": _scaled(complete[x], across),
            "y": _scaled(complete[y], upwards),
            "z": complete["perplexity"].astype("float64").map(math.log if logs else float),
        }
    )
    means = points.groupby(["x", "y"], as_index=False)["z"].mean()
    unit = np.linspace(0.0, 1.0, CELLS)
    z = np.full((CELLS, CELLS), math.nan)
    with suppress(QhullError, ValueError):  # too few points, or all on one line: all stay NaN
        surface = LinearNDInterpolator(means[["x", "y"]].to_numpy(), means["z"].to_numpy())
        z = np.asarray(surface(*np.meshgrid(unit, unit)), dtype=np.float64)
    return _unscaled(unit, across), _unscaled(unit, upwards), z


def _ends(distribution: Any) -> tuple[float, float, bool]:
    return float(distribution.low), float(distribution.high), bool(distribution.log)


def _scaled(values: "pd.Series[Any]", ends: tuple[float, float, bool]) -> "pd.Series[float]":
    low, high, log = ends
    numbers = values.astype("float64")
    if log:
        return (numbers.map(math.log) - math.log(low)) / ((math.log(high) - math.log(low)) or 1.0)
    return (numbers - low) / ((high - low) or 1.0)


def _unscaled(unit: _Floats, ends: tuple[float, float, bool]) -> _Floats:
    low, high, log = ends
    return np.geomspace(low, high, len(unit)) if log else low + unit * (high - low)


def plot_contour(
    trials: pd.DataFrame,
    importances: pd.DataFrame,
    arms: Sequence[str],
    space: Mapping[str, BaseDistribution],
    metric: Metric = PERPLEXITY,
) -> go.Figure:
    """Draw the result over the two most important parameters of each arm, with its trials.

    Args:
        trials: results.trials_table.
        importances: The rows of one question of importance.importances_table.
        arms: All arms of the study.
        space: Optuna's distribution of each parameter.
        metric: What the trials are ranked by.
    """
    pairs = {arm: most_important(importances, arm, space) for arm in arms}
    pairs = {arm: pair for arm, pair in pairs.items() if len(pair) == 2}
    if not pairs:
        return empty_figure("A contour needs the importances of two numeric parameters.")
    titles = [labelled(arm)["name"] for arm in pairs]
    figure = make_subplots(1, len(pairs), subplot_titles=titles, horizontal_spacing=0.09)
    complete = trials[trials["outcome"] == "complete"]
    logs = bool((complete["perplexity"] > 0).all())
    for column, (arm, (x, y)) in enumerate(pairs.items(), start=1):
        of_arm = complete[(complete["arm"] == arm) & complete[x].notna() & complete[y].notna()]
        place = {"row": 1, "col": column}
        figure.add_trace(_surface(contour_data(of_arm, x, y, space, logs=logs), arm), **place)
        figure.add_trace(_marks(of_arm, arm, x, y, metric), **place)
        figure.update_xaxes(parameter_axis(x, space[x]), **place)
        figure.update_yaxes(parameter_axis(y, space[y]), **place)
    figure.update_layout(coloraxis=_scale(complete["perplexity"], logs, metric))
    return finish(figure).update_layout(showlegend=False)


def _scale(results: "pd.Series[float]", logs: bool, metric: Metric) -> dict[str, Any]:
    """Make a scale of colours on which the worst tenth of the trials are one colour."""
    heights = results.map(math.log if logs else float)
    worst = heights.quantile(0.1 if metric.maximize else 0.9)
    low, high = sorted([float(worst), float(heights.max() if metric.maximize else heights.min())])
    return colour_scale(low, high, math.exp if logs else float, metric)


def _surface(data: tuple[_Floats, _Floats, _Floats], arm: str) -> go.Contour:
    x, y, z = data
    return go.Contour(
        x=[float(f"{value:.6g}") for value in x],
        y=[float(f"{value:.6g}") for value in y],
        z=[[None if math.isnan(value) else round(float(value), 4) for value in row] for row in z],
        coloraxis="coloraxis",
        ncontours=14,
        line={"width": 0},
        hoverinfo="skip",
        name=labelled(arm)["name"],
    )


def _marks(of_arm: pd.DataFrame, arm: str, x: str, y: str, metric: Metric) -> go.Scatter:
    texts = [
        f"trial {row['number']}<br>{x} {row[x]:.4g}, {y} {row[y]:.4g}"
        f"<br>perplexity {written(row['perplexity'], metric)}"
        for row in rows(of_arm)
    ]
    return go.Scatter(
        x=plain(of_arm[x]),
        y=plain(of_arm[y]),
        text=texts,
        customdata=plain(of_arm["number"]),
        mode="markers",
        marker={"color": "white", "size": 7, "line": {"color": GREY, "width": 1}},
        **labelled(arm),
    )
