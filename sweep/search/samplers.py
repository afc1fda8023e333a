"""Which parameters the next trial has. Add a sampler by adding a kind here and to SamplerSpec.

Every arm gets the same number of trials: first the same baselines, then the same Sobol points,
then what a sampler makes of the arm's own trials. Everything follows from the stored trials, so a
resumed sweep goes on.
"""

import zlib
from collections import Counter
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from threadpoolctl import threadpool_limits

from sweep.search.arms import arm_trials, arm_view, gp_observations
from sweep.study.spec import StudySpec

# Of an arm, by a Gaussian process: a proposal takes 0.1 s from 100 trials and 1 s from 500. Beyond
# that TPE takes over, as in OptunaHub's AutoSampler.
MAX_GP_TRIALS = 100


def next_arm(study: optuna.Study, spec: StudySpec) -> str:
    """The arm that has had the fewest trials; among equals the first of the study file."""
    counts = Counter(trial.user_attrs.get("arm") for trial in study.get_trials(deepcopy=False))
    return min(spec.arms, key=lambda arm: counts[arm])


def next_params(study: optuna.Study, spec: StudySpec, arm: str) -> tuple[dict[str, Any], str]:
    """Parameters of the arm's next trial; their origin: baseline:<name>, sobol or sampler."""
    trials = arm_trials(study, arm)
    origins = [trial.user_attrs.get("origin") for trial in trials]
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
    """The parameters at a point of one Sobol sequence for all arms.

    Each drawn parameter of the study has its own dimension, also one that does not apply in this
    arm: so the arms have the same points in all that they share.
    """
    from scipy.stats import qmc  # slow to import

    names = spec.drawn
    if not names:  # only compare's parameter is searched
        return spec.point(arm, lambda name, parameter: None)
    engine = qmc.Sobol(len(names), scramble=True, rng=spec.sampler.seed)
    if index:
        engine.fast_forward(index)
    place = dict(zip(names, engine.random(1)[0].tolist(), strict=True))  # each in [0, 1)
    return spec.point(arm, lambda name, parameter: parameter.at(place[name]))


def _sampler(spec: StudySpec, arm: str, asked: int) -> BaseSampler:
    """A sampler for one proposal.

    The same seed after a resume would propose the same parameters again (5 of 10 trials differed),
    so the number of the arm's trials enters.
    """
    entropy = [spec.sampler.seed, zlib.crc32(arm.encode()), asked]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    if spec.sampler.kind == "random":
        return RandomSampler(seed=seed)
    startup = spec.sampler.startup_trials
    # Of few trials it makes more than TPE (tests/benchmarks/samplers.json).
    if spec.sampler.kind == "gp" and asked < MAX_GP_TRIALS:
        return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    # Multivariate, and running trials count as bad ones ("constant liar"): Optuna 5's defaults.
    return TPESampler(seed=seed, n_startup_trials=startup)
