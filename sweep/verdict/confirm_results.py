"""What the phases measured, as tables. Reads only.

Shapes: S seeds, M stories.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from gpt.errors import InputError
from sweep.analysis import results
from sweep.analysis.results import SCREENING
from sweep.verdict.confirm_plan import seeds_of
from sweep.verdict.request import Question
from sweep.verdict.statistics import Floats

STORIES = "stories.json"  # in a run directory: nats and tokens of each validation story


def phase_runs(question: Question, storage: RDBStorage, phase: str) -> pd.DataFrame:
    """The finished runs of a phase, as results.confirm_runs_table has them.

    A run that diverged or ran out of memory counts as guessing uniformly, with a cross-entropy of
    ln V; its other figures are missing.
    """
    table = results.confirm_runs_table(storage, question.study)
    table = table[table["phase"] == phase].reset_index(drop=True)
    worst = math.log(question.study.user_attrs["data"]["vocab_size"])
    table.loc[table["outcome"] != "complete", "cross_entropy"] = worst
    return table


def chosen_trials(question: Question, storage: RDBStorage) -> dict[str, FrozenTrial]:
    """The trial of the sweep whose configuration stands for each arm.

    That of the lowest mean cross-entropy over the screening seeds. A single candidate is not
    screened.

    Raises:
        InputError: a run of the screening is missing.
    """
    runs = phase_runs(question, storage, SCREENING)
    seeds = seeds_of(question.spec, SCREENING, question.spec.verdict.screening_seeds)
    return {arm: _chosen(question.top_trials(arm), runs, seeds) for arm in question.arms}


def _chosen(trials: list[FrozenTrial], runs: pd.DataFrame, seeds: list[int]) -> FrozenTrial:
    if len(trials) == 1:
        return trials[0]
    means = [np.mean(by_seed(runs, trial.number, seeds, "cross_entropy")) for trial in trials]
    return trials[int(np.argmin(means))]


def by_seed(runs: pd.DataFrame, of_trial: int, seeds: Sequence[int], column: str) -> list[float]:
    """One configuration's figures, in the order of the seeds.

    Raises:
        InputError: a run is missing.
    """
    rows = _rows_of(runs, of_trial, seeds)
    return [float(value) for value in rows[column]]


def _rows_of(runs: pd.DataFrame, of_trial: int, seeds: Sequence[int]) -> pd.DataFrame:
    rows = runs[runs["of_trial"] == of_trial].drop_duplicates("seed").set_index("seed")
    missing = [seed for seed in seeds if seed not in rows.index]
    if missing:
        raise InputError(
            f"every run must be finished before a verdict, but the configuration of trial "
            f"{of_trial} has none with seed {missing[0]}; run the same command again."
        )
    return rows.loc[list(seeds)]


def story_nats(
    runs: pd.DataFrame, of_trial: int, seeds: Sequence[int]
) -> tuple[Floats, Floats] | None:
    """Summed nats (S, M) and targets (M,) of each held-back story; None where a run has none.

    A run has none if it diverged, or if its directory is gone.
    """
    tables = [_stories(Path(folder)) for folder in _rows_of(runs, of_trial, seeds)["run_dir"]]
    known = [table for table in tables if table is not None]
    if len(known) < len(tables) or len({len(nats) for nats, _ in known}) > 1:
        return None
    return np.stack([nats for nats, _ in known]), known[0][1]


def _stories(run_dir: Path) -> tuple[Floats, Floats] | None:
    try:
        table = json.loads((run_dir / STORIES).read_text(encoding="ascii"))
        return np.asarray(table["nats"], np.float64), np.asarray(table["tokens"], np.float64)
    except (OSError, ValueError, KeyError):
        return None
