"""Selection bias: the search's best figure against the same settings on fresh seeds."""

import math

import numpy as np
import pandas as pd
from optuna.storages import RDBStorage

from gpt.errors import InputError
from sweep.analysis.phases import SCREENING
from sweep.verdict.confirm_plan import seeds_of
from sweep.verdict.confirm_results import NATS, by_seed, phase_runs
from sweep.verdict.request import VerdictRequest


def curse_table(request: VerdictRequest, storage: RDBStorage) -> pd.DataFrame:
    """Compare the search's best trial of each arm with its own settings on fresh seeds.

    Both by the study's metric and on the sweep's own validation stories, so that the seed is all
    that differs.

    Returns:
        arm, trial, searched (in the sweep), confirmed (geometric mean over the screening seeds),
        ratio (confirmed to searched: above 1, the search flattered itself), seeds; without arms
        that were not screened.
    """
    runs = phase_runs(request, storage, SCREENING)
    seeds = seeds_of(request.spec, SCREENING, request.spec.verdict.screening_seeds)
    rows = []
    for arm in request.arms:
        best = request.top_trials(arm)[0]
        try:
            nats = by_seed(runs, best.number, seeds, NATS)
        except InputError:  # a single candidate is not screened
            continue
        searched, confirmed = best.values[0], math.exp(float(np.mean(nats)))
        rows.append((arm, best.number, searched, confirmed, confirmed / searched, len(seeds)))
    columns = ["arm", "trial", "searched", "confirmed", "ratio", "seeds"]
    return pd.DataFrame(rows, columns=columns)
