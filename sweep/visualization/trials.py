"""Plots of trials: learning curves, slices by one parameter, importances."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, IntDistribution

from sweep.analysis.importance import MIN_TRIALS
from sweep.analysis.results import UNFINISHED, ranked
from sweep.study.metric import PERPLEXITY, Metric
from sweep.visualization._axes import labelled, offsets, parameter_axis, rows, written
from sweep.visualization.style import (
    FADED,
    GREY,
    Frame,
    add_floor,
    arm_colours,
    arm_dashes,
    arm_patterns,
    arm_symbols,
    empty_figure,
    finish,
    frame,
    plain,
    without_value,
)


def curves_data(
    evaluations: pd.DataFrame, trials: pd.DataFrame, metric: Metric = PERPLEXITY
) -> pd.DataFrame:
    """Return every evaluation with a finite perplexity, with its trial's arm and outcome.

    Returns:
        number, arm, outcome, best (of its arm's complete trials), step, tokens, perplexity; ordered
        by number and step.
    """
    complete = ranked(trials[trials["outcome"] == "complete"], metric)
    best = complete.drop_duplicates("arm")["number"]
    of_trial = trials[["number", "arm", "outcome"]].assign(best=trials["number"].isin(best))
    curves = evaluations.rename(columns={"trial_number": "number"}).merge(of_trial, on="number")
    lowest = 0 if metric.is_perplexity else -math.inf
    curves = curves[curves["perplexity"].between(lowest, math.inf, inclusive="neither")]
    columns = ["number", "arm", "outcome", "best", "step", "tokens", "perplexity"]
    return curves.sort_values(["number", "step"])[columns].reset_index(drop=True)


def plot_curves(
    evaluations: pd.DataFrame,
    trials: pd.DataFrame,
    arms: Sequence[str],
    floor: float | None = None,
    metric: Metric = PERPLEXITY,
) -> go.Figure:
    """Draw validation perplexity over training tokens, or over steps where no trial counts tokens.

    Thick: the best of an arm. Faint: ended early. Cross at the upper edge: diverged, at its last
    evaluation.
    """
    data = curves_data(evaluations, trials, metric)
    if data.empty:
        return empty_figure("No evaluation yet.")
    unit = "tokens" if data["tokens"].any() else "steps"
    if unit == "steps":
        data["tokens"] = data["step"]
    shown = frame(data["perplexity"], floor, fenced=True)
    figure = go.Figure()
    for arm, colour in arm_colours(arms).items():
        of_arm, line = data[data["arm"] == arm], {"color": colour, "dash": arm_dashes(arms)[arm]}
        complete = of_arm["outcome"] == "complete"
        early, others = of_arm[~complete], of_arm[complete & ~of_arm["best"]]
        figure.add_trace(_lines(early, arm, metric, width=1, **line).update(opacity=FADED))
        figure.add_trace(_lines(others, arm, metric, width=1.2, **line))
        figure.add_trace(_crosses(of_arm, arm, colour, metric))
    for arm, colour in arm_colours(arms).items():  # on top of all others
        best, dash = data[(data["arm"] == arm) & data["best"]], arm_dashes(arms)[arm]
        figure.add_trace(_lines(best, arm, metric, width=3.5, color=colour, dash=dash))
        figure.data[-1].update(showlegend=True)
    add_floor(figure, floor, [0, data["tokens"].max()], shown)
    figure.update_xaxes(title_text=f"training {unit}", rangemode="tozero", tickformat="~s")
    return finish(figure, shown)


def _lines(data: pd.DataFrame, arm: str, metric: Metric, **line: Any) -> go.Scatter:
    """Draw all lines of one kind as one trace, with gaps: a trace per trial would be slow."""
    points: list[tuple[Any, Any, Any]] = []
    for _, trial in data.groupby("number"):
        points += [(row["tokens"], _short(row["perplexity"]), row["number"]) for row in rows(trial)]
        points.append((None, None, None))
    form = ",.2f" if metric.is_perplexity else ".4~g"
    return go.Scatter(
        x=[tokens for tokens, _, _ in points],
        y=[perplexity for _, perplexity, _ in points],
        customdata=[number for _, _, number in points],
        mode="lines",
        line=line,
        showlegend=False,
        **labelled(arm, f"trial %{{customdata}}, at %{{x:,.4~s}}<br>perplexity %{{y:{form}}}"),
    )


def _short(perplexity: float) -> float:
    """Round to six digits: a study of 1,000 trials has 100,000 of these in its report."""
    return float(f"{perplexity:.6g}")


def _crosses(of_arm: pd.DataFrame, arm: str, colour: str, metric: Metric) -> go.Scatter:
    """Mark the diverged trials at their last evaluation, along the upper edge of the frame."""
    diverged = of_arm[of_arm["outcome"] == "diverged"].drop_duplicates("number", keep="last")
    trace = go.Scatter(
        x=plain(diverged["tokens"]),
        text=[f"{_at_step(row, metric)}<br>then diverged" for row in rows(diverged)],
        customdata=plain(diverged["number"]),
        mode="markers",
        marker={"symbol": "x", "color": colour, "size": 10},
        showlegend=False,
        **labelled(arm),
    )
    return without_value(trace)


def slice_data(trials: pd.DataFrame, parameter: str) -> pd.DataFrame:
    """Return every finished trial that has the parameter.

    Returns:
        number, arm, outcome, value (of the parameter), perplexity (NaN where none was measured),
        baseline (its name; missing where the trial is none).
    """
    finished = trials[~trials["outcome"].isin(UNFINISHED) & trials[parameter].notna()]
    data = finished[["number", "arm", "outcome", parameter, "perplexity"]]
    data = data.rename(columns={parameter: "value"})
    data["baseline"] = finished["origin"].str.extract(r"^baseline:(.*)$", expand=False)
    return data.reset_index(drop=True)


def plot_slice(
    trials: pd.DataFrame,
    parameter: str,
    arms: Sequence[str],
    distribution: BaseDistribution,
    metric: Metric = PERPLEXITY,
) -> go.Figure:
    """Draw perplexity against one parameter, whose distribution gives the range of the axis.

    Small and faint: ended early, so measured after fewer steps. Cross at the upper edge: no
    perplexity. Ring: baseline. Dotted: the value that the original study recommends.
    """
    data = slice_data(trials, parameter)
    if data.empty:
        return empty_figure(f"No finished trial has {parameter} yet.")
    shown = frame(data["perplexity"])
    data["x"] = data["value"]
    if isinstance(distribution, IntDistribution) and not distribution.log:
        data["x"] = data["value"].astype("float64") + data["arm"].map(offsets(arms))
    data["y"] = data["perplexity"]
    data["text"] = [_label(row, parameter, metric) for row in rows(data)]
    figure = go.Figure()
    for arm, colour in arm_colours(arms).items():
        of_arm, symbol = data[data["arm"] == arm], arm_symbols(arms)[arm]
        figure.add_traces(_points(of_arm, arm, colour, symbol))
    figure.add_trace(_rings(data[data["baseline"].notna() & data["perplexity"].notna()]))
    figure.add_trace(_original(data, shown))
    figure.update_xaxes(parameter_axis(parameter, distribution))
    return finish(figure, shown)


def _points(data: pd.DataFrame, arm: str, colour: str, symbol: str) -> list[go.Scatter]:
    """Draw the trials of one arm: complete, ended early, without a perplexity."""
    missing, early = data["perplexity"].isna(), data["outcome"] == "pruned"
    strong, faint = {"size": 9, "opacity": 0.9}, {"size": 6, "opacity": FADED}
    kinds = [
        (data[~missing & ~early], {"symbol": symbol, **strong}),
        (data[~missing & early], {"symbol": symbol, **faint}),
        (data[missing], {"symbol": "x", **strong}),
    ]
    traces = [_scatter(part, {"color": colour, **marker}) for part, marker in kinds]
    without_value(traces[-1])
    return [
        trace.update(**labelled(arm), showlegend=position == 0)
        for position, trace in enumerate(traces)
    ]


def _rings(baselines: pd.DataFrame) -> go.Scatter:
    marker = {"symbol": "circle-open", "size": 17, "color": GREY, "line": {"width": 2}}
    return _scatter(baselines, marker).update(name="baseline", hoverinfo="skip")


def _original(data: pd.DataFrame, shown: Frame) -> go.Scatter:
    """Draw an upright line at the parameter's value in the baseline named "original"."""
    values = data.loc[data["baseline"] == "original", "value"].drop_duplicates().head(1)
    return go.Scatter(
        x=[end for value in plain(values) for end in (value, value)],
        y=[end for _ in values for end in (shown.low, shown.high)],
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": "dot"},
        name="original study",
        showlegend=not values.empty,
        hovertemplate="the original study: %{x}<extra></extra>",
    )


def _scatter(data: pd.DataFrame, marker: dict[str, Any]) -> go.Scatter:
    x, y, text = plain(data["x"]), plain(data["y"]), plain(data["text"])
    numbers = plain(data["number"])
    return go.Scatter(x=x, y=y, text=text, customdata=numbers, mode="markers", marker=marker)


def plot_importances(importances: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """Draw one bar per parameter and arm.

    Args:
        importances: The rows of one question of importance.importances_table.
        arms: All arms of the study.
    """
    if importances.empty:
        return empty_figure(f"Importances need {MIN_TRIALS} complete trials in an arm.")
    bars = importances.pivot_table(index="parameter", columns="arm", values="importance")
    bars = bars.loc[bars.mean(axis="columns").sort_values(ascending=False).index]
    figure = _bars(bars, arms, "%{x:.0%}")
    return figure.update_xaxes(title_text="importance", tickformat=".0%", range=[0, 1.15])


def _bars(table: pd.DataFrame, arms: Sequence[str], text: str) -> go.Figure:
    """Draw a group of horizontal bars per row, with a bar per arm that has a column."""
    figure = go.Figure()
    for arm in (arm for arm in arms if arm in table):
        bar = go.Bar(y=list(table.index), x=plain(table[arm]), orientation="h")
        bar.update(marker_color=arm_colours(arms)[arm], texttemplate=text, textposition="outside")
        bar.update(marker_pattern_shape=arm_patterns(arms)[arm])
        figure.add_trace(bar.update(cliponaxis=False, text=plain(table.index), **labelled(arm)))
    figure.update_yaxes(autorange="reversed")
    return finish(figure, height=110 + len(table) * (16 + 20 * len(figure.data)))  # pixels


def _at_step(row: dict[Any, Any], metric: Metric) -> str:
    result = written(row["perplexity"], metric)
    return f"trial {row['number']}, step {row['step']}<br>perplexity {result}"


def _label(row: dict[Any, Any], parameter: str, metric: Metric) -> str:
    value = row["value"]
    lines = [
        f"trial {row['number']}, {row['outcome']}",
        f"{parameter} {value:.4g}" if isinstance(value, float) else f"{parameter} {value}",
    ]
    if not pd.isna(row["baseline"]):
        lines.append(f"baseline {row['baseline']}")
    known = not pd.isna(row["perplexity"])
    lines.append(f"perplexity {written(row['perplexity'], metric)}" if known else "no perplexity")
    return "<br>".join(lines)
