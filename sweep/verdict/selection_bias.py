"""How much a search's best flatters itself: the same settings on fresh seeds. Reads only."""

import math

import numpy as np
import pandas as pd
from optuna.storages import RDBStorage

from gpt.errors import InputError
from sweep.analysis.results import SCREENING
from sweep.verdict.confirm_plan import seeds_of
from sweep.verdict.confirm_results import by_seed, phase_runs
from sweep.verdict.request import Question


def curse_table(question: Question, storage: RDBStorage) -> pd.DataFrame:
    """The search's best trial of each arm against its own settings on fresh seeds.

    Both on the sweep's own validation stories, so that the seed is all that differs.

    Returns:
        arm, trial, searched (perplexity in the sweep), confirmed (geometric mean over the screening
        seeds), ratio (confirmed to searched: above 1, the search flattered itself), seeds; without
        arms that were not screened.
    """
    runs = phase_runs(question, storage, SCREENING)
    seeds = seeds_of(question.spec, SCREENING, question.spec.verdict.screening_seeds)
    rows = []
    for arm in question.arms:
        best = question.top_trials(arm)[0]
        try:
            nats = by_seed(runs, best.number, seeds, "cross_entropy")
        except InputError:  # a single candidate is not screened
            continue
        searched, confirmed = best.values[0], math.exp(float(np.mean(nats)))
        rows.append((arm, best.number, searched, confirmed, confirmed / searched, len(seeds)))
    columns = ["arm", "trial", "searched", "confirmed", "ratio", "seeds"]
    return pd.DataFrame(rows, columns=columns)
