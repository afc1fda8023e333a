"""One HTML file that answers a study's question: words, figures, tables, stories. Works offline.

Gathers plain values and figures, and hands them to report.html.jinja, which alone knows the page.
Reads only. A figure is added in sweep/visualization/figures.py, a fact in sweep/report/facts.py.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
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
from sweep.analysis.study_reader import Stored, answer, best_of_arms, read
from sweep.format import Show, perplexity, unseen
from sweep.report.facts import commands, facts, provenance, study_file
from sweep.report.samples import PROMPTS, SEED, tell
from sweep.report.tables import all_table, best_table, yardsticks_table
from sweep.report.verdict_section import make_section
from sweep.visualization.figures import Figure, figures, save
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
    """Write the report of a study to `out`, whole or not at all.

    Args:
        storage: Holds the study and its evaluations.
        study: In any state: also before its first complete trial.
        out: Replaced if it exists; its folder is made.
        prompts: How the stories of every arm begin.
        show: Told what is under way.

    Returns:
        `out`.

    Raises:
        InputError: another program ran the trials, or `out` cannot be written.
    """
    show("reading the study")
    if results.complete_trials(study):
        results.run_dir(study, results.best_trial(study))  # or it says whose they are
    page = render(read(storage, study), prompts, show)
    try:
        _write_atomically(out, page)
    except OSError as error:
        raise StorageError(
            f"the report must go where a file can be written, but {out}: {error.strerror}; "
            f"pass another --output."
        ) from None
    return out


def render(
    stored: Stored,
    prompts: Sequence[str] = PROMPTS,
    show: Show = unseen,
) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # a study's description is anybody's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["perplexity"] = perplexity
    best = best_of_arms(stored)
    confirmed = len(stored.confirm_runs) > 0
    chosen = [one for one in figures(stored) if confirmed or not one.of_verdict]
    drawn = _all_drawn(chosen, show)
    return environment.get_template(TEMPLATE).render(
        spec=stored.spec,
        data=stored.data,
        written=datetime.now(UTC),
        best=best,
        answer=answer(stored),
        colours=arm_colours(stored.arms),
        rounds=arm_rounds(stored.arms),
        verdict=make_section(stored.verdict) if stored.verdict else None,
        facts=facts(stored),
        figures=[one for one in drawn if not one["of_verdict"]],
        verdict_figures=[one for one in drawn if one["of_verdict"]],
        best_table=best_table(stored),
        all_table=all_table(stored),
        yardsticks=yardsticks_table(stored),
        progress=stored.progress,
        prompts=prompts,
        seed=SEED,
        told=tell(stored, prompts, show, FIGURES_SHARE),
        provenance=provenance(stored),
        study_file=study_file(stored),
        commands=commands(stored, best, prompts[0], SEED),
        plotly_js=get_plotlyjs(),
    )


def as_json(stored: Stored) -> str:
    """What the report says, for programs: JSON with the answer, the facts and every trial."""
    best = best_of_arms(stored)
    found = {
        "study": stored.study.study_name,
        "question": stored.spec["question"],
        "notice": stored.data["notice"],
        "answer": asdict(answer(stored)),
        "trials_finished": stored.progress[0],
        "trials_total": stored.progress[1],
        "best": [asdict(entry) for entry in best],
        "facts": dict(facts(stored)),
        "provenance": provenance(stored),
        "commands": dict(commands(stored, best, PROMPTS[0], SEED)),
        "trials": json.loads(stored.trials.to_json(orient="records")),  # NaN becomes null
    }
    return json.dumps(found, indent=1, ensure_ascii=False)


def write_pictures(stored: Stored, folder: Path, show: Show = unseen) -> None:
    """Write every figure of the report into `folder`, as NAME.png.

    Raises:
        InputError: see sweep.visualization.figures.save; or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} must be a folder, but: {error.strerror}.") from None
    drawn = {folder / f"{figure.name}.png": figure.draw() for figure in figures(stored)}
    show(f"drawing {len(drawn)} pictures")
    save(drawn)


def _all_drawn(chosen: Sequence[Figure], show: Show) -> list[dict[str, Any]]:
    drawn = []
    for place, figure in enumerate(chosen):
        show(f"drawing {figure.title.lower()}", FIGURES_SHARE * place / len(chosen))
        drawn.append(_drawn(figure))
    return drawn


def _drawn(figure: Figure) -> dict[str, Any]:
    """What the page needs of a figure; only a "<" could end the script element of its JSON."""
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
    """A reader of `out` sees the old file or the new one, never a part of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out, text)
