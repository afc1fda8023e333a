"""One HTML file that answers a study's question: words, figures, tables, stories. Works offline.

Gathers plain values and figures, and hands them to report.html.jinja, which alone knows the page.
Reads only. Add a figure by adding one to `figures`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import optuna
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from optuna.storages import RDBStorage
from plotly.offline import get_plotlyjs

from gpt.disk import write_text
from gpt.errors import DiskError, InputError
from sweep import plots, results
from sweep.importances import MIN_TRIALS, importances_table
from sweep.plot_style import arm_colours
from sweep.report_parts import Stored, best_of_arms, commands, facts, read, run_dir_of
from sweep.report_tables import all_table, best_table
from sweep.terminal import perplexity

PROMPT = "Once upon a time"
SEED = 0  # of the stories; the same for every arm, as `squen-sweep sample` has it
TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Figure:
    """A figure and the words around it."""

    id: str
    title: str
    caption: str
    figure: go.Figure
    wide: bool = False  # over the whole page

    @property
    def json(self) -> str:
        """The figure for a script element, which only a "<" could end."""
        return str(self.figure.to_json()).replace("<", "\\u003c")


@dataclass(frozen=True)
class Story:
    """How the best trial of an arm goes on from the prompt, or why it does not."""

    arm: str
    number: int
    text: str | None
    missing: str | None


def write_report(
    storage: RDBStorage, study: optuna.Study, out: Path, *, prompt: str = PROMPT
) -> Path:
    """Write the report of a study to `out`, whole or not at all.

    Args:
        storage: Holds the study and its evaluations.
        study: With at least one complete trial.
        out: Replaced if it exists; its folder is made.
        prompt: How the story of every arm begins.

    Returns:
        `out`.

    Raises:
        InputError: no trial is complete yet, another program ran them, or `out` cannot be written.
    """
    results.run_dir(study, results.best_trial(study))  # or it says what to run
    page = render(read(storage, study), prompt)
    try:
        _write_atomically(out, page)
    except OSError as error:
        raise DiskError(
            f"the report must go where a file can be written, but {out}: {error.strerror}; "
            f"pass another --output."
        ) from None
    return out


def render(stored: Stored, prompt: str = PROMPT) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # a study's description is anybody's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["perplexity"] = perplexity
    best = best_of_arms(stored)
    return environment.get_template(TEMPLATE).render(
        spec=stored.spec,
        data=stored.data,
        written=datetime.now(UTC),
        best=best,
        without=[arm for arm in stored.arms if arm not in {entry.arm for entry in best}],
        colours=arm_colours(stored.arms),
        facts=facts(stored),
        figures=list(figures(stored)),
        best_table=best_table(stored),
        all_table=all_table(stored),
        progress=stored.progress,
        prompt=prompt,
        seed=SEED,
        stories=[_story(stored, entry.arm, entry.number, prompt) for entry in best],
        commands=commands(stored, best, prompt, SEED),
        plotly_js=get_plotlyjs(),
    )


def figures(stored: Stored) -> Iterator[Figure]:
    """Every figure, in the order of the page."""
    trials, arms, floor = stored.trials, stored.arms, stored.data["floor_perplexity"]
    yield Figure(
        "curves",
        "Learning curves",
        "Validation perplexity while training. Thick: the best trial of an arm. Faint: trials that "
        "ended early or still run. A cross: diverged.",
        plots.plot_curves(stored.evaluations, trials, arms, floor),
        wide=True,
    )
    yield Figure(
        "best-so-far",
        "Best so far",
        "The lowest perplexity of each arm against the number of its trials. Pruned and diverged "
        "trials count: they cost budget too.",
        plots.plot_best_so_far(trials, arms, floor),
    )
    yield Figure(
        "outcomes",
        "How trials ended",
        "Pruned: stopped early after a comparison with trials of the same arm.",
        plots.plot_outcomes(results.outcome_counts(trials, arms), arms),
    )
    yield from _slices(stored)
    yield Figure(
        "importances",
        "What mattered",
        "Share of the variance of log perplexity that a parameter explains among the complete "
        f"trials of an arm (fANOVA, from {MIN_TRIALS} trials on). A rough guide: trials are few.",
        plots.plot_importances(importances_table(stored.study, arms), arms),
    )


def _slices(stored: Stored) -> Iterator[Figure]:
    for name, distribution in stored.parameters.items():
        yield Figure(
            f"slice-{name}",
            f"Perplexity by {name}",
            "Small and faint: ended early, after fewer steps. Triangle: above the frame. Cross: no "
            "perplexity. Ring: baseline.",
            plots.plot_slice(stored.trials, name, stored.arms, distribution),
        )


def _story(stored: Stored, arm: str, trial_number: int, prompt: str) -> Story:
    """The story of a trial, from its checkpoint."""
    run_dir = run_dir_of(stored, trial_number)
    if not (run_dir / "checkpoints").is_dir():
        return Story(arm, trial_number, None, f"There is no checkpoint in {run_dir}.")
    from gpt.sample import sample  # imports torch

    try:
        return Story(arm, trial_number, sample(run_dir, prompt, seed=SEED)[0], None)
    except (InputError, OSError) as error:
        return Story(arm, trial_number, None, str(error))


def _write_atomically(out: Path, text: str) -> None:
    """A reader of `out` sees the old file or the new one, never a part of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
