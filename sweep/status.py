"""A study in the terminal: its trials, counts, best per arm and notice. Reads only."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import terminal

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

    from sweep.driver import Summary


def status(study: "optuna.Study") -> "list[RenderableType]":
    """What `squen-sweep status` shows of a study, running or not."""
    from rich.text import Text

    from sweep.results import UNFINISHED, best_by_arm, trials_table

    trials = trials_table(study)
    parts: list[RenderableType] = [Text(line, "bold") for line in _facts(study)]
    if notice := study.user_attrs.get("data", {}).get("notice"):
        parts.append(Text(f"NOTICE: {notice}", "bold yellow"))
    parts.append(_table(study, trials) if len(trials) else Text("no trials yet"))
    outcomes = trials["outcome"]
    total = study.user_attrs.get("n_trials", "?")
    counts = [f"{count} {outcome}" for outcome, count in outcomes.value_counts().items()]
    finished = int((~outcomes.isin(UNFINISHED)).sum())
    parts.append(Text(", ".join([f"{finished}/{total} trials finished", *counts])))
    if best := best_by_arm(study):
        parts.append(Text(f"best: {terminal.best_line(best)}", "green"))
    return parts


def closing_lines(
    summary: "Summary", folder: Path, storage: str, suffix: str, steps: int
) -> list[str]:
    """How a sweep ended, where everything is, and the next three commands.

    Args:
        summary: Of a sweep that was not interrupted.
        folder: Its run directories.
        storage: As the user gave it.
        suffix: What the commands need to find that storage.
        steps: Of the final training that is suggested.
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
        "next:",
        f"  squen-sweep report --study {summary.study}{suffix}",
        f"  squen-sweep export --study {summary.study}{suffix} -o best.toml",
        f"  squen-sweep train best.toml --steps {steps}",
    ]


def _facts(study: "optuna.Study") -> list[str]:
    """Study, data and the lowest perplexity that the data allow, one line each."""
    data = study.user_attrs.get("data", {})
    facts = [f"study {study.study_name} on {study.user_attrs.get('device', 'no device yet')}"]
    if data:
        facts.append(
            f"data: {data['name']}, {data['train_tokens']:,} training tokens, {data['tokenizer']}"
        )
        if data.get("floor_perplexity") is not None:
            floor = terminal.perplexity(data["floor_perplexity"])
            facts.append(f"no model can be below perplexity {floor} on these validation stories")
    return facts


def _table(study: "optuna.Study", trials: "pd.DataFrame") -> "Table":
    """One row per trial: number, arm, origin, outcome, step, perplexity, parameters, reason."""
    from rich.table import Table

    from sweep.results import compared_parameter, search_space

    names = [name for name in search_space(study) if name != compared_parameter(study)]
    table = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    for column in ("trial", "arm", "origin", "outcome"):
        table.add_column(column, no_wrap=True)
    for column in ("step", "perplexity", *(terminal.SHORT_NAMES.get(n, n) for n in names)):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("reason")  # the only one that may wrap in a narrow terminal
    for _, trial in trials.iterrows():
        table.add_row(*_row(trial, names), style=STYLES.get(trial["outcome"], "yellow"))
    return table


def _row(trial: "pd.Series[Any]", names: list[str]) -> list[str]:
    import pandas as pd

    known = {key: None if pd.isna(value) else value for key, value in trial.items()}
    words = [str(known[key] or "-") for key in ("number", "arm", "origin", "outcome", "last_step")]
    params = [terminal.number(known[name]) if known[name] is not None else "-" for name in names]
    words[0] = str(known["number"])
    return [*words, terminal.perplexity(known["perplexity"]), *params, known["reason"] or ""]


STYLES = {"complete": "", "running": "cyan", "waiting": "cyan", "pruned": "dim"}
