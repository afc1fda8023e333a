"""Plots of a verdict: confirm runs seed by seed, and the forest of paired ratios."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from sweep.analysis.phases import CONFIRM
from sweep.analysis.tuning_curve import LOWEST_PERPLEXITY
from sweep.study.metric import PERPLEXITY, Metric
from sweep.visualization._axes import labelled, rows, written
from sweep.visualization.style import (
    GREY,
    arm_colours,
    arm_symbols,
    empty_figure,
    finish,
    frame,
    plain,
    without_value,
)

CONFIDENCE = 0.95  # of intervals
ASIDE = 0.16  # on the axis, from an arm's seeds to their mean


def confirm_data(runs: pd.DataFrame, record: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Select the confirm runs that a verdict compared; before it, those of each arm's newest run.

    Args:
        runs: phases.confirm_runs_table.
        record: The study's verdict: the trial whose settings stand for each arm, and the seeds.

    Returns:
        arm, of_trial, seed, outcome, perplexity (on held-back stories; NaN where the run is not
        complete); by arm and seed.
    """
    confirm = runs[runs["phase"] == CONFIRM].sort_values("number")
    mine = confirm["of_trial"] == confirm.groupby("arm")["of_trial"].transform("last")
    if record is not None:
        chosen = {one["arm"]: one["trial"] for one in record["confirmed"]}
        mine = confirm["of_trial"] == confirm["arm"].map(chosen)
        mine &= confirm["seed"].isin(record["seeds"])
    columns = ["arm", "of_trial", "seed", "outcome", "perplexity"]
    return confirm[mine].sort_values(["arm", "seed"])[columns]


def confirm_means(data: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds of each arm; `data` is confirm_data.

    Returns:
        arm, seeds, perplexity (geometric mean: exp of the mean cross-entropy), low, high (ends of
        the t interval of that mean over seeds; NaN for one seed). Without an arm of which a run is
        not complete: it has no mean.
    """
    found = []
    for arm, of_arm in data.groupby("arm"):
        if of_arm["perplexity"].isna().any():
            continue
        nats = np.log(of_arm["perplexity"].to_numpy(dtype=np.float64))
        mean, n, half = float(nats.mean()), len(nats), math.nan
        if n > 1:
            error = float(nats.std(ddof=1)) / math.sqrt(n)
            half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
        found.append((arm, n, math.exp(mean), math.exp(mean - half), math.exp(mean + half)))
    return pd.DataFrame(found, columns=["arm", "seeds", "perplexity", "low", "high"])


def plot_confirm_runs(
    runs: pd.DataFrame,
    arms: Sequence[str],
    floor: float | None = None,
    record: Mapping[str, Any] | None = None,
    metric: Metric = PERPLEXITY,
) -> go.Figure:
    """Draw the perplexity of every confirm run; a line joins the runs of one seed: a pair.

    Beside them the mean of each arm with its interval, cut where no model can be: at `floor`, or
    at 1. Cross at the upper edge: not complete.

    Args:
        runs: phases.confirm_runs_table.
        arms: All arms of the study.
        floor: The lowest value that is possible, if it is known.
        record: The study's verdict, whose runs are drawn; None: the newest.
        metric: What the trials are ranked by.
    """
    data = confirm_data(runs, record)
    if data.empty:
        return empty_figure("No confirm run yet: `squen-sweep verdict` trains them.")
    means = confirm_means(data)
    means["low"] = means["low"].clip(lower=LOWEST_PERPLEXITY if floor is None else floor)
    ends = [*means["low"], *means["high"]]
    shown = frame([*data["perplexity"], *(end for end in ends if end > 0)])
    positions = {
        arm: float(i) for i, arm in enumerate(arm for arm in arms if arm in set(data["arm"]))
    }
    figure = go.Figure(_pairs(data, positions))
    for arm, x in positions.items():
        style = {"color": arm_colours(arms)[arm], "symbol": arm_symbols(arms)[arm]}
        figure.add_traces(_seeds(data[data["arm"] == arm], x, style, metric))
        mean = rows(means[means["arm"] == arm])
        figure.add_traces([_mean(row, x + ASIDE, metric) for row in mean])
    names = [labelled(arm)["name"] for arm in positions]
    axis = {"tickvals": list(positions.values()), "ticktext": names, "showgrid": False}
    figure.update_xaxes(axis | {"range": [-0.5, len(positions) - 0.5], "title_text": "arm"})
    return finish(figure, shown)


def _pairs(data: pd.DataFrame, positions: Mapping[str, float]) -> go.Scatter:
    """Draw one line per seed over the arms, as one trace with gaps."""
    points: list[tuple[float | None, float | None]] = []
    for _, pair in data.dropna(subset="perplexity").groupby("seed"):
        level = dict(zip(pair["arm"], pair["perplexity"], strict=True))
        points += [(x, float(level[arm])) for arm, x in positions.items() if arm in level]
        points.append((None, None))
    return go.Scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines",
        line={"color": GREY, "width": 1},
        name="same seed",
        hoverinfo="skip",
    )


def _seeds(
    of_arm: pd.DataFrame, x: float, style: dict[str, str], metric: Metric
) -> list[go.Scatter]:
    """Draw the seeds of an arm, and along the upper edge those without a perplexity."""
    arm, measured = str(of_arm["arm"].iloc[0]), of_arm["perplexity"].notna()
    found = _marks(of_arm[measured], arm, x, style, metric)
    lost = without_value(_marks(of_arm[~measured], arm, x, style | {"symbol": "x"}, metric))
    return [found, lost.update(showlegend=not measured.any())]


def _marks(
    runs: pd.DataFrame, arm: str, x: float, style: dict[str, str], metric: Metric
) -> go.Scatter:
    texts = [
        f"seed {row['seed']}, settings of trial {row['of_trial']}<br>"
        + (
            f"perplexity {written(row['perplexity'], metric)}"
            if row["outcome"] == "complete"
            else row["outcome"]
        )
        for row in rows(runs)
    ]
    return go.Scatter(
        x=[x] * len(runs),
        y=plain(runs["perplexity"]),
        text=texts,
        mode="markers",
        marker={**style, "size": 10, "opacity": 0.85},
        **labelled(arm),
    )


def _mean(row: Mapping[Any, Any], x: float, metric: Metric) -> go.Scatter:
    mean, low, high = row["perplexity"], row["low"], row["high"]
    known = low > 0
    words = f"mean of {row['seeds']} seeds {written(mean, metric)}"
    interval = f"95% interval {written(low, metric)} to {written(high, metric)}"
    ends = {"array": [high - mean], "arrayminus": [mean - low], "thickness": 2.5, "width": 7}
    return go.Scatter(
        x=[x],
        y=[mean],
        error_y=ends | {"type": "data", "symmetric": False} if known else None,
        text=[f"{words}<br>{interval}" if known else words],
        mode="markers",
        marker={"color": GREY, "symbol": "line-ew-open", "size": 16, "line": {"width": 3}},
        name="mean and 95% interval",
        legendgroup="mean",
        showlegend=x == ASIDE,
        hovertemplate="%{text}<extra></extra>",
    )


def forest_data(record: Mapping[str, Any]) -> pd.DataFrame:
    """One row per interval of a verdict's record.

    Returns:
        arm, against ("a to b"), metric, ratio, low, high (of perplexities, arm to reference),
        level (of the interval: "96%"), seeds (the ratio of each seed; empty for the bootstrap),
        primary.
    """
    found: list[tuple[Any, ...]] = []
    for one in record["comparisons"]:
        arm, against = one["arm"], f"{one['arm']} to {one['reference']}"
        metric = record.get("metric", "perplexity")
        level = f"{100 * (1 - one['difference'].get('error_rate', 0.05)):.5g}%"
        mean, *ends, seeds = _interval(one["difference"])
        found.append((arm, against, metric, mean, *ends, level, seeds, True))
        if one["bootstrap"]:
            low, high = one["bootstrap"]
            name = "perplexity, by a bootstrap"
            found.append((arm, against, name, one["ratio"], low, high, level, [], False))
        for other in one.get("other_metrics", []):
            if other["is_perplexity"]:
                mean, *ends, seeds = _interval(other["difference"])
                found.append((arm, against, other["metric"], mean, *ends, level, seeds, False))
    columns = ["arm", "against", "metric", "ratio", "low", "high", "level", "seeds", "primary"]
    return pd.DataFrame(found, columns=columns)


def _interval(difference: Mapping[str, Any]) -> tuple[float, float, float, list[float]]:
    mean, low, high = (math.exp(difference[key]) for key in ("mean", "low", "high"))
    return mean, low, high, [math.exp(value) for value in difference["per_seed"]]


def plot_forest(record: Mapping[str, Any] | None, arms: Sequence[str]) -> go.Figure:
    """Draw ratios of perplexity to the reference: a ring per seed, a diamond for the mean.

    The band around 1 is the margin within which a difference does not matter.
    """
    if record is None:
        return empty_figure("No verdict yet: `squen-sweep verdict` gives one.")
    data, margin = forest_data(record), record["margin"]
    colours = arm_colours(arms)
    figure = go.Figure()
    figure.add_vrect(x0=1 / (1 + margin), x1=1 + margin, fillcolor=GREY, opacity=0.18, line_width=0)
    figure.add_vline(x=1, line={"color": GREY, "width": 1.5})
    several = len(record["comparisons"]) > 1
    for row in rows(data):
        name = f"{row['against']}<br>{row['metric']}" if several else row["metric"]
        figure.add_traces(_whisker(row, name, colours[row["arm"]]))
    ends = [*data["low"], *data["high"], *(seed for seeds in data["seeds"] for seed in seeds)]
    low, high = min(1 / (1 + margin), *ends), max(1 + margin, *ends)
    room = 0.06 * (high - low)
    figure.update_xaxes(title_text="ratio of perplexities (below 1: better)")
    figure.update_xaxes(range=[low - room, high + room])
    figure.update_yaxes(autorange="reversed", type="category")
    return finish(figure, height=150 + 48 * len(data)).update_layout(showlegend=False)


def _whisker(row: Mapping[Any, Any], name: str, colour: str) -> list[go.Scatter]:
    ends = [row["low"], row["high"]]
    name = name.replace(" under ", "<br>under ").replace(" at ", "<br>at ")  # a narrow page
    words = f"{row['ratio']:.4f}, {row['level']} interval {row['low']:.4f} to {row['high']:.4f}"
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
