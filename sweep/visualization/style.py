"""Common style of all figures: colours, the perplexity axis, layout.

The background is transparent and text mid-grey, so that a figure reads on light and dark pages.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

# Okabe and Ito (2008): colours that stay apart in every common form of colour blindness, here in an
# order that begins with those that are clear on white as well as on black.
# The last is darker than theirs, which is lost on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A89200")
ON_DARK = ("#4C9FDB", "#F08A3C", "#2DC79B", "#E39CC4", "#F5B93D", "#9AD4F5", "#F0E442")  # the same
SYMBOLS = (  # twice as many as colours; none that means something else: cross, triangle-up
    *("circle", "diamond", "square", "triangle-down", "pentagon", "hexagon", "star"),
    *(
        "hourglass",
        "bowtie",
        "triangle-left",
        "triangle-right",
        "star-diamond",
        "hexagram",
        "cross",
    ),
)
DASHES = ("solid", "dash", "dot", "dashdot")  # of the first seven arms, the next seven, and so on
PATTERNS = ("", "/", ".", "x")  # of their bars
GREY = "#808080"  # a contrast of about 4 on white and 5 on black
FADED = 0.6  # opacity of trials that ended early
FADED_ON_DARK = 0.75


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """Return the colour of each arm, fixed by its position in the study file."""
    return {arm: PALETTE[i % len(PALETTE)] for i, arm in enumerate(arms)}


def arm_symbols(arms: Sequence[str]) -> dict[str, str]:
    """Return the marker of each arm, so that colour is not the only difference."""
    return {arm: SYMBOLS[i % len(SYMBOLS)] for i, arm in enumerate(arms)}


def arm_rounds(arms: Sequence[str]) -> dict[str, int]:
    """Count the times that the palette was used up before each arm: 0 for the first seven."""
    return {arm: i // len(PALETTE) for i, arm in enumerate(arms)}


def arm_dashes(arms: Sequence[str]) -> dict[str, str]:
    """Return the dash of each arm's lines: arms of one colour differ in it."""
    return {arm: DASHES[number % len(DASHES)] for arm, number in arm_rounds(arms).items()}


def arm_patterns(arms: Sequence[str]) -> dict[str, str]:
    """Return the pattern of each arm's bars: arms of one colour differ in it."""
    return {arm: PATTERNS[number % len(PATTERNS)] for arm, number in arm_rounds(arms).items()}


@dataclass(frozen=True)
class Frame:
    """Visible part of a perplexity axis; zooming out shows the rest."""

    low: float
    high: float
    log: bool  # it spans a decade or more


def frame(values: Iterable[float], floor: float | None = None, *, fenced: bool = False) -> Frame:
    """Choose the frame that holds all values, with a logarithmic axis from a decade on.

    Args:
        values: Perplexities; infinite and missing ones are passed over.
        floor: Stays in the frame if it is within a decade of the lowest value.
        fenced: For curves, of which one that diverges would flatten all others: end at Tukey's
            fence on logarithms, and no lower than two decades above the third quartile.
    """
    series = pd.Series(list(values), dtype="float64")
    finite = series[series.abs() < math.inf]
    if len(finite) and finite.min() <= 0:  # of a metric that is no perplexity
        padding = 0.06 * float(finite.max() - finite.min()) or 1.0
        return Frame(float(finite.min()) - padding, float(finite.max()) + padding, log=False)
    logs = series[(series > 0) & (series < math.inf)].map(math.log)
    if logs.empty:
        return Frame(1.0, 10.0, log=False)
    low, high = math.exp(float(logs.min())), math.exp(float(logs.max()))
    if fenced:
        lower, upper = float(logs.quantile(0.25)), float(logs.quantile(0.75))
        high = min(high, math.exp(upper + max(1.5 * (upper - lower), math.log(100))))
    if floor is not None and low / 10 <= floor:
        low = min(low, floor)
    if high / low >= 10:
        pad = (high / low) ** 0.06
        return Frame(low / pad, high * pad, log=True)
    padding = 0.06 * (high - low) or 0.05 * high
    return Frame(low - padding, high + padding, log=False)


def log_ticks(low: float, high: float, most: float = 3.5) -> int:
    """Return plotly's nticks of a logarithmic axis, so that its labels stay in line.

    It then labels 1, 2 and 5 of each of up to `most` decades, or every decade, or equal steps
    within one. Asked for more, it labels every digit, and moves the decades out of the line.
    """
    decades = math.log10(high / low)
    if decades < 1.3:
        return 3
    return math.ceil(decades / 0.65) if decades <= most else math.ceil(decades) + 1


def without_value(trace: go.Scatter) -> go.Scatter:
    """Put marks that have no perplexity along the upper edge, on an axis of their own."""
    return trace.update(y=[0.97] * len(trace.x), yaxis="y2")


def finish(figure: go.Figure, shown: Frame | None = None, height: int = 400) -> go.Figure:
    """Give a figure the common style, and the perplexity axis if it has one."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 12, "t": 36, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={
            "family": "system-ui, -apple-system, Segoe UI, sans-serif",
            "size": 13,
            "color": GREY,
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": PALETTE[0]},
        bargroupgap=0.1,
    )
    axis = {
        "gridcolor": "rgba(128,128,128,0.22)",
        "zeroline": False,
        "automargin": True,
        "title_standoff": 10,
        "title_font_size": 13,
        "ticklabelstandoff": 4,
    }
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    if shown is not None:
        ends = [shown.low, shown.high]
        figure.update_yaxes(
            title_text="validation perplexity",
            type="log" if shown.log else "linear",
            range=[math.log10(end) for end in ends] if shown.log else ends,  # plotly's own unit
            nticks=log_ticks(shown.low, shown.high) if shown.log else None,
            tickformat=",~g",
        )
        figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False})
        figure.update_layout(yaxis2_fixedrange=True)
    return figure


def empty_figure(text: str) -> go.Figure:
    """Draw a figure that says why there is nothing to see; a report only says it."""
    figure = go.Figure(layout_meta={"empty": text})
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return finish(figure, height=140)


def add_floor(figure: go.Figure, floor: float | None, ends: Sequence[float], shown: Frame) -> None:
    """Draw the lowest perplexity that any model can reach, where it is known.

    A trace from ends[0] to ends[1]: labels of plotly's add_hline miss their line on log axes.
    """
    if floor is None:
        return
    below = " (below the frame)" if floor < shown.low else ""
    figure.add_trace(
        go.Scatter(
            x=[float(end) for end in ends],
            y=[floor, floor],
            mode="lines",
            line={"color": GREY, "width": 1.5, "dash": "dash"},
            name=f"lowest possible, {floor:.2f}{below}",
            hovertemplate="the grammar itself: %{y:.3f}<extra></extra>",
        )
    )


def plain(column: Iterable[Any]) -> list[Any]:
    """Convert a column to Python values, None if missing; numpy would travel as base64."""
    return [_plain(value) for value in column]


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
