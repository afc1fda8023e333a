"""Tables of trials in a report, as text and sort keys."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sweep.analysis.results import METRICS
from sweep.analysis.study_reader import DASH, StudyReader, rows_of, shown
from sweep.format import duration, perplexity

BEST_PER_ARM = 5  # rows of the table of best configurations


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and the number by which it sorts (None: by its text)."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class TrialTable:
    """Columns and rows of cells, one row per trial."""

    columns: list[str]
    numeric: list[bool]
    rows: list[list[Cell]]
    arms: list[str]  # of each row
    best: list[bool]  # True for the best trial of its arm


_COLUMNS = {  # column of `trials` -> heading
    "number": "trial",
    "arm": "arm",
    "outcome": "outcome",
    "origin": "origin",
    **{name: name.replace("_", " ") for name in METRICS},
    "n_params": "weights",
    "last_step": "last step",
    "elapsed_seconds": "training time",
    "reason": "reason",
}
_FORMATS = {
    **dict.fromkeys(METRICS, lambda value: f"{value:.4g}"),
    "perplexity": perplexity,
    "bits_per_byte": lambda value: f"{value:.3f}",
    "n_params": lambda value: f"{value:,}",
    "elapsed_seconds": duration,
}


def best_table(reader: StudyReader) -> TrialTable:
    """List the best few complete trials of each arm."""
    rows = reader.complete.groupby("arm").head(BEST_PER_ARM)
    before = ["number", "arm", "perplexity", "bits_per_byte"]
    return _table(reader, rows, [*before, *reader.parameters, "n_params", "origin"])


def metrics_table(reader: StudyReader) -> TrialTable:
    """List the best complete trial of each arm by every metric that was measured."""
    best = reader.complete.drop_duplicates("arm")
    measured = [name for name in METRICS if name in best and best[name].notna().any()]
    return _table(reader, best, ["number", "arm", *measured])


def all_table(reader: StudyReader) -> TrialTable:
    """List every trial, by number."""
    before = ["number", "arm", "perplexity", "outcome"]
    after = ["last_step", "elapsed_seconds", "origin", "reason"]
    return _table(reader, reader.trials, [*before, *reader.parameters, *after])


def _table(reader: StudyReader, rows: pd.DataFrame, names: list[str]) -> TrialTable:
    best = set(reader.complete.drop_duplicates("arm")["number"])
    return TrialTable(
        columns=[_COLUMNS.get(name, name) for name in names],
        numeric=[pd.api.types.is_numeric_dtype(rows[name]) for name in names],
        rows=[[_cell(name, row[name]) for name in names] for row in rows_of(rows)],
        arms=[str(arm) for arm in rows["arm"]],
        best=[trial in best for trial in rows["number"]],
    )


def _cell(name: str, value: Any) -> Cell:
    if pd.isna(value):
        return Cell(DASH)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = _FORMATS[name](value) if name in _FORMATS else shown(value)
    return Cell(text, float(value) if is_number else None)
