"""Tables of trials in a report, as text and sort keys."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from sweep.analysis.machine import machine_table
from sweep.analysis.results import METRICS
from sweep.analysis.study_reader import DASH, StudyReader, rows_of, shown
from sweep.study.format import column_format, duration, perplexity
from sweep.study.metric import Metric

BEST_PER_ARM = 5  # rows of the table of best configurations


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and the number by which it sorts (None: by its text)."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class TrialTable:
    """Columns and rows of cells, one row per trial."""

    names: list[str]  # of columns, as a program names them
    columns: list[str]  # their headings
    numeric: list[bool]
    hidden: list[bool]  # until the reader asks for the column
    rows: list[list[Cell]]
    numbers: list[int]  # of the trial of each row
    arms: list[str]
    best: list[bool]  # True for the best trial of its arm


_COLUMNS = {  # column of `trials` -> heading
    "number": "trial",
    **{name: name.replace("_", " ") for name in METRICS},
    "n_params": "weights",
    "last_step": "last step",
    "elapsed_seconds": "training time",
    "tokens_per_second": "tokens/s",
    "peak_memory_bytes": "peak memory",
    "training_share": "time training",
}
_FORMATS: dict[str, Callable[[Any], str]] = {
    **{name: perplexity for name in METRICS[1:] if name.endswith("perplexity")},
    "bits_per_byte": lambda value: f"{value:.3f}",
    "n_params": lambda value: f"{value:,}",
    "tokens": lambda value: f"{value:,.0f}",
    "elapsed_seconds": duration,
    "tokens_per_second": lambda value: f"{value:,.0f}",
    "peak_memory_bytes": lambda value: f"{value / 2**20:,.0f} MiB",
    "training_share": lambda value: f"{value:.0%}",
}


def best_table(reader: StudyReader) -> TrialTable:
    """List the best few complete trials of each arm."""
    rows = reader.complete.groupby("arm").head(BEST_PER_ARM)
    if reader.is_program:
        return _table(reader, rows, ["number", "arm", "perplexity", *reader.parameters, "origin"])
    before = ["number", "arm", "perplexity", "bits_per_byte"]
    return _table(reader, rows, [*before, *reader.parameters, "n_params", "origin"])


def metrics_table(reader: StudyReader) -> TrialTable:
    """List the best complete trial of each arm by every metric that was measured."""
    best = reader.complete.drop_duplicates("arm")
    return _table(reader, best, ["number", "arm", *_measured(best)])


def all_table(reader: StudyReader) -> TrialTable:
    """List the trials that are shown, by number, with all that is known of them.

    The page shows a part of the columns at first.
    """
    machine = machine_table(reader.study, reader.evaluations).set_index("number")
    of_machine = ["slot", "tokens_per_second", "peak_memory_bytes", "training_share"]
    machine["training_share"] = machine["training"] / (machine["end"] - machine["start"])
    trials = shown(reader).trials.join(machine[of_machine].replace(math.inf, math.nan), on="number")
    trials["story"] = pd.Series(DASH, index=trials.index, dtype="string")
    names = ["number", "arm", "perplexity", "outcome", *reader.parameters]
    names += ["last_step", "elapsed_seconds", "origin"]
    names += ["reason"] if reader.is_program else ["story", "reason"]
    ranked = ("perplexity", metric_column(reader.metric))
    more = [name for name in _measured(trials) if name not in ranked]
    more += [name for name in ("n_params", "tokens", *of_machine) if trials[name].notna().any()]
    return _table(reader, trials, [*names, *more], hidden=more)


def _measured(trials: pd.DataFrame) -> list[str]:
    return [name for name in METRICS if name in trials and trials[name].notna().any()]


def _table(
    reader: StudyReader, rows: pd.DataFrame, names: list[str], hidden: list[str] | None = None
) -> TrialTable:
    metric = reader.metric
    best = set(reader.complete.drop_duplicates("arm")["number"])
    write = {name: column_format(rows[name]) for name in names} | reader.formats | _FORMATS
    write |= {"perplexity": metric.shown} if metric.is_perplexity else {}
    cells = {name: partial(_cell, write[name]) for name in names}
    return TrialTable(
        names=[metric_column(metric) if name == "perplexity" else name for name in names],
        columns=[(_COLUMNS | {"perplexity": metric.name}).get(name, name) for name in names],
        numeric=[pd.api.types.is_numeric_dtype(rows[name]) for name in names],
        hidden=[name in (hidden or ()) for name in names],
        rows=[[cells[name](row[name]) for name in names] for row in rows_of(rows)],
        numbers=[int(number) for number in rows["number"]],
        arms=[str(arm) for arm in rows["arm"]],
        best=[trial in best for trial in rows["number"]],
    )


def metric_column(metric: Metric) -> str:
    """Return the name of the ranked column, as a program names it."""
    return metric.name.replace(" ", "_")


def _cell(write: Callable[[Any], str], value: Any) -> Cell:
    if pd.isna(value):
        return Cell(DASH)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(write(value), float(value) if is_number else None)
