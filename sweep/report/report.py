"""Report of a study as one HTML file that works offline: answer, figures, tables, stories.

Gathers plain values and figures for page/report.html.jinja. Add a figure in
sweep/visualization/figures.py, a fact in sweep/report/facts.py, a script to PAGE_SCRIPTS.
"""

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from optuna.storages import RDBStorage

from gpt.errors import StorageError
from gpt.system.files import atomic_write_text
from sweep.analysis import results
from sweep.analysis.study_reader import (
    StudyReader,
    answer,
    best_of_arms,
    heading,
    read_study,
    shown,
    shown_of,
)
from sweep.analysis.trial_stories import stories_by_trial
from sweep.report.facts import commands, facts, provenance, study_file
from sweep.report.page_data import axes, curve_units, kinds, study_json
from sweep.report.samples import PROMPTS, SEED, SampledStories, sample_stories
from sweep.report.tables import all_table, best_table, metrics_table
from sweep.report.verdict_section import make_section
from sweep.study.format import Show, unseen
from sweep.visualization.figures import PLOTLY_JS, Figure, figures
from sweep.visualization.style import ON_DARK, PALETTE, arm_colours, arm_rounds

PAGE = Path(__file__).parent / "page"
TEMPLATE = "report.html.jinja"
PAGE_SCRIPTS = (  # in this order
    "figures.js",
    "tables.js",
    "trials.js",
    "coordinates.js",
    "linked_figures.js",
)
FIGURES_SHARE = 0.3  # of the time that a report takes; the stories take the rest


def write_report(
    storage: RDBStorage,
    study: optuna.Study,
    out: Path,
    *,
    show: Show = unseen,
) -> Path:
    """Write the report of a study to `out`, completely or not at all.

    Args:
        storage: Holds the study and its evaluations.
        study: In any state: also before its first complete trial.
        out: Replaced if it exists; its folder is made.
        show: Called with each step.

    Returns:
        `out`.

    Raises:
        InputError: another program ran the trials, or `out` cannot be written.
    """
    show("reading the study")
    if results.complete_trials(study):
        results.run_dir(study, results.best_trial(study))  # or it says whose they are
    page = render(read_study(storage, study), show=show)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out, page)
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
        loader=FileSystemLoader(PAGE),
        autoescape=True,  # a study's description is anybody's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["perplexity"] = reader.metric.shown
    best = best_of_arms(reader)
    confirmed = len(reader.confirm_runs) > 0
    chosen = [one for one in figures(reader) if confirmed or one.section != "verdict"]
    drawn = _all_drawn(chosen, show)
    stories = [] if reader.is_program else sample_stories(reader, prompts, show, FIGURES_SHARE)
    few = shown(reader)
    of_trials = stories_by_trial(reader.study, set(few.trials["number"]))
    of_page = axes(reader)
    title, open_question = heading(reader)
    return environment.get_template(TEMPLATE).render(
        study_name=reader.study.study_name,
        spec=reader.spec,
        data={"notice": None, "floor_perplexity": None, **reader.data},
        metric=reader.metric.name,
        is_program=reader.is_program,
        written=datetime.now(UTC),
        best=best,
        answer=answer(reader),
        title=title,
        open_question=open_question,
        palette=list(zip(PALETTE, ON_DARK, strict=True)),
        colours={
            arm: f"var(--arm-{PALETTE.index(colour)})"
            for arm, colour in arm_colours(reader.arms).items()
        },
        rounds=arm_rounds(reader.arms),
        verdict=make_section(reader.verdict) if reader.verdict else None,
        facts=facts(reader),
        figures=[one for one in drawn if one["section"] == "figures"],
        verdict_figures=[one for one in drawn if one["section"] == "verdict"],
        explore_figures=[one for one in drawn if one["section"] == "explore"],
        machine_figures=[one for one in drawn if one["section"] == "machine"],
        axes=of_page,
        kinds=kinds(few),
        units=curve_units(few),
        shown_of=shown_of(reader),
        best_table=best_table(reader),
        all_table=all_table(reader),
        metrics=metrics_table(reader),
        progress=reader.progress,
        prompts=prompts,
        seed=SEED,
        stories=stories,
        trial_stories=of_trials,
        story_ids=_story_ids(stories, of_trials),
        arm_of=dict(zip(reader.trials["number"], reader.trials["arm"], strict=True)),
        provenance=provenance(reader),
        study_file=study_file(reader),
        commands=commands(reader, best, (*prompts, *PROMPTS)[0], SEED),
        css=(PAGE / "page.css").read_text(encoding="utf-8"),
        scripts=[(PAGE / name).read_text(encoding="utf-8") for name in PAGE_SCRIPTS],
        study_json=study_json(few, of_page),
        plotly_base64=b64encode(PLOTLY_JS.read_bytes()).decode(),
    )


def _story_ids(stories: Sequence[SampledStories], of_trials: dict[int, str]) -> dict[int, str]:
    """Return the element that holds the story of each trial that has one."""
    sampled = {story.number: f"sampled-{story.number}" for story in stories if not story.missing}
    return {number: f"story-{number}" for number in of_trials} | sampled


def _all_drawn(chosen: Sequence[Figure], show: Show) -> list[dict[str, Any]]:
    drawn = []
    for done, figure in enumerate(chosen):
        show(f"drawing {figure.title.lower()}", FIGURES_SHARE * done / len(chosen))
        drawn.append(_drawn(figure))
    return drawn


def _drawn(figure: Figure) -> dict[str, Any]:
    """Prepare a figure for the page; only a "<" could end the script element of its JSON."""
    drawn = figure.draw()
    meta = drawn.layout.meta or {}
    return {
        "id": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "wide": figure.wide,
        "section": figure.section,
        "note": meta.get("note"),
        "empty": meta.get("empty"),
        "height": drawn.layout.height,
        "json": str(drawn.to_json()).replace("<", "\\u003c"),
    }
