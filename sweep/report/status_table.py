"""Status of a study for the terminal: trials, counts, best per arm, notice."""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import format as fmt
from sweep.storage.schema import study_attrs

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

    from sweep.tuner.summary import Summary


def study_status(study: "optuna.Study", width: int) -> "list[RenderableType]":
    """Render the status of a study, running or not, in `width` columns."""
    from rich.text import Text

    from sweep.analysis.results import UNFINISHED, best_by_arm, missing_runs, trials_table

    trials = trials_table(study)
    parts: list[RenderableType] = [Text(line, "bold") for line in _facts(study)]
    if notice := (study_attrs(study).data or {}).get("notice"):
        parts.append(Text(f"NOTICE: {notice}", "bold yellow"))
    parts.append(_table(study, trials, width) if len(trials) else Text("no trials yet"))
    outcomes = trials["outcome"]
    total = study_attrs(study).n_trials or "?"
    counts = [f"{count} {outcome}" for outcome, count in outcomes.value_counts().items()]
    finished = int((~outcomes.isin(UNFINISHED)).sum())
    left = [f"about {fmt.duration(seconds)} left"] if (seconds := _seconds_left(study)) else []
    parts.append(Text(", ".join([f"{finished}/{total} trials finished", *counts, *left])))
    if best := best_by_arm(study):
        parts.append(Text(f"best: {fmt.best_line(best)}", "green"))
    if missing := missing_runs(study):
        parts.append(Text(_without_folders(study, missing), "yellow"))
    return parts


def status_json(study: "optuna.Study") -> str:
    """Return the status as JSON: facts, counts, the best per arm, missing runs and every trial."""
    from sweep.analysis.results import UNFINISHED, best_by_arm, missing_runs, trials_table

    trials = trials_table(study)
    found = {
        "study": study.study_name,
        "device": study_attrs(study).device,
        "data": study_attrs(study).data,
        "finished": int((~trials["outcome"].isin(UNFINISHED)).sum()),
        "total": study_attrs(study).n_trials,
        "outcomes": {name: int(count) for name, count in trials["outcome"].value_counts().items()},
        "best": {
            arm: {"trial": trial, "perplexity": value}
            for arm, (trial, value) in best_by_arm(study).items()
        },
        "missing_runs": missing_runs(study),
        "trials": json.loads(trials.to_json(orient="records")),  # NaN becomes null
    }
    return json.dumps(found, indent=1, ensure_ascii=False)


def closing_lines(
    summary: "Summary", folder: Path, storage: str, suffix: str, steps: int, report: Path
) -> list[str]:
    """Summarise a finished sweep: counts, paths, and the next commands.

    Args:
        summary: Of a sweep that was not interrupted.
        folder: Its run directories.
        storage: As the user gave it.
        suffix: The options by which the commands find that storage.
        steps: Of the final training that is suggested.
        report: The report that was written.
    """
    counted = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items())
    ended = f"{summary.study} is complete"
    if summary.already_complete:
        ended = f"{summary.study} is already complete"
    several = len(summary.best) > 1  # arms of which one may be better
    took = "" if summary.already_complete else f" in {fmt.duration(summary.seconds)}"
    return [
        f"{ended}: {summary.finished}/{summary.total} trials ({counted}){took}",
        f"best: {fmt.best_line(summary.best)}" if summary.best else "no trial is complete",
        f"runs: {folder}, storage: {storage}",
        f"report: {report}",
        "next:",
        *([f"  squen-sweep verdict --study {summary.study}{suffix}"] if several else []),
        f"  squen-sweep export --study {summary.study}{suffix} -o best.toml",
        f"  squen-sweep train best.toml --steps {steps}",
        f"  squen-sweep dashboard{suffix}",
    ]


def _facts(study: "optuna.Study") -> list[str]:
    """List study, data and, if known, the lowest possible perplexity, one line each."""
    attrs = study_attrs(study)
    data = attrs.data or {}
    facts = [f"study {study.study_name} on {attrs.device or 'no device yet'}"]
    if data:
        facts.append(
            f"data: {data['name']}, {data['train_tokens']:,} training tokens, {data['tokenizer']}"
        )
        if data.get("floor_perplexity") is not None:
            floor = fmt.perplexity(data["floor_perplexity"])
            facts.append(f"the grammar itself has perplexity {floor} on these validation stories")
    return facts


def _without_folders(study: "optuna.Study", missing: list[int]) -> str:
    """Name the trials whose run directory is gone, and what works without it."""
    from sweep.storage.rdb import runs_folder

    folder = fmt.relative(runs_folder(study))
    return (
        f"no run directory in {folder} of {fmt.trials_line(missing)}: figures and export are from "
        f"the database; sample and a trial that is to go on need it"
    )


def _table(study: "optuna.Study", trials: "pd.DataFrame", width: int) -> "Table":
    """Make one row per trial, without origin and reason if there is no room for them."""
    from rich.table import Table

    from sweep.analysis.results import compared_parameter, search_space

    wide = width >= WIDE_TERMINAL
    names = [name for name in search_space(study) if name != compared_parameter(study)]
    curves = _curves(study) if wide else {}
    rows = [_row(trial, names, wide, curves) for _, trial in trials.iterrows()]
    words = ["arm", *(["origin"] if wide else []), "outcome"]
    numbers = ["step", *(["curve"] if curves else []), "perplexity"]
    numbers += [fmt.SHORT_NAMES.get(name, name) for name in names]
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), header_style="bold")
    for column, room in _widths(["trial", *words, *numbers], words, rows, width).items():
        table.add_column(
            column,
            width=None if wide else room,
            no_wrap=wide or column in words,  # numbers' headers may fold, numbers have room
            overflow="ellipsis" if column in words else "fold",
            justify="right" if column in numbers else "left",
        )
    if wide:
        table.add_column("reason")  # the only one that may wrap
    for row, outcome in zip(rows, trials["outcome"], strict=True):
        table.add_row(*row, style=STYLES.get(outcome, "yellow"))
    return table


def _widths(
    columns: list[str], words: list[str], rows: list[list[str]], width: int
) -> dict[str, int]:
    """Fit column widths to `width`: shorten text first, then fold headers, never numbers."""
    cells = {column: max(len(row[n]) for row in rows) for n, column in enumerate(columns)}
    full = {column: max(len(column), cells[column]) for column in columns}
    wanted = sum(full[word] for word in words)
    folded = {column: max(min(len(column), LETTERS), cells[column]) for column in columns}
    for widths in (full, folded):
        room = width - len(columns) - sum(widths[c] for c in columns if c not in words)
        if room >= LETTERS * len(words):
            break
    shared = {word: max(LETTERS, min(full[word], room * full[word] // wanted)) for word in words}
    return widths | shared


def _curves(study: "optuna.Study") -> dict[int, str]:
    """Draw the curve of each running trial, as `run` does."""
    from sweep.format import sparkline

    max_steps = (study_attrs(study).spec or {}).get("train", {}).get("max_steps")
    return {
        trial.number: sparkline(
            [value for _, value in sorted(trial.intermediate_values.items())],
            (trial.last_step or 0) / max_steps,
        )
        for trial in _running(study)
        if max_steps
    }


def _running(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]


def _run_dirs(study: "optuna.Study") -> "list[Path]":
    """List the run directories of the running trials; one that was just asked has none yet."""
    from gpt.errors import InputError
    from sweep.analysis.results import run_dir

    found = []
    for trial in _running(study):
        with suppress(InputError):
            found.append(run_dir(study, trial))
    return found


def _seconds_left(study: "optuna.Study") -> float | None:
    """Estimate the seconds left, from the trials that have ended and the processes that train here.

    None if no process trains, or no trial has ended: it would be a guess.
    """
    from sweep.backends.local import LocalProcess

    slots = len(LocalProcess.find(dict.fromkeys(_run_dirs(study), "gpt.train")))
    trials = study.get_trials(deepcopy=False)
    took = [trial.duration.total_seconds() for trial in trials if trial.duration is not None]
    if not slots or not took:
        return None
    total = study_attrs(study).n_trials or len(trials)
    left = total - len(took) - 0.5 * slots  # half done
    return max(0.0, left) * sum(took) / len(took) / slots


def _row(
    trial: "pd.Series[Any]", names: list[str], wide: bool, curves: dict[int, str]
) -> list[str]:
    import pandas as pd

    known = {key: None if pd.isna(value) else value for key, value in trial.items()}
    where = ["number", "arm", *(["origin"] if wide else []), "outcome", "last_step"]
    words = ["-" if known[key] is None else str(known[key]) for key in where]
    words += [curves.get(int(trial["number"]), "")] if curves else []
    params = ["-" if known[name] is None else fmt.number(known[name]) for name in names]
    reason = [known["reason"] or ""] if wide else []
    return [*words, fmt.perplexity(known["perplexity"]), *params, *reason]


WIDE_TERMINAL = 100  # columns
LETTERS = 5  # of a name at least: enough to distinguish arms and outcomes
STYLES = {"complete": "", "running": "cyan", "waiting": "cyan", "pruned": "dim"}
