"""Calibration diagram: accuracy of a model against its confidence."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from sweep.visualization._axes import labelled, rows
from sweep.visualization.style import (
    GREY,
    arm_colours,
    arm_dashes,
    arm_symbols,
    empty_figure,
    finish,
    plain,
)


def plot_calibration(bins: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """Draw one line per trial; `bins` is calibration.calibration_table.

    On the diagonal a model is as often right as it is sure. Below it is overconfident.
    """
    if bins.empty:
        return empty_figure("No trial has left its calibration bins yet.")
    figure = go.Figure(_diagonal())
    for arm, colour in arm_colours(arms).items():
        for number, of_trial in bins[bins["arm"] == arm].groupby("number"):
            texts = [
                f"trial {number}, {row['count']:,} tokens<br>sure {row['confidence']:.1%}, "
                f"right {row['accuracy']:.1%}"
                for row in rows(of_trial)
            ]
            line = go.Scatter(
                x=plain(of_trial["confidence"]),
                y=plain(of_trial["accuracy"]),
                text=texts,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": arm_dashes(arms)[arm]},
                marker={"symbol": arm_symbols(arms)[arm], "size": 8},
                **labelled(arm),
            )
            figure.add_trace(line)
    share = {"range": [-0.02, 1.02], "tickformat": ".0%"}
    figure.update_xaxes(title_text="probability of the most likely token", **share)
    figure.update_yaxes(title_text="how often it was right", **share)
    return finish(figure)


def _diagonal() -> go.Scatter:
    return go.Scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": "dash"},
        name="as often right as it is sure",
        hoverinfo="skip",
    )
