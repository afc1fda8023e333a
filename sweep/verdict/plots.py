"""The figures of a verdict: a record or a table in, a plotly figure out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sweep.plot_style import FADED, GREY, arm_colours, arm_symbols, empty_figure, finish, view


def forest_data(record: Mapping[str, Any]) -> pd.DataFrame:
    """One row per interval of a verdict's record.

    Returns:
        arm, row (what the axis shows), ratio, low, high (of perplexities, arm to reference),
        seeds (the ratio of each seed; empty for the bootstrap), primary.
    """
    rows = []
    for one in record["comparisons"]:
        arm, against = one["arm"], f"{one['arm']} to {one['reference']}"
        rows.append((arm, against, *_interval(one["difference"]), True))
        if one["bootstrap"]:
            low, high = one["bootstrap"]
            rows.append((arm, f"{against}, bootstrap", one["ratio"], low, high, [], False))
        rows += [
            (arm, f"{against}, {other['yardstick']}", *_interval(other["difference"]), False)
            for other in one["readings"]
            if other["is_perplexity"]
        ]
    columns = ["arm", "row", "ratio", "low", "high", "seeds", "primary"]
    return pd.DataFrame(rows, columns=columns)


def _interval(difference: Mapping[str, Any]) -> tuple[float, float, float, list[float]]:
    ends = (math.exp(difference[key]) for key in ("mean", "low", "high"))
    mean, low, high = ends
    return mean, low, high, [math.exp(value) for value in difference["per_seed"]]


def plot_forest(record: Mapping[str, Any]) -> go.Figure:
    """Ratios of perplexity to the reference: a point per seed, a diamond and a line for the mean.

    The band around 1 is the margin within which a difference does not matter.
    """
    data = forest_data(record)
    colours, margin = arm_colours(record["arms"]), record["margin"]
    figure = go.Figure()
    figure.add_vrect(x0=1 / (1 + margin), x1=1 + margin, fillcolor=GREY, opacity=0.18, line_width=0)
    figure.add_vline(x=1, line={"color": GREY, "width": 1.5})
    for row in data.to_dict("records"):
        figure.add_traces(_whisker(row, colours[row["arm"]]))
    figure.update_xaxes(title_text="ratio of perplexities (below 1: the arm is better)")
    figure.update_yaxes(autorange="reversed", type="category")
    return finish(figure, height=150 + 48 * len(data)).update_layout(showlegend=False)


def _whisker(row: Mapping[Any, Any], colour: str) -> list[go.Scatter]:
    name, ends = row["row"], [row["low"], row["high"]]
    words = f"{row['ratio']:.4f}, 95% interval {row['low']:.4f} to {row['high']:.4f}"
    width = 3 if row["primary"] else 1.5
    line = go.Scatter(x=ends, y=[name, name], mode="lines", hoverinfo="skip")
    mean = go.Scatter(x=[row["ratio"]], y=[name], mode="markers", text=[words])
    seeds = go.Scatter(x=row["seeds"], y=[name] * len(row["seeds"]), mode="markers")
    return [
        line.update(line={"color": colour, "width": width}),
        seeds.update(
            marker={"color": colour, "size": 7, "symbol": "circle-open"},
            hovertemplate="one seed: %{x:.4f}<extra></extra>",
        ),
        mean.update(
            marker={"color": colour, "size": 12, "symbol": "diamond"},
            hovertemplate="%{text}<extra></extra>",
        ),
    ]


def plot_best_after(tables: Mapping[str, pd.DataFrame], arms: Sequence[str]) -> go.Figure:
    """What a search of n trials finds, per arm, with its band; selection_bias.best_after_table."""
    finite = [value for table in tables.values() for value in _finite(table["perplexity"])]
    if not finite:
        return empty_figure("No complete trial yet.")
    ends = [value for table in tables.values() for value in _finite(table["high"])]
    shown = view(finite + ends)
    figure = go.Figure()
    for arm, colour in arm_colours(arms).items():
        if arm in tables and len(tables[arm]):
            figure.add_traces(_banded(tables[arm], arm, colour, shown.low, shown.high))
            figure.data[-1].update(marker_symbol=arm_symbols(arms)[arm])
    most = max(len(table) for table in tables.values())
    figure.update_xaxes(
        title_text="trials of the arm",
        range=[0.5, most + 0.5],
        tickformat="d",
        dtick=1 if most <= 12 else None,
    )
    return finish(figure, shown)


def _banded(
    table: pd.DataFrame, arm: str, colour: str, lowest: float, highest: float
) -> list[go.Scatter]:
    """The band, cut at the frame where the trials do not bound it, and the line."""
    steps = [int(n) for n in table["n"]]
    low = [float(value) for value in table["low"].clip(lower=lowest)]
    high = [float(value) for value in table["high"].clip(upper=highest)]
    line = table[table["perplexity"] < math.inf]
    area = go.Scatter(x=steps + steps[::-1], y=high + low[::-1], fill="toself", mode="none")
    curve = go.Scatter(
        x=[int(n) for n in line["n"]],
        y=[float(value) for value in line["perplexity"]],
        mode="lines+markers",
        name=arm,
        legendgroup=arm,
        hovertemplate=f"<b>{arm}</b><br>%{{x}} trials: %{{y:.2f}}<extra></extra>",
    )
    return [
        area.update(
            fillcolor=colour,
            opacity=FADED / 2,
            legendgroup=arm,
            showlegend=False,
            hoverinfo="skip",
        ),
        curve.update(line={"color": colour, "width": 2.5}, marker={"color": colour, "size": 6}),
    ]


def _finite(column: "pd.Series[float]") -> list[float]:
    return [float(value) for value in column if 0 < value < math.inf]
