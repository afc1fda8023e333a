"""Report of a study as one HTML file that works offline: answer, figures, tables, stories.

Gathers plain values and figures for templates/report.html.jinja. Add a figure in
sweep/visualization/figures.py, a fact in sweep/report/facts.py.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from optuna.storages import RDBStorage
from plotly.offline import get_plotlyjs

from gpt.errors import StorageError
from gpt.system.files import atomic_write_text
from sweep.analysis import results
from sweep.analysis.study_reader import StudyReader, answer, best_of_arms, read_study
from sweep.format import SHORT_NAMES, Show, perplexity, unseen
from sweep.report.facts import commands, facts, provenance, study_file
from sweep.report.samples import PROMPTS, SEED, sample_stories
from sweep.report.tables import all_table, best_table, metrics_table
from sweep.report.verdict_section import make_section
from sweep.visualization.figures import Figure, figures
from sweep.visualization.style import arm_colours, arm_rounds

TEMPLATE = "report.html.jinja"
FIGURES_SHARE = 0.3  # of the time that a report takes; the stories take the rest


def write_report(
    storage: RDBStorage,
    study: optuna.Study,
    out: Path,
    *,
    prompts: Sequence[str] = PROMPTS,
    show: Show = unseen,
) -> Path:
    """Write the report of a study to `out`, completely or not at all.

    Args:
        storage: Holds the study and its evaluations.
        study: In any state: also before its first complete trial.
        out: Replaced if it exists; its folder is made.
        prompts: How the stories of every arm begin.
        show: Called with each step.

    Returns:
        `out`.

    Raises:
        InputError: another program ran the trials, or `out` cannot be written.
    """
    show("reading the study")
    if results.complete_trials(study):
        results.run_dir(study, results.best_trial(study))  # or it says whose they are
    page = render(read_study(storage, study), prompts, show)
    try:
        _write_atomically(out, page)
    except OSError as error:
        raise StorageError(
            f"the report must go where a file can be written, but {out}: {error.strerror}; "
            f"pass another --output."
        ) from None
    return out


def render(
    reader: StudyReader,
    prompts: Sequence[str] = PROMPTS,
    show: Show = unseen,
) -> str:
    """Render the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # a study's description is anybody's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["perplexity"] = perplexity
    best = best_of_arms(reader)
    confirmed = len(reader.confirm_runs) > 0
    chosen = [one for one in figures(reader) if confirmed or not one.of_verdict]
    drawn = _all_drawn(chosen, show)
    return environment.get_template(TEMPLATE).render(
        spec=reader.spec,
        data=reader.data,
        written=datetime.now(UTC),
        best=best,
        answer=answer(reader),
        colours=arm_colours(reader.arms),
        rounds=arm_rounds(reader.arms),
        verdict=make_section(reader.verdict) if reader.verdict else None,
        facts=facts(reader),
        figures=[one for one in drawn if not one["of_verdict"]],
        verdict_figures=[one for one in drawn if one["of_verdict"]],
        best_table=best_table(reader),
        all_table=all_table(reader),
        metrics=metrics_table(reader),
        progress=reader.progress,
        prompts=prompts,
        seed=SEED,
        stories=sample_stories(reader, prompts, show, FIGURES_SHARE),
        provenance=provenance(reader),
        study_file=study_file(reader),
        commands=commands(reader, best, (*prompts, *PROMPTS)[0], SEED),
        short_names={short: name for name, short in SHORT_NAMES.items()},
        plotly_js=get_plotlyjs(),
    )


def _all_drawn(chosen: Sequence[Figure], show: Show) -> list[dict[str, Any]]:
    drawn = []
    for done, figure in enumerate(chosen):
        show(f"drawing {figure.title.lower()}", FIGURES_SHARE * done / len(chosen))
        drawn.append(_drawn(figure))
    return drawn


def _drawn(figure: Figure) -> dict[str, Any]:
    """Prepare a figure for the page; only a "<" could end the script element of its JSON."""
    drawn = figure.draw()
    return {
        "id": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "wide": figure.wide,
        "of_verdict": figure.of_verdict,
        "height": drawn.layout.height,
        "json": str(drawn.to_json()).replace("<", "\\u003c"),
    }


def _write_atomically(out: Path, text: str) -> None:
    """Replace `out` at once: others see the old file or the new one, never a part."""
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out, text)
