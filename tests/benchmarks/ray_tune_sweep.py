"""The sweep that a user would write with Ray Tune and nanoGPT's model; other_tools.py measures it.

    python -m tests.benchmarks.ray_tune_sweep NANOGPT FOLDER TRIALS FINGERPRINT SEED

OptunaSearch (TPE) and ASHA, each as it comes, one trial per core. Ray gives a process that has one
CPU one thread. Prints the time, perplexity and loss of each evaluation. FOLDER gets the results.
"""

import sys
import time
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from tests.benchmarks.nanogpt_trial import (
    DROPOUT,
    EVAL_INTERVAL,
    LEARNING_RATE,
    LOSS,
    N_LAYER,
    STEPS,
    Trial,
)

CORES = 2


def train(config: dict[str, Any]) -> None:
    """Train one GPT, in a process of Ray's."""
    torch.manual_seed(config["seed"])
    trial = Trial(config["nanogpt"], config["fingerprint"], config)
    for value in trial.evaluations():
        tune.report({"perplexity": value, "at": time.time()})


def main() -> None:
    """Search, then print what all trials reported."""
    nanogpt, folder, trials, fingerprint, seed = sys.argv[1:]
    ray.init(num_cpus=CORES, include_dashboard=False)
    tuner = tune.Tuner(
        train,
        param_space={
            "learning_rate": tune.loguniform(*LEARNING_RATE),
            "dropout": tune.uniform(*DROPOUT),
            "n_layer": tune.randint(N_LAYER[0], N_LAYER[1] + 1),
            "loss": tune.choice(LOSS),
            "nanogpt": nanogpt,
            "fingerprint": fingerprint,
            "seed": int(seed),
        },
        tune_config=tune.TuneConfig(
            metric="perplexity",
            mode="min",
            num_samples=int(trials),
            max_concurrent_trials=CORES,
            search_alg=OptunaSearch(seed=int(seed)),
            scheduler=ASHAScheduler(max_t=STEPS // EVAL_INTERVAL),
            reuse_actors=True,  # starting a process takes longer than an evaluation
        ),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    for result in tuner.fit():
        for row in result.metrics_dataframe.itertuples():
            print(row.at, row.perplexity, result.config["loss"])


if __name__ == "__main__":
    main()
