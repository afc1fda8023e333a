"""A study in the terminal: its trials, counts, best per arm and notice. Reads only."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import terminal

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

    from sweep.summary import Summary


def status(study: "optuna.Study", width: int) -> "list[RenderableType]":
    """What `squen-sweep status` shows of a study, running or not, in `width` columns."""
    from rich.text import Text

    from sweep.results import UNFINISHED, best_by_arm, trials_table

    trials = trials_table(study)
    parts: list[RenderableType] = [Text(line, "bold") for line in _facts(study)]
    if notice := study.user_attrs.get("data", {}).get("notice"):
        parts.append(Text(f"NOTICE: {notice}", "bold yellow"))
    parts.append(_table(study, trials, width) if len(trials) else Text("no trials yet"))
    outcomes = trials["outcome"]
    total = study.user_attrs.get("n_trials", "?")
    counts = [f"{count} {outcome}" for outcome, count in outcomes.value_counts().items()]
    finished = int((~outcomes.isin(UNFINISHED)).sum())
    parts.append(Text(", ".join([f"{finished}/{total} trials finished", *counts])))
    if best := best_by_arm(study):
        parts.append(Text(f"best: {terminal.best_line(best)}", "green"))
    return parts


def closing_lines(
    summary: "Summary", folder: Path, storage: str, suffix: str, steps: int, report: Path | None
) -> list[str]:
    """How a sweep ended, where everything is, and the next three commands.

    Args:
        summary: Of a sweep that was not interrupted.
        folder: Its run directories.
        storage: As the user gave it.
        suffix: What the commands need to find that storage.
        steps: Of the final training that is suggested.
        report: The report that was written; None without a complete trial.
    """
    counted = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items())
    ended = f"{summary.study} is complete"
    if summary.already_complete:
        ended = f"{summary.study} is already complete"
    took = "" if summary.already_complete else f" in {terminal.duration(summary.seconds)}"
    return [
        f"{ended}: {summary.finished}/{summary.total} trials ({counted}){took}",
        f"best: {terminal.best_line(summary.best)}" if summary.best else "no trial is complete",
        f"runs: {folder}, storage: {storage}",
        f"report: {report}" if report else "report: not without a complete trial",
        "next:",
        f"  squen-sweep export --study {summary.study}{suffix} -o best.toml",
        f"  squen-sweep train best.toml --steps {steps}",
        f"  squen-sweep dashboard{suffix}",
    ]


def _facts(study: "optuna.Study") -> list[str]:
    """Study, data and, where it is known, the perplexity of what wrote the data, one line each."""
    data = study.user_attrs.get("data", {})
    facts = [f"study {study.study_name} on {study.user_attrs.get('device', 'no device yet')}"]
    if data:
        facts.append(
            f"data: {data['name']}, {data['train_tokens']:,} training tokens, {data['tokenizer']}"
        )
        if data.get("floor_perplexity") is not None:
            floor = terminal.perplexity(data["floor_perplexity"])
            facts.append(f"the grammar itself has perplexity {floor} on these validation stories")
    return facts


def _table(study: "optuna.Study", trials: "pd.DataFrame", width: int) -> "Table":
    """One row per trial; without its origin and reason where there is no room for them."""
    from rich.table import Table

    from sweep.results import compared_parameter, search_space

    wide = width >= WIDE
    names = [name for name in search_space(study) if name != compared_parameter(study)]
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), header_style="bold")
    for column in ("trial", "arm", *(["origin"] if wide else []), "outcome"):
        table.add_column(column, no_wrap=True)
    for column in ("step", "perplexity", *(terminal.SHORT_NAMES.get(n, n) for n in names)):
        table.add_column(column, no_wrap=True, justify="right")
    if wide:
        table.add_column("reason")  # the only one that may wrap
    for _, trial in trials.iterrows():
        style = STYLES.get(trial["outcome"], "yellow")
        table.add_row(*_row(trial, names, wide), style=style)
    return table


def _row(trial: "pd.Series[Any]", names: list[str], wide: bool) -> list[str]:
    import pandas as pd

    known = {key: None if pd.isna(value) else value for key, value in trial.items()}
    where = ["number", "arm", *(["origin"] if wide else []), "outcome", "last_step"]
    words = ["-" if known[key] is None else str(known[key]) for key in where]
    params = ["-" if known[name] is None else terminal.number(known[name]) for name in names]
    reason = [known["reason"] or ""] if wide else []
    return [*words, terminal.perplexity(known["perplexity"]), *params, *reason]


WIDE = 100  # columns
STYLES = {"complete": "", "running": "cyan", "waiting": "cyan", "pruned": "dim"}
