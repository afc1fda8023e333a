"""Figures of a study by name, with the words around them: for the report and for files.

A figure is drawn when it is asked for. Add one by adding it to `figures`.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import plotly.graph_objects as go
import plotly.io
from optuna.distributions import IntDistribution

from gpt.errors import InputError, StorageError
from gpt.system.files import atomic_write_text
from sweep import visualization as plots
from sweep.analysis.calibration import calibration_table
from sweep.analysis.importance import (
    FANOVA_TRIALS,
    MIN_TRIALS,
    OF_THE_BEST,
    OVER_THE_RANGE,
    SAMPLED,
    dashboard_importances,
    importances_table,
)
from sweep.analysis.machine import machine_table, time_table
from sweep.analysis.study_reader import StudyReader, shown
from sweep.analysis.tuning_curve import tuning_curve_table
from sweep.study.metric import PERPLEXITY

FIGURE_FORMATS = ("html", "png", "svg", "json")
# plotly.js with the traces of two axes, the only ones that are drawn here: npm's package
# plotly.js-cartesian-dist-min in the version that plotly for Python has, packed by gzip -9n. A
# browser starts it in a third to a sixth of the time that the complete one takes.
PLOTLY_JS = Path(__file__).parent / "plotly-cartesian.min.js.gz"
BACKGROUND = "#ffffff"  # of a file: text is mid-grey, and a transparent one may be laid on that
SIZE = {"width": 1000, "scale": 2}  # pixels of a picture, and how many of them are really drawn


PageSection = Literal["explore", "verdict", "figures", "machine"]


@dataclass(frozen=True)
class Figure:
    """Figure and the words around it."""

    name: str
    title: str
    caption: str
    draw: Callable[[], go.Figure]
    wide: bool = False  # over the full width of the page
    section: PageSection = "figures"  # of the page; that of the verdict is shown once there is one


def figures(reader: StudyReader) -> Iterator[Figure]:
    """Yield every figure, in the order of the page."""
    metric = reader.metric
    for figure in _figures(reader):
        named = figure.name == "confirm-ratios" and metric.is_perplexity  # by the record
        yield figure if named or metric == PERPLEXITY else _in_words_of(figure, reader)


def _figures(reader: StudyReader) -> Iterator[Figure]:
    yield from _progress(reader)
    if len(reader.arms) > 1:
        yield from _of_verdict(reader)
    yield from _slices(reader)
    yield from _importances(reader)
    yield from _rest(reader)
    yield from _machine(reader)


def _in_words_of(figure: Figure, reader: StudyReader) -> Figure:
    """Name the study's metric where a figure names perplexity: in words, axes and hover texts."""
    metric = reader.metric
    name, better = metric.name, "above" if metric.maximize else "below"
    names = (name, *reader.parameters, *reader.arms)
    words = {one: one for one in names if "perplexity" in one} | {  # a name stays as it is
        "ratio of perplexities (below 1: better)": f"ratio of {name} ({better} 1: better)",
        "log perplexity": f"log {name}" if metric.is_perplexity else name,  # of which none is taken
        "perplexities": name,
        "perplexity": name,
    }
    pattern = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))

    def named(text: str) -> str:
        return re.sub(pattern, lambda found: words[found[0]], text)

    def draw() -> go.Figure:
        return go.Figure(json.loads(named(str(figure.draw().to_json()))))

    title = named(figure.title.replace("Perplexity", "perplexity"))
    return replace(figure, title=title, caption=named(figure.caption), draw=draw)


def _of_verdict(reader: StudyReader) -> Iterator[Figure]:
    yield Figure(
        "confirm-runs",
        "Fresh seeds",
        "The chosen settings of each arm, trained again with seeds that the search never used. A "
        "grey line joins the runs of one seed, which saw the same batches. Bar: mean over the "
        "seeds, and its 95% interval by itself. Cross at the upper edge: the run did not end well.",
        partial(
            plots.plot_confirm_runs,
            reader.confirm_runs,
            reader.arms,
            reader.lowest,
            reader.verdict,
            reader.metric,
        ),
        section="verdict",
    )
    unseen_stories = "" if reader.is_program else ", on stories that the search never saw"
    yield Figure(
        "confirm-ratios",
        "Compared seed by seed",
        f"Ratio of perplexities, {_pairs(reader)}{unseen_stories}. "
        "Rings: one seed each. Diamond and line: mean and interval of a paired t test over "
        "seeds. Grey band: differences too small to matter. Thin: other metrics, and a "
        "bootstrap over seeds and stories.",
        partial(plots.plot_forest, reader.verdict, reader.arms),
        section="verdict",
    )


def _pairs(reader: StudyReader) -> str:
    """Name the arms that a verdict compares: "squentropy to cross_entropy"."""
    arms = reader.verdict["arms"] if reader.verdict else reader.arms
    return f"{' and '.join(arms[1:])} to {arms[0]}"


_TUNING_CURVE = {  # by whether there is a band, which tuning_curve_table gives perplexity alone
    True: "The median of the best of n trials that were drawn at random, against what n trials of "
    "the arm cost, with a 95% band for all n together. A pruned trial counts as worse than every "
    "complete one.",
    False: "The median of the best of n of these trials, in random order, against what n trials of "
    "the arm cost. Baselines are among them, and where the sampler learns, trials depend on each "
    "other: the curve foretells no other search, and has no band. A pruned trial counts as worse "
    "than every complete one.",
}


def _progress(reader: StudyReader) -> Iterator[Figure]:
    trials, arms, floor = reader.trials, reader.arms, reader.data.get("floor_perplexity")
    sampler, metric, few = reader.spec["sampler"]["kind"], reader.metric, shown(reader)
    yield Figure(
        "curves",
        "Learning curves",
        "Validation perplexity while training. Thick: the best trial of an arm. Faint: trials that "
        "ended early or still run; what rises out of the frame is shown by zooming out. A cross at "
        "the upper edge: diverged, at its last evaluation.",
        partial(plots.plot_curves, few.evaluations, few.trials, arms, floor, metric),
        wide=True,
        section="explore",
    )
    yield Figure(
        "tuning-curve",
        "Quantile tuning curve: median of the best of n trials",
        _TUNING_CURVE[sampler == "random" and metric == PERPLEXITY],
        lambda: plots.plot_tuning_curve(
            tuning_curve_table(trials, arms, sampler, reader.lowest, metric), arms, floor, metric
        ),
    )


def _slices(reader: StudyReader) -> Iterator[Figure]:
    trials = shown(reader).trials
    for name, distribution in reader.parameters.items():
        yield Figure(
            f"slice-{name}",
            f"Perplexity by {name}",
            "Small and faint: ended early, after fewer steps. Cross at the upper edge: no "
            "perplexity. Ring: baseline. Dotted: the original study's value."
            + " At an integer, the arms stand side by side."
            * isinstance(distribution, IntDistribution),
            partial(plots.plot_slice, trials, name, reader.arms, distribution, reader.metric),
        )


def _importances(reader: StudyReader) -> Iterator[Figure]:
    table = cache(lambda: importances_table(reader.study, reader.arms))  # a second for both
    for question, name, title, caption in (
        (
            OVER_THE_RANGE,
            "importances",
            "What matters over the range that was searched",
            "Share of the variance of log perplexity that a parameter explains among the complete "
            f"trials of an arm (fANOVA, from {MIN_TRIALS} trials on{_sample(reader)}). Bad trials "
            "count most here: a parameter whose extremes ruin a run comes first.",
        ),
        (
            OF_THE_BEST,
            "importances-best",
            "What sets the best trials apart",
            "Share of a parameter in what distinguishes the best tenth of an arm's complete trials "
            "from the others (PED-ANOVA). Of 20 trials these are two: a rough guide.",
        ),
    ):

        def draw(question: str = question) -> go.Figure:
            found = table()
            figure = plots.plot_importances(found[found["question"] == question], reader.arms)
            if question == OF_THE_BEST and not found.empty:
                figure.update_layout(meta={"note": _of_dashboard(reader)})
            return figure

        yield Figure(name, title, caption, draw)
    yield Figure(
        "contour",
        "The two parameters that matter most",
        "The two numeric parameters that matter most within each arm over the searched range, and "
        "the perplexity between its complete trials (dots), interpolated whatever their other "
        "parameters. Dark is better; where no trials enclose a point, nothing is known.",
        lambda: plots.plot_contour(
            shown(reader).trials,
            table()[table()["question"] == OVER_THE_RANGE],
            reader.arms,
            reader.parameters,
            reader.metric,
        ),
        wide=True,
    )


def _sample(reader: StudyReader) -> str:
    """Say how many trials of an arm fANOVA sees, where it does not see all."""
    largest = reader.complete["arm"].value_counts().max() if len(reader.complete) else 0
    if largest <= FANOVA_TRIALS:
        return ""
    return f"; {SAMPLED} drawn at random of more than {FANOVA_TRIALS:,}"


def _of_dashboard(reader: StudyReader) -> str:
    """Put into words why Optuna's dashboard shows other importances, with its own figures."""
    found = ", ".join(
        f"{name} {share:.2f}" for name, share in dashboard_importances(reader.study).items()
    )
    return (
        "Optuna's dashboard answers this second question as well, but of all arms together"
        f"{' and with the arm as one more parameter' if len(reader.arms) > 1 else ''}, so its "
        f"figures differ from both: it shows {found}."
    )


def _machine(reader: StudyReader) -> Iterator[Figure]:
    table = cache(lambda: machine_table(reader.study, reader.evaluations))
    numbers = shown(reader).trials["number"]
    few = cache(lambda: table()[table()["number"].isin(numbers)])
    yield Figure(
        "time",
        "Where the sweep's time went",
        "Share of each slot's time, from the start of the sweep to its end. Training of trials "
        "that ended early is what pruning did not save; evaluation is measuring and writing "
        "checkpoints; in the lightest part the slot had no trial.",
        lambda: plots.plot_time(time_table(reader.study, table())),
        section="machine",
    )
    yield Figure(
        "slots",
        "Trials in their slots",
        "A bar per trial; faint: ended early. As many slots as trials ran at the same time.",
        lambda: plots.plot_slots(few(), reader.arms),
        section="machine",
    )
    yield Figure(
        "speed",
        "Training speed",
        "Tokens per second of training, without evaluation, over the whole trial.",
        lambda: plots.plot_speed(few(), reader.arms),
        section="machine",
    )
    yield Figure(
        "memory",
        "Peak memory",
        "Of the device; of the trial's process on the CPU.",
        lambda: plots.plot_memory(few(), reader.arms),
        section="machine",
    )


def _rest(reader: StudyReader) -> Iterator[Figure]:
    trials, arms, space = reader.trials, reader.arms, reader.parameters
    if {"dropout", "n_layer"} <= set(space):
        yield Figure(
            "grid",
            "Depth and dropout",
            "The lowest perplexity among the complete trials of a cell, and how many trials were "
            "tried there; a dash where none was complete. Dark is better.",
            partial(plots.plot_grid, trials, "dropout", "n_layer", arms, space, reader.metric),
            wide=True,
        )
    yield Figure(
        "cost-time",
        "Perplexity by training time",
        "The line joins the complete trials that no other beats in their time or less (the Pareto "
        "front). Faint: ended early.",
        partial(
            plots.plot_cost,
            trials,
            reader.evaluations,
            arms,
            reader.data.get("floor_perplexity"),
            reader.metric,
            set(shown(reader).trials["number"]),
        ),
    )
    if reader.is_program:  # it leaves no probabilities of tokens
        return
    best = list(reader.complete.drop_duplicates("arm")["number"])
    yield Figure(
        "calibration",
        "Calibration",
        "The best trial of each arm: its validation tokens in groups of equal size by the "
        "probability of the most likely token. Below the diagonal the model is overconfident.",
        lambda: plots.plot_calibration(calibration_table(reader.study, best), arms),
    )


def figure(reader: StudyReader, name: str) -> Figure:
    """Return the figure of this name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    known = {figure.name: figure for figure in figures(reader)}
    if name not in known:
        raise InputError(f"the plot must be one of {', '.join(known)}, but got {name!r}.")
    return known[name]


def check_format(path: Path) -> str:
    """Return the format that a file's suffix names, one of FIGURE_FORMATS.

    Raises:
        InputError: it names none.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in FIGURE_FORMATS:
        raise InputError(
            f"{path} must end in .{', .'.join(FIGURE_FORMATS)}; its suffix is the format."
        )
    return form


def save_figures(drawn: dict[Path, go.Figure]) -> None:
    """Write each figure to its path, in the format of its suffix.

    Raises:
        InputError: a suffix is no format, a file cannot be written, or pictures cannot be made.
    """
    pictures = {path: fig for path, fig in drawn.items() if check_format(path) in ("png", "svg")}
    for path, fig in drawn.items():
        try:
            if path not in pictures:
                atomic_write_text(path, _text(fig, check_format(path)))
        except OSError as error:
            raise StorageError(f"{path} must be writable, but: {error.strerror}.") from None
    if pictures:
        _draw_pictures(pictures)


def _text(figure: go.Figure, form: str) -> str:
    if form == "json":
        return str(figure.to_json())
    opaque = go.Figure(figure).update_layout(paper_bgcolor=BACKGROUND)
    page = str(opaque.to_html(include_plotlyjs=False))
    script = gzip.decompress(PLOTLY_JS.read_bytes()).decode("utf-8")
    return page.replace("<head>", f"<head><script>{script}</script>", 1)


def _draw_pictures(figures: dict[Path, go.Figure]) -> None:
    """Draw pictures with kaleido, in one start of its browser."""
    way_out = "write .html or .json instead"
    if find_spec("kaleido") is None:
        raise InputError(
            f"pictures need kaleido, but it is not installed; {way_out}, or: "
            f"pip install 'squen-sweep[images]'"
        )
    opaque = [
        go.Figure(figure).update_layout(paper_bgcolor=BACKGROUND) for figure in figures.values()
    ]
    heights = [figure.layout.height for figure in opaque]
    try:
        plotly.io.write_images(opaque, list(figures), height=heights, **SIZE)
    except OSError as error:
        raise StorageError(f"pictures must be writable, but: {error}.") from None
    except Exception as error:  # kaleido's own, which cannot be imported without it
        reason = str(error).strip().splitlines()[0].rstrip(".:,")
        raise InputError(f"pictures need Chromium, but: {reason}; {way_out}.") from None
