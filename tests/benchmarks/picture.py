"""Picture of an answer for the README: learning curves beside the forest of paired ratios.

    python tests/benchmarks/picture.py --storage runs/sweep.db --study tinystories \
        -o .github/assets/answer.png

needs a study with a verdict, kaleido and a Chromium.
"""

import argparse
from pathlib import Path
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gpt.errors import InputError
from sweep import visualization as plots
from sweep.analysis.study_reader import StudyReader, answer, read_study
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.visualization.confirm import forest_data
from sweep.visualization.style import GREY, add_floor, arm_colours, frame
from sweep.visualization.trials import curves_data

WIDTH, HEIGHT, SCALE = 1600, 800, 1.5  # pixels, and how many of them are really drawn
INK, MUTED, LINES = "#1c1e21", "#5b616b", "#e4e2dd"
LETTERS = 112  # of a line of the answer
QUESTION_LETTERS = 76  # of a line of the question
SMALL, MIDDLE, LARGE = 22, 25, 32  # pixels of letters: a README shows the picture at half size
FAINT = 0.28  # opacity of the trials that are not the best of their arm


def picture(reader: StudyReader) -> go.Figure:
    """Draw both halves on a white background, which suits GitHub's light and dark pages.

    Raises:
        InputError: the study has no verdict.
    """
    if reader.verdict is None:
        raise InputError(
            f"study {reader.study.study_name!r} must have a verdict, but it has none; "
            f"run: squen-sweep verdict --study {reader.study.study_name}"
        )
    figure = make_subplots(1, 2, column_widths=[0.56, 0.44], horizontal_spacing=0.1)
    _curves(figure, reader)
    _forest(figure, reader)
    figure.update_xaxes(showgrid=True, gridcolor=LINES, zeroline=False, ticks="", title_standoff=14)
    figure.update_yaxes(gridcolor=LINES, zeroline=False, title_standoff=8)
    words = wrap(answer(reader).text, LETTERS)
    seeds = len(reader.verdict["comparisons"][0]["difference"]["per_seed"])
    question = [f"<b>{line}</b>" for line in wrap(reader.spec["question"], QUESTION_LETTERS)]
    above = 40 * (len(question) - 1)  # pixels of further lines of the question
    margin = 142 + above + 36 * len(words)  # pixels above the plots
    _words(figure, margin - 20, question, size=LARGE, color=INK)
    _words(figure, margin - 70 - above, words, size=MIDDLE, color=INK)
    _words(figure, 46, ["Every trial; thick: the best of each arm"])
    right = figure.layout.xaxis2.domain[0]
    _words(figure, 46, [f"The best again with {seeds} fresh seeds (rings)"], x=right)
    return figure.update_layout(
        template="none",
        width=WIDTH,
        height=HEIGHT,
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        font={"family": "Liberation Sans, DejaVu Sans, sans-serif", "size": SMALL, "color": MUTED},
        margin={"l": 110, "r": 30, "t": margin, "b": 92},
        showlegend=False,
    )


def _words(
    figure: go.Figure,
    above: int,
    lines: list[str],
    x: float = 0.0,
    size: int = SMALL,
    color: str = MUTED,
) -> None:
    """Write lines that begin so many pixels above the plots."""
    figure.add_annotation(
        text="<br>".join(lines),
        **{"x": x, "xref": "paper", "xanchor": "left", "align": "left", "showarrow": False},
        **{"y": 1, "yref": "paper", "yanchor": "top", "yshift": above},
        font={"size": size, "color": color},
    )


def _curves(figure: go.Figure, reader: StudyReader) -> None:
    data = curves_data(reader.evaluations, reader.trials)
    floor = reader.data.get("floor_perplexity")
    shown = frame(data["perplexity"], floor, fenced=True)
    for best in (False, True):  # the best on top of all others
        for arm, colour in arm_colours(reader.arms).items():
            of_arm = data[(data["arm"] == arm) & (data["best"] == best)]
            for _, trial in of_arm.groupby("number"):
                line = {"color": colour, "width": 5 if best else 1.4}
                trace = go.Scatter(x=trial["tokens"], y=trial["perplexity"], mode="lines")
                trace.update(line=line, opacity=1.0 if best else FAINT)
                figure.add_trace(trace, row=1, col=1)
    if floor is not None:
        add_floor(figure, floor, [0, data["tokens"].max()], shown)
    _names(figure, reader, data)
    ends = plots.plot_curves(reader.evaluations, reader.trials, reader.arms, floor).layout.yaxis
    axis = {key: ends[key] for key in ("type", "range", "dtick", "nticks", "tickformat")}
    figure.update_yaxes(axis | {"title_text": "validation perplexity"}, row=1, col=1)
    tokens = float(data["tokens"].max())
    range_ = [0, 1.02 * tokens]
    figure.update_xaxes(title_text="training tokens", tickformat="~s", range=range_, row=1, col=1)


def _names(figure: go.Figure, reader: StudyReader, data: Any) -> None:
    """Name the arms in their colours at the upper right, where no curve ends."""
    for i, (arm, colour) in enumerate(arm_colours(reader.arms).items()):
        best = data[(data["arm"] == arm) & data["best"]]
        ended = f", best {best['perplexity'].iloc[-1]:,.4g}" if len(best) else ""
        figure.add_annotation(
            text=f"<b>{arm}</b>{ended}",
            **{"x": 0.985, "y": 0.98 - 0.1 * i, "xref": "x domain", "yref": "y domain"},
            **{"xanchor": "right", "yanchor": "top", "showarrow": False},
            font={"size": MIDDLE, "color": colour},
            bgcolor="rgba(255,255,255,0.85)",
        )


def _forest(figure: go.Figure, reader: StudyReader) -> None:
    verdict = reader.verdict or {}
    data, margin = forest_data(verdict), verdict["margin"]
    data = data[data["primary"]].reset_index(drop=True)
    colours, count = arm_colours(reader.arms), len(data)
    low, high = 1 / (1 + margin), 1 + margin
    for nth, row in enumerate(data.to_dict("records")):
        y, colour = count - 1 - nth, colours[row["arm"]]
        change, ends = 100 * (row["ratio"] - 1), [100 * (row[key] - 1) for key in ("low", "high")]
        rings = {"color": colour, "size": 15, "symbol": "circle-open", "line": {"width": 2.5}}
        shift = [y - 0.24] * len(row["seeds"])
        for trace in (
            go.Scatter(x=row["seeds"], y=shift, mode="markers", marker=rings),
            go.Scatter(x=[row["low"], row["high"]], y=[y, y], mode="lines").update(
                line={"color": colour, "width": 6}
            ),
            go.Scatter(x=[row["ratio"]], y=[y], mode="markers").update(
                marker={"color": colour, "size": 24, "symbol": "diamond"}
            ),
        ):
            figure.add_trace(trace, row=1, col=2)
        figure.add_annotation(
            text=f"<b>{row['against']}</b><br>{change:+.1f}%, "
            f"from {ends[0]:+.1f}% to {ends[1]:+.1f}%",
            **{"x": 0.02, "y": y + 0.38, "xref": "x2 domain", "yref": "y2", "xanchor": "left"},
            **{"showarrow": False, "align": "left", "font": {"size": SMALL, "color": colour}},
            bgcolor="rgba(255,255,255,0.85)",
        )
    band = {"x0": low, "x1": high, "line_width": 0, "layer": "below"}
    figure.add_vrect(**band, fillcolor=GREY, opacity=0.18, row=1, col=2)
    figure.add_vline(x=1, line={"color": GREY, "width": 2}, row=1, col=2)
    figure.add_annotation(
        text="too small<br>to matter",
        **{
            "x": (low + high) / 2,
            "y": 0.02,
            "xref": "x2",
            "yref": "y2 domain",
            "yanchor": "bottom",
        },
        **{"showarrow": False, "font": {"size": SMALL - 3, "color": MUTED}},
    )
    seeds = [seed for row in data["seeds"] for seed in row]
    spread = [low, high, *data["low"], *data["high"], *seeds]
    room = 0.1 * (max(spread) - min(spread))
    range_ = [min(spread) - room, max(spread) + room]
    title = "ratio of perplexities (left of 1: better)"
    figure.update_xaxes(title_text=title, range=range_, tickformat="~g", nticks=6, row=1, col=2)
    hidden = {"range": [-0.65, count - 0.35], "showticklabels": False, "showgrid": False}
    figure.update_yaxes(hidden, row=1, col=2)


def main() -> None:
    """Draw the picture of a stored study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs/sweep.db")
    parser.add_argument("--study", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    storage = open_storage(given.storage)
    reader = read_study(storage, load_study(storage, given.study))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    picture(reader).write_image(given.output, scale=SCALE)


if __name__ == "__main__":
    main()
