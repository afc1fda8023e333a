"""The sweep that a user would write with Optuna and nanoGPT's model; other_tools.py measures it.

    python -m tests.benchmarks.plain_sweep NANOGPT FOLDER TRIALS FINGERPRINT SEED

One process, all cores, Optuna's own sampler and pruner. Prints the time, perplexity and loss of
each evaluation. FOLDER gets the database.
"""

import sys
import time
from pathlib import Path

import optuna
import torch

from tests.benchmarks.nanogpt_trial import (
    DROPOUT,
    EVAL_INTERVAL,
    LEARNING_RATE,
    LOSS,
    N_LAYER,
    Trial,
)

NANOGPT, FOLDER, TRIALS, FINGERPRINT, SEED = sys.argv[1:]


def objective(trial: optuna.Trial) -> float:
    """Train one GPT; its last perplexity."""
    params = {
        "learning_rate": trial.suggest_float("learning_rate", *LEARNING_RATE, log=True),
        "dropout": trial.suggest_float("dropout", *DROPOUT),
        "n_layer": trial.suggest_int("n_layer", *N_LAYER),
        "loss": trial.suggest_categorical("loss", LOSS),
    }
    for i, value in enumerate(Trial(NANOGPT, FINGERPRINT, params).evaluations(), start=1):
        print(time.time(), value, params["loss"], flush=True)
        trial.report(value, i * EVAL_INTERVAL)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


if __name__ == "__main__":
    torch.manual_seed(int(SEED))
    study = optuna.create_study(
        storage=f"sqlite:///{Path(FOLDER) / 'plain.db'}",
        sampler=optuna.samplers.TPESampler(seed=int(SEED)),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(objective, n_trials=int(TRIALS))
