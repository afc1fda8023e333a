"""Every figure of a study by name, with the words around it: for the report and for files.

A figure is drawn when it is asked for. Add one by adding it to `figures`; knows no HTML of a page.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import plotly.graph_objects as go

from gpt.errors import DiskError, InputError
from gpt.system.files import write_text
from sweep import visualization as plots
from sweep.analysis import results
from sweep.analysis.calibration import calibration_table
from sweep.analysis.importance import MIN_TRIALS, importances_table
from sweep.analysis.sessions import sessions_table
from sweep.analysis.study_reader import Stored
from sweep.analysis.tuning_curve import expected_best_table

FORMATS = ("html", "png", "svg", "json")
PAPER = "#ffffff"  # of a picture: text is mid-grey, which a transparent one may be laid on
SIZE = {"width": 1000, "scale": 2}  # pixels of a picture, and how many of them are really drawn


@dataclass(frozen=True)
class Figure:
    """A figure and the words around it."""

    name: str
    title: str
    caption: str
    draw: Callable[[], go.Figure]
    wide: bool = False  # over the whole page
    of_verdict: bool = False  # shown beside the verdict, once there is one


def figures(stored: Stored) -> Iterator[Figure]:
    """Every figure, in the order of the page."""
    yield from _progress(stored)
    if len(stored.arms) > 1:
        yield from _confirmed(stored)
    yield from _slices(stored)
    yield from _landscapes(stored)
    yield from _costs(stored)


def _confirmed(stored: Stored) -> Iterator[Figure]:
    yield Figure(
        "confirm-runs",
        "Fresh seeds",
        "The chosen settings of each arm, trained again with seeds that the search never used. A "
        "grey line joins the runs of one seed, which saw the same batches. Bar: mean over the "
        "seeds, and its 95% interval by itself. Cross: the run did not end well.",
        partial(plots.plot_confirm_runs, stored.confirm_runs, stored.arms),
        of_verdict=True,
    )
    yield Figure(
        "confirm-ratios",
        "Compared seed by seed",
        f"Ratio of perplexities, {_pairs(stored)}, on stories that the search never saw. "
        "Rings: one seed each. Diamond and line: mean and interval of a paired t test over "
        "seeds. Grey band: differences too small to matter. Thin: other metrics, and a "
        "bootstrap over seeds and stories.",
        partial(plots.plot_forest, stored.verdict, stored.arms),
        of_verdict=True,
    )


def _pairs(stored: Stored) -> str:
    """Which arms a verdict compares: "squentropy to cross_entropy"."""
    arms = stored.verdict["arms"] if stored.verdict else stored.arms
    return f"{' and '.join(arms[1:])} to {arms[0]}"


_TUNING_CURVE = {  # by whether the trials are exchangeable
    True: "The median of the best of n trials that were drawn at random, with a 95% band for all n "
    "together. A pruned trial counts as worse than every complete one.",
    False: "The median of the best of n of these trials, in random order. The sampler learns, so "
    "its trials depend on each other: the curve foretells no other search, and has no band. A "
    "pruned trial counts as worse than every complete one.",
}


def _progress(stored: Stored) -> Iterator[Figure]:
    trials, arms, floor = stored.trials, stored.arms, stored.data.get("floor_perplexity")
    sampler = stored.spec["sampler"]["kind"]
    yield Figure(
        "curves",
        "Learning curves",
        "Validation perplexity while training. Thick: the best trial of an arm. Faint: trials that "
        "ended early or still run. A cross: diverged.",
        partial(plots.plot_curves, stored.evaluations, trials, arms, floor),
        wide=True,
    )
    yield Figure(
        "expected-best",
        "Expected best after n trials",
        _TUNING_CURVE[sampler == "random"],
        lambda: plots.plot_expected_best(
            expected_best_table(trials, arms, sampler, floor), arms, floor
        ),
    )
    yield Figure(
        "outcomes",
        "How trials ended",
        "Pruned: stopped early after a comparison with trials of the same arm.",
        partial(plots.plot_outcomes, results.outcome_counts(trials, arms), arms),
    )


def _slices(stored: Stored) -> Iterator[Figure]:
    for name, distribution in stored.parameters.items():
        yield Figure(
            f"slice-{name}",
            f"Perplexity by {name}",
            "Small and faint: ended early, after fewer steps. Triangle: above the frame. Cross: no "
            "perplexity. Ring: baseline. Dotted: the original study's value.",
            partial(plots.plot_slice, stored.trials, name, stored.arms, distribution),
        )
    yield Figure(
        "importances",
        "What mattered",
        "Share of the variance of log perplexity that a parameter explains among the complete "
        f"trials of an arm (fANOVA, from {MIN_TRIALS} trials on). A rough guide: trials are few.",
        lambda: plots.plot_importances(importances_table(stored.study, stored.arms), stored.arms),
    )


def _landscapes(stored: Stored) -> Iterator[Figure]:
    trials, arms, space = stored.trials, stored.arms, stored.parameters
    if {"dropout", "n_layer"} <= set(space):
        yield Figure(
            "grid",
            "Depth and dropout",
            "The lowest perplexity among the complete trials of a cell, and how many trials were "
            "tried there: “3.14 of 5”, “– of 2” where none was complete. Dark is better.",
            partial(plots.plot_grid, trials, "dropout", "n_layer", arms, space),
            wide=True,
        )
    if {"learning_rate", "n_layer"} <= set(space):
        yield Figure(
            "frontier",
            "Where training blows up",
            "Every finished trial. Cross: diverged or out of memory. The larger a mark, the larger "
            "the largest gradient norm that was measured, before clipping.",
            partial(
                plots.plot_frontier,
                trials,
                stored.evaluations,
                "learning_rate",
                "n_layer",
                arms,
                space,
            ),
        )


def _costs(stored: Stored) -> Iterator[Figure]:
    trials, arms, floor = stored.trials, stored.arms, stored.data.get("floor_perplexity")
    for cost, name, words in (
        ("seconds", "cost-time", "training time"),
        ("n_params", "cost-weights", "size of the model"),
    ):
        yield Figure(
            name,
            f"Perplexity by {words}",
            "The line joins the complete trials that no other beats at their cost or below (the "
            "Pareto front). Faint: ended early.",
            partial(plots.plot_cost, trials, stored.evaluations, arms, cost, floor),
        )
    best = list(stored.complete.drop_duplicates("arm")["number"])
    yield Figure(
        "calibration",
        "How sure, and how often right",
        "The best trial of each arm, its validation tokens in groups of equal size by how sure it "
        "was. Below the diagonal it is too sure of itself.",
        lambda: plots.plot_calibration(calibration_table(stored.study, best), arms),
    )
    yield Figure(
        "timeline",
        "When each slot trained what",
        "A bar per process; a trial that was interrupted and continued has several. Faint: pruned.",
        lambda: plots.plot_timeline(sessions_table(stored.study), arms),
        wide=True,
    )


def figure(stored: Stored, name: str) -> Figure:
    """The figure of this name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    known = {figure.name: figure for figure in figures(stored)}
    if name not in known:
        raise InputError(f"the plot must be one of {', '.join(known)}, but got {name!r}.")
    return known[name]


def check_format(path: Path) -> str:
    """The format that a file's suffix names, one of FORMATS.

    Raises:
        InputError: it names none.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise InputError(f"{path} must end in .{', .'.join(FORMATS)}; its suffix is the format.")
    return form


def save(drawn: dict[Path, go.Figure]) -> None:
    """Write each figure to its path, in the format of its suffix.

    Raises:
        InputError: a suffix is no format, a file cannot be written, or pictures cannot be made.
    """
    pictures = {path: fig for path, fig in drawn.items() if check_format(path) in ("png", "svg")}
    for path, fig in drawn.items():
        try:
            if path not in pictures:
                write_text(path, _text(fig, check_format(path)))
        except OSError as error:
            raise DiskError(f"{path} must be writable, but: {error.strerror}.") from None
    if pictures:
        _draw_pictures(pictures)


def _text(figure: go.Figure, form: str) -> str:
    if form == "json":
        return str(figure.to_json())
    return str(go.Figure(figure).update_layout(paper_bgcolor=PAPER).to_html(include_plotlyjs=True))


def _draw_pictures(figures: dict[Path, go.Figure]) -> None:
    """With kaleido, in one start of its browser."""
    import plotly.io

    way_out = "write .html or .json instead"
    if find_spec("kaleido") is None:
        raise InputError(
            f"pictures need kaleido, but it is not installed; {way_out}, or: "
            f"pip install 'squen-sweep[images]'"
        )
    on_paper = [go.Figure(figure).update_layout(paper_bgcolor=PAPER) for figure in figures.values()]
    heights = [figure.layout.height for figure in on_paper]
    try:
        plotly.io.write_images(on_paper, list(figures), height=heights, **SIZE)
    except OSError as error:
        raise DiskError(f"pictures must be writable, but: {error}.") from None
    except Exception as error:  # kaleido's own, which cannot be imported without it
        reason = str(error).strip().splitlines()[0].rstrip(".:,")
        raise InputError(f"pictures need Chromium, but: {reason}; {way_out}.") from None
