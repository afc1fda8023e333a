"""Which sampler comes closest to the best settings in the 20 trials of an arm?

    python -m tests.benchmarks.samplers DATABASE...

DATABASE holds a stored study `tinystories`. A regression over its complete trials gives, for each
loss, the perplexity at any setting. Sweeps of 40 trials are searched on that, with the noise of a
seed, for each sampler and number of Sobol points: one trial at a time, none pruned. The regression
is smooth, which flatters a sampler that assumes it: what a real sweep finds is in the README.
"""

import math
import sys
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from sweep.search.samplers import next_arm, next_proposal
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

PLANS = (("tpe", 8), ("tpe", 4), ("gp", 8), ("gp", 6), ("gp", 4))  # sampler, Sobol points
SWEEPS, TRIALS = 30, 40
NOISE = 0.015  # of log perplexity, from seed to seed of a good setting
NAMES = ("learning_rate", "dropout", "n_layer")


def place(spec: StudySpec, params: dict[str, Any]) -> list[float]:
    """A setting in the unit cube; learning rates on a logarithmic scale."""
    found = []
    for name in NAMES:
        space = spec.search[name]
        low, high, at = space.low, space.high, params[name]
        if space.log:
            low, high, at = (math.log(x) for x in (low, high, at))
        found.append((at - low) / (high - low))
    return found


def surfaces(spec: StudySpec, databases: list[str]) -> dict[str, GaussianProcessRegressor]:
    """For each arm the log perplexity over the unit cube."""
    found: dict[str, tuple[list[list[float]], list[float]]] = {arm: ([], []) for arm in spec.arms}
    for database in databases:
        study = optuna.load_study(study_name=spec.name, storage=f"sqlite:///{database}")
        for trial in study.get_trials(states=(TrialState.COMPLETE,)):
            places, values = found[trial.user_attrs["arm"]]
            places.append(place(spec, trial.params))
            values.append(math.log(trial.value))
    kernel = ConstantKernel() * RBF([0.3, 1.0, 1.0], (0.05, 20.0)) + WhiteKernel(1e-3)
    return {
        arm: GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=3).fit(*data)
        for arm, data in found.items()
    }


def sweep(spec: StudySpec, surface: dict[str, Any], seed: int) -> dict[str, list[float]]:
    """The best perplexity of each arm after each of its trials, without the noise."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study()
    values: dict[str, list[tuple[float, float]]] = {arm: [] for arm in spec.arms}
    for _ in range(TRIALS):
        arm = next_arm(study, spec)
        proposal = next_proposal(study, spec, arm)
        params, origin = proposal.params, proposal.origin
        true = float(surface[arm].predict(np.array([place(spec, params)]))[0])
        seen = true + NOISE * float(rng.standard_normal())
        values[arm].append((seen, true))
        study.add_trial(
            create_trial(
                value=math.exp(seen),
                params=params,
                distributions=spec.distributions(params),
                user_attrs={"arm": arm, "origin": origin},
            )
        )
    return {
        arm: [math.exp(min(pairs[:n])[1]) for n in range(1, len(pairs) + 1)]
        for arm, pairs in values.items()
    }


def measure(spec: StudySpec, surface: dict[str, Any], kind: str, startup: int) -> dict[str, Any]:
    """Of one plan: the perplexity of what each arm's search chose, after 10, 15 and 20 trials."""
    chosen: dict[str, list[list[float]]] = {arm: [] for arm in spec.arms}
    for seed in range(SWEEPS):
        keys = {"kind": kind, "startup_trials": startup, "seed": seed}
        plan = spec.model_copy(update={"sampler": spec.sampler.model_copy(update=keys)})
        for arm, best in sweep(plan, surface, seed).items():
            chosen[arm].append([best[n - 1] for n in (10, 15, 20)])
    return {
        arm: {
            str(n): [round(float(q), 3) for q in np.quantile(column, (0.5, 0.1, 0.9))]
            for n, column in zip((10, 15, 20), np.array(rows).T, strict=True)
        }
        for arm, rows in chosen.items()
    }


def main() -> None:
    """Measure and write the results."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec = read_study_file("tinystories", "cpu")
    surface = surfaces(spec, sys.argv[1:])
    figures: dict[str, Any] = {"sweeps": SWEEPS, "noise_of_log_perplexity": NOISE}
    figures["median_and_0.1_and_0.9_quantile_of_perplexity_after_trials_of_an_arm"] = plans = {}
    for kind, startup in PLANS:
        plans[f"{kind}, {startup} Sobol points"] = measure(spec, surface, kind, startup)
        print(kind, startup, plans[f"{kind}, {startup} Sobol points"], flush=True)
    measuring.write("samplers", figures, "DATABASE...")


if __name__ == "__main__":
    main()
