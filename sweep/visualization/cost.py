"""Plots of what results cost: perplexity against time and size, and when each slot was busy."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sweep.visualization._axes import labelled, rows
from sweep.visualization.style import (
    FADED,
    GREY,
    View,
    add_floor,
    arm_colours,
    arm_patterns,
    arm_symbols,
    empty_figure,
    finish,
    plain,
    view,
)

COSTS = {  # column of cost_data -> title of its axis
    "seconds": "training time of the trial, seconds",
    "n_params": "weights of the model",
}


def cost_data(trials: pd.DataFrame, evaluations: pd.DataFrame, cost: str) -> pd.DataFrame:
    """What the last measured perplexity of each trial cost.

    Args:
        trials: results.trials_table.
        evaluations: results.evaluations_table.
        cost: "seconds" (training and evaluation up to there, carried over a resume) or "n_params".

    Returns:
        number, arm, outcome, cost, perplexity, front; by cost. `front` is true where no complete
        trial of any arm is as cheap and better, or cheaper and as good: the Pareto front.
    """
    last = evaluations.sort_values("step").drop_duplicates("trial_number", keep="last")
    elapsed = last.set_index("trial_number")["elapsed_seconds"]
    costs = trials["number"].map(elapsed) if cost == "seconds" else trials["n_params"]
    data = trials[["number", "arm", "outcome", "perplexity"]].assign(cost=costs)
    data = data[data["cost"].notna() & data["perplexity"].between(0, math.inf, inclusive="right")]
    data = data[data["perplexity"] < math.inf].sort_values(["cost", "perplexity", "number"])
    complete = data["perplexity"].where(data["outcome"] == "complete")
    before = complete.cummin().shift(fill_value=math.inf).ffill()
    data["front"] = complete.notna() & (complete < before)
    columns = ["number", "arm", "outcome", "cost", "perplexity", "front"]
    return data[columns].reset_index(drop=True)


def plot_cost(
    trials: pd.DataFrame,
    evaluations: pd.DataFrame,
    arms: Sequence[str],
    cost: str,
    floor: float | None = None,
) -> go.Figure:
    """Perplexity against "seconds" or "n_params". Faint: ended early. Line: the Pareto front."""
    data = cost_data(trials, evaluations, cost)
    if data.empty:
        return empty_figure("No evaluation yet.")
    shown = view(data["perplexity"], floor)
    figure = go.Figure(_front(data[data["front"]]))
    for arm, colour in arm_colours(arms).items():
        of_arm, symbol = data[data["arm"] == arm], arm_symbols(arms)[arm]
        complete = of_arm["outcome"] == "complete"
        strong = {"symbol": symbol, "color": colour, "size": 9, "opacity": 0.9}
        faint = {"symbol": symbol, "color": colour, "size": 6, "opacity": FADED}
        figure.add_trace(_points(of_arm[complete], arm, strong, shown))
        figure.add_trace(_points(of_arm[~complete], arm, faint, shown).update(showlegend=False))
    ends = [float(data["cost"].min()), float(data["cost"].max())]
    add_floor(figure, floor, ends, shown)
    decades = math.log10(ends[1] / ends[0]) if ends[0] > 0 else 3
    ticks = 1 if decades > 2.5 else "D2" if decades > 1 else "D1"  # "D2": labels at 1, 2 and 5
    figure.update_xaxes(title_text=COSTS[cost], type="log", dtick=ticks)
    figure.update_xaxes(tickformat=",~g" if cost == "seconds" else "~s")
    return finish(figure, shown)


def _front(front: pd.DataFrame) -> go.Scatter:
    """The front as steps: between two of its trials the cheaper one is the best to be had."""
    return go.Scatter(
        x=plain(front["cost"]),
        y=plain(front["perplexity"]),
        mode="lines",
        line={"color": GREY, "width": 1.5, "shape": "hv"},
        name="Pareto front",
        hoverinfo="skip",
    )


def _points(data: pd.DataFrame, arm: str, marker: dict[str, Any], shown: View) -> go.Scatter:
    texts = [
        f"trial {row['number']}, {row['outcome']}<br>perplexity {row['perplexity']:,.2f}"
        for row in rows(data)
    ]
    x, y = plain(data["cost"]), plain(shown.clip(data["perplexity"]))
    return go.Scatter(x=x, y=y, text=texts, mode="markers", marker=marker, **labelled(arm))


def plot_timeline(sessions: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """When each slot trained what; `sessions` is sessions.sessions_table.

    A bar per process of a trial: one that was interrupted and continued has several.
    """
    if sessions.empty:
        return empty_figure("No trial has been started yet.")
    lanes = list(dict.fromkeys(sessions.sort_values(["device", "slot"])["lane"]))
    figure = go.Figure()
    for arm, colour in arm_colours(arms).items():
        bars = _bars(sessions[sessions["arm"] == arm], arm, colour)
        figure.add_trace(bars.update(marker_pattern_shape=arm_patterns(arms)[arm]))
    figure.update_yaxes(categoryorder="array", categoryarray=lanes[::-1], title_text="")
    figure.update_xaxes(type="date", title_text="time (UTC)", tickangle=0, nticks=6)
    figure.update_layout(barmode="overlay")
    return finish(figure, height=130 + 34 * len(lanes))  # pixels


def _bars(sessions: pd.DataFrame, arm: str, colour: str) -> go.Bar:
    seconds = (sessions["end"] - sessions["start"]).dt.total_seconds()
    texts = [
        f"trial {row['number']}, {row['outcome']}<br>{took:,.0f} s"
        for row, took in zip(rows(sessions), seconds, strict=True)
    ]
    bar = go.Bar(
        y=plain(sessions["lane"]),
        base=[start.isoformat() for start in sessions["start"]],
        x=[1000 * value for value in plain(seconds)],  # plotly's unit of a date axis
        text=texts,
        textposition="none",
        orientation="h",
        **labelled(arm),
    )
    faded = [FADED if outcome == "pruned" else 0.95 for outcome in sessions["outcome"]]
    return bar.update(marker={"color": colour, "opacity": faded, "line": {"width": 0}})
