"""Plots of the machine: trials in their slots, speed, memory, and where the time went."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from sweep.analysis.machine import TIME_KINDS
from sweep.visualization._axes import integer_ticks, labelled, rows
from sweep.visualization.style import (
    FADED,
    GREY,
    arm_colours,
    arm_symbols,
    empty_figure,
    finish,
    plain,
)

NOTHING = "No trial has started yet."
MOST_SLOTS = 100  # that are drawn: a thousand bars would be 44,000 pixels high
KIND_COLOURS = dict(
    zip(TIME_KINDS, ("#009E73", "#E69F00", "#56B4E9", GREY, "rgba(128,128,128,.25)"), strict=True)
)


def plot_slots(machine: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """Draw every trial as a bar in its slot; `machine` is machine.machine_table."""
    if machine.empty:
        return empty_figure(NOTHING)
    slots = int(machine["slot"].max())
    machine = machine[machine["slot"] <= MOST_SLOTS]
    figure = go.Figure()
    for arm, colour in arm_colours(arms).items():
        of_arm = machine[machine["arm"] == arm]
        texts = [
            f"trial {row['number']}, {row['outcome']}<br>{(row['end'] - row['start']) / 60:.1f} min"
            for row in rows(of_arm)
        ]
        opacity = [1.0 if outcome == "complete" else FADED for outcome in of_arm["outcome"]]
        bar = go.Bar(
            y=[f"slot {slot}" for slot in of_arm["slot"]],
            x=plain((of_arm["end"] - of_arm["start"]) / 60),
            base=plain(of_arm["start"] / 60),
            orientation="h",
            marker={"color": colour, "opacity": opacity, "line": {"width": 1, "color": GREY}},
            hovertext=texts,
            **labelled(arm, "%{hovertext}"),
        )
        figure.add_trace(bar)
    figure.update_xaxes(title_text="minutes since the first trial started")
    figure.update_yaxes(**_slot_axis(machine))
    height = 130 + 44 * int(machine["slot"].max())
    figure = finish(figure, height=height).update_layout(barmode="overlay", bargap=0.25)
    return _says_left_out(figure, slots)


def _says_left_out(figure: go.Figure, slots: int) -> go.Figure:
    note = f"The first {MOST_SLOTS} of {slots:,} slots are drawn."
    return figure.update_layout(meta={"note": note}) if slots > MOST_SLOTS else figure


def plot_time(times: pd.DataFrame) -> go.Figure:
    """Draw the time of each slot and of all, by its kind; `times` is machine.time_table."""
    if times.empty:
        return empty_figure(NOTHING)
    slots = list(times["slot"].unique())
    drawn = slots[:MOST_SLOTS]
    figure = go.Figure()
    for kind in TIME_KINDS:
        of_kind = times[times["kind"] == kind]
        bars = rows(of_kind[of_kind["slot"].isin(drawn)])
        seconds = {f"slot {row['slot']}": row["seconds"] for row in bars}
        shares = {f"slot {row['slot']}": row["share"] for row in bars}
        if len(slots) > 1:
            seconds["all slots"] = float(of_kind["seconds"].sum())
            shares["all slots"] = seconds["all slots"] / float(times["seconds"].sum() or 1.0)
        bar = go.Bar(
            y=list(shares),
            x=list(shares.values()),
            orientation="h",
            text=[f"{share:.0%}" if share >= 0.06 else "" for share in shares.values()],
            hovertext=[f"{one / 60:,.1f} min, {shares[slot]:.1%}" for slot, one in seconds.items()],
            hovertemplate=f"<b>{kind}</b><br>%{{hovertext}}<extra></extra>",
            name=kind,
            marker_color=KIND_COLOURS[kind],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
        )
        figure.add_trace(bar)
    figure.update_xaxes(title_text="share of the slot's time", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(type="category", autorange="reversed")
    height = 170 + 40 * (len(drawn) + (len(slots) > 1))
    figure = finish(figure, height=height)
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    return _says_left_out(figure, len(slots))


def plot_speed(machine: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """Draw the training speed of every trial; `machine` is machine.machine_table."""
    return _by_trial(machine, arms, "tokens_per_second", 1, "training tokens per second")


def plot_memory(machine: pd.DataFrame, arms: Sequence[str]) -> go.Figure:
    """Draw the peak memory of every trial; `machine` is machine.machine_table."""
    return _by_trial(machine, arms, "peak_memory_bytes", 2**20, "peak memory, MiB")


def _by_trial(
    machine: pd.DataFrame, arms: Sequence[str], column: str, unit: int, title: str
) -> go.Figure:
    data = machine[machine[column].notna()]
    if data.empty:
        return empty_figure("No trial has measured it yet.")
    figure = go.Figure()
    for arm, colour in arm_colours(arms).items():
        of_arm = data[data["arm"] == arm]
        points = go.Scatter(
            x=plain(of_arm["number"]),
            y=plain(of_arm[column] / unit),
            text=[f"slot {row['slot']}, {row['outcome']}" for row in rows(of_arm)],
            customdata=plain(of_arm["number"]),
            mode="markers",
            marker={"color": colour, "symbol": arm_symbols(arms)[arm], "size": 8},
            **labelled(arm, "trial %{x}, %{text}<br>%{y:,.4~g}"),
        )
        figure.add_trace(points)
    figure.update_xaxes(title_text="trial", **integer_ticks(int(data["number"].max())))
    figure.update_yaxes(title_text=title, rangemode="tozero", tickformat=",~s")
    return finish(figure, height=320)


def _slot_axis(machine: pd.DataFrame) -> dict[str, object]:
    slots = [f"slot {slot}" for slot in sorted(machine["slot"].unique())]
    return {"type": "category", "categoryarray": slots, "autorange": "reversed"}
