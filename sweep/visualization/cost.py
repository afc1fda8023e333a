"""Plot of the cost of results: perplexity against training time."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sweep.analysis.results import ranked
from sweep.study.metric import PERPLEXITY, Metric
from sweep.visualization._axes import labelled, log_axis, rows, written
from sweep.visualization.style import (
    FADED,
    GREY,
    add_floor,
    arm_colours,
    arm_symbols,
    empty_figure,
    finish,
    frame,
    plain,
)


def cost_data(
    trials: pd.DataFrame, evaluations: pd.DataFrame, metric: Metric = PERPLEXITY
) -> pd.DataFrame:
    """Return the time that the last measured perplexity of each trial took.

    Args:
        trials: results.trials_table.
        evaluations: results.evaluations_table.

    Returns:
        number, arm, outcome, seconds (of training and evaluation up to there, carried over a
        resume), perplexity, front; by seconds. `front` is true if no complete trial of any arm is
        as fast and better, or faster and as good: the Pareto front.
    """
    last = evaluations.sort_values("step").drop_duplicates("trial_number", keep="last")
    seconds = trials["number"].map(last.set_index("trial_number")["elapsed_seconds"])
    data = trials[["number", "arm", "outcome", "perplexity"]].assign(seconds=seconds)
    lowest = 0 if metric.is_perplexity else -math.inf
    measured = data["perplexity"].between(lowest, math.inf, inclusive="neither")
    data = ranked(data[data["seconds"].notna() & measured], metric, "seconds")
    complete = data["perplexity"].where(data["outcome"] == "complete").map(metric.rank)
    before = complete.cummin().shift(fill_value=math.inf).ffill()
    data["front"] = complete.notna() & (complete < before)
    columns = ["number", "arm", "outcome", "seconds", "perplexity", "front"]
    return data[columns].reset_index(drop=True)


def plot_cost(
    trials: pd.DataFrame,
    evaluations: pd.DataFrame,
    arms: Sequence[str],
    floor: float | None = None,
    metric: Metric = PERPLEXITY,
    marked: Collection[int] | None = None,
) -> go.Figure:
    """Draw perplexity against training time. Faint: ended early. Line: the Pareto front.

    Args:
        trials: results.trials_table.
        evaluations: results.evaluations_table.
        arms: All arms of the study.
        floor: The lowest perplexity that any model can reach, if it is known.
        metric: What the trials are ranked by.
        marked: Numbers of the trials that get a mark besides those on the front; None: all.
    """
    data = cost_data(trials, evaluations, metric)
    if data.empty:
        return empty_figure("No evaluation yet.")
    figure = go.Figure(_front(data[data["front"]]))
    if marked is not None:
        data = data[data["front"] | data["number"].isin(list(marked))]
    for arm, colour in arm_colours(arms).items():
        of_arm, symbol = data[data["arm"] == arm], arm_symbols(arms)[arm]
        complete = of_arm["outcome"] == "complete"
        strong = {"symbol": symbol, "color": colour, "size": 9, "opacity": 0.9}
        faint = {"symbol": symbol, "color": colour, "size": 6, "opacity": FADED}
        figure.add_trace(_points(of_arm[complete], arm, metric, strong))
        figure.add_trace(_points(of_arm[~complete], arm, metric, faint).update(showlegend=False))
    ends = [float(data["seconds"].min()), float(data["seconds"].max())]
    shown = frame(data["perplexity"], floor)
    add_floor(figure, floor, ends, shown)
    figure.update_xaxes(log_axis(*ends), title_text="training time of the trial, seconds")
    return finish(figure, shown)


def _front(front: pd.DataFrame) -> go.Scatter:
    """Draw the front as steps: between two of its trials the faster one is the best to be had."""
    return go.Scatter(
        x=plain(front["seconds"]),
        y=plain(front["perplexity"]),
        mode="lines",
        line={"color": GREY, "width": 1.5, "shape": "hv"},
        name="Pareto front",
        hoverinfo="skip",
    )


def _points(data: pd.DataFrame, arm: str, metric: Metric, marker: dict[str, Any]) -> go.Scatter:
    texts = [
        f"trial {row['number']}, {row['outcome']}<br>"
        f"perplexity {written(row['perplexity'], metric)}"
        for row in rows(data)
    ]
    x, y = plain(data["seconds"]), plain(data["perplexity"])
    points = go.Scatter(x=x, y=y, text=texts, mode="markers", marker=marker, **labelled(arm))
    return points.update(customdata=plain(data["number"]))
