"""Results of the phases, as tables.

Shapes: S seeds, M stories.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from gpt.errors import InputError
from gpt.events import STORIES_FILE
from sweep.analysis import phases, results
from sweep.analysis.phases import CONFIRM, SCREENING
from sweep.storage.schema import study_attrs
from sweep.study.format import relative
from sweep.verdict.confirm_plan import seeds_of
from sweep.verdict.request import VerdictRequest, require_ratio
from sweep.verdict.statistics import Floats

NATS = "nats"  # column of phase_runs: the logarithm of the study's metric


def phase_runs(request: VerdictRequest, storage: RDBStorage, phase: str) -> pd.DataFrame:
    """Return the arms' finished runs of a phase: phases.confirm_runs_table and the column `nats`.

    nats is the logarithm of the study's metric, by which settings are chosen and judged. A run that
    diverged, ran out of memory or took too long counts as guessing uniformly, with ln V nats; of a
    program, as the worst that any of the sweep's trials was measured at. Its other figures are
    missing. Arms that are not compared have no rows.

    Raises:
        InputError: a metric is not above 0, so that two of its values have no ratio.
    """
    table = phases.confirm_runs_table(storage, request.study, [phase])
    table = table[table["arm"].isin(request.arms)]
    complete = table["outcome"] == "complete"
    figures = table[request.spec.metric]
    require_ratio(request.study, figures[complete])
    softmax = request.spec.metric == "perplexity" and request.spec.trainer is None
    nats = table["cross_entropy"] if softmax else np.log(figures)
    return table.assign(nats=nats.where(complete, math.log(_worst(request, storage))))


def _worst(request: VerdictRequest, storage: RDBStorage) -> float:
    """Return what a lost run counts as: guessing uniformly, or the worst that was measured."""
    if request.spec.trainer is None:
        return float((study_attrs(request.study).data or {})["vocab_size"])
    measured = results.evaluations_table(storage, request.study.study_name)["perplexity"]
    found = [float(value) for value in measured if 0 < value < math.inf]
    return max(found, key=results.metric_of_study(request.study).rank, default=1.0)


def chosen_trials(request: VerdictRequest, storage: RDBStorage) -> dict[str, FrozenTrial]:
    """Return the trial of the sweep whose settings stand for each arm.

    That of the lowest mean nats over the screening seeds; of a metric that is maximised, the
    highest. A single candidate is not screened.

    Raises:
        InputError: a run of the screening is missing.
    """
    runs = phase_runs(request, storage, SCREENING)
    seeds = seeds_of(request.spec, SCREENING, request.spec.verdict.screening_seeds)
    rank = results.metric_of_study(request.study).rank
    return {arm: _chosen(request.top_trials(arm), runs, seeds, rank) for arm in request.arms}


def _chosen(
    trials: list[FrozenTrial],
    runs: pd.DataFrame,
    seeds: list[int],
    rank: Callable[[float], float],
) -> FrozenTrial:
    if len(trials) == 1:
        return trials[0]
    means = [np.mean(by_seed(runs, trial.number, seeds, NATS)) for trial in trials]
    return trials[int(np.argmin([rank(float(mean)) for mean in means]))]


def by_seed(runs: pd.DataFrame, of_trial: int, seeds: Sequence[int], column: str) -> list[float]:
    """Return one configuration's figures, in the order of the seeds.

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
    """Return summed nats (S, M) under softmax and targets (M,) of each held-back story.

    None where a run left no stories: it diverged, or its directory is gone.
    """
    tables = [_stories(Path(folder)) for folder in _rows_of(runs, of_trial, seeds)["run_dir"]]
    known = [table for table in tables if table is not None]
    if len(known) < len(tables) or len({len(nats) for nats, _ in known}) > 1:
        return None
    return np.stack([nats for nats, _ in known]), known[0][1]


def without_stories(runs: pd.DataFrame) -> list[str]:
    """List the run directories of complete confirm runs whose stories are gone.

    Args:
        runs: phases.confirm_runs_table.
    """
    complete = runs[(runs["phase"] == CONFIRM) & (runs["outcome"] == "complete")]
    return [relative(Path(at)) for at in complete["run_dir"] if _stories(Path(at)) is None]


def _stories(run_dir: Path) -> tuple[Floats, Floats] | None:
    try:
        table = json.loads((run_dir / STORIES_FILE).read_text(encoding="ascii"))
        return np.asarray(table["nats"], np.float64), np.asarray(table["tokens"], np.float64)
    except (OSError, ValueError, KeyError):
        return None
