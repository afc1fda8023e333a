"""Parameters of the next trial. Add a sampler by adding a kind here and to SamplerSpec.

Every arm gets the same number of trials: first the same baselines, then the same Sobol points,
then what a sampler proposes from the arm's own trials. All of it is derived from the stored trials,
so a resumed sweep continues where it was.
"""

import zlib
from collections import Counter
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from threadpoolctl import threadpool_limits

from sweep.search.arms import arm_trials, arm_view, gp_observations
from sweep.storage.schema import trial_attrs
from sweep.study.spec import StudySpec

# Trials of an arm up to which a Gaussian process proposes, in 0.1 s from 100 trials and 1 s from
# 500. After them TPE takes over, as in OptunaHub's AutoSampler.
MAX_GP_TRIALS = 100


def next_arm(study: optuna.Study, spec: StudySpec) -> str:
    """Return the arm with the fewest trials; among equals the first of the study file."""
    counts = Counter(trial_attrs(trial).arm for trial in study.get_trials(deepcopy=False))
    return min(spec.arms, key=lambda arm: counts[arm])


def next_params(study: optuna.Study, spec: StudySpec, arm: str) -> tuple[dict[str, Any], str]:
    """Return the arm's next parameters and their origin: baseline:<name>, sobol or sampler."""
    trials = arm_trials(study, arm)
    origins = [trial_attrs(trial).origin for trial in trials]
    for baseline in spec.baselines:
        if f"baseline:{baseline.name}" not in origins:
            return spec.baseline_params(baseline, arm), f"baseline:{baseline.name}"
    drawn = origins.count("sobol")
    if spec.sampler.kind == "qmc" or drawn < spec.sampler.startup_trials:
        return sobol_params(spec, arm, drawn), "sobol"
    sampler = _sampler(spec, arm, len(trials))
    known = gp_observations(trials) if isinstance(sampler, GPSampler) else trials
    with threadpool_limits(1):  # the other cores train: waiting for them takes 5 times as long
        return spec.suggest(arm_view(known, spec.compare, sampler).ask(), arm), "sampler"


def sobol_params(spec: StudySpec, arm: str, index: int) -> dict[str, Any]:
    """Return the parameters at a point of one Sobol sequence that all arms share.

    Each drawn parameter of the study has a dimension of its own, also one that does not apply in
    this arm, so that arms get the same values of all parameters that they share.
    """
    from scipy.stats import qmc  # slow to import

    names = spec.drawn
    if not names:  # only compare's parameter is searched
        return spec.point(arm, lambda name, parameter: None)
    engine = qmc.Sobol(len(names), scramble=True, rng=spec.sampler.seed)
    if index:
        engine.fast_forward(index)
    position = dict(zip(names, engine.random(1)[0].tolist(), strict=True))  # each in [0, 1)
    return spec.point(arm, lambda name, parameter: parameter.at(position[name]))


def _sampler(spec: StudySpec, arm: str, asked: int) -> BaseSampler:
    """Return a sampler for one proposal.

    A fixed seed would propose the same parameters again after a resume (5 of 10 trials differed),
    so the seed is derived from the number of the arm's trials too.
    """
    entropy = [spec.sampler.seed, zlib.crc32(arm.encode()), asked]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    if spec.sampler.kind == "random":
        return RandomSampler(seed=seed)
    startup = spec.sampler.startup_trials
    # From few trials it learns more than TPE (tests/benchmarks/samplers.json).
    if spec.sampler.kind == "gp" and asked < MAX_GP_TRIALS:
        return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    # Multivariate, and running trials count as bad ones ("constant liar"): Optuna 5's defaults.
    return TPESampler(seed=seed, n_startup_trials=startup)
