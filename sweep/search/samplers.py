"""Parameters of the next trial; Optuna's samplers are named in sweep.study.external.

Every arm gets the same number of trials: first the same baselines, then the same Sobol points,
then what a sampler proposes from the arm's own trials. Those that train count: it stays away from
them. All of it is derived from the stored trials, so a resumed sweep continues where it was.
"""

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler
from threadpoolctl import threadpool_limits

from sweep.search.arms import arm_trials, arm_view, gp_observations
from sweep.storage.schema import trial_attr, trial_attrs
from sweep.study.external.optuna_kinds import make_sampler
from sweep.study.metric import metric_of
from sweep.study.spec import StudySpec

# Trials of an arm up to which a Gaussian process proposes, in 0.1 s from 100 trials and 1 s from
# 500. After them TPE takes over, as in OptunaHub's AutoSampler.
MAX_GP_TRIALS = 100


def next_arm(study: optuna.Study, spec: StudySpec) -> str:
    """Return the arm with the fewest trials; among equals the first of the study file."""
    counts = Counter(trial_attr(trial, "arm") for trial in study.get_trials(deepcopy=False))
    return min(spec.arms, key=lambda arm: counts[arm])


def equal_budget(study: optuna.Study, spec: StudySpec) -> int:
    """Return the least total of trials at which every arm has as many as the largest will have.

    Baselines that were added since count: they run first.
    """
    trials = study.get_trials(deepcopy=False)
    begun = {(trial_attrs(trial).arm, trial_attrs(trial).origin) for trial in trials}
    counts = Counter(trial_attrs(trial).arm for trial in trials)
    due = {
        arm: sum((arm, f"baseline:{one.name}") not in begun for one in spec.baselines)
        for arm in spec.arms
    }
    others = sum(count for arm, count in counts.items() if arm not in spec.arms)
    return others + len(spec.arms) * max(counts[arm] + due[arm] for arm in spec.arms)


@dataclass(frozen=True)
class Proposal:
    """The next trial of an arm."""

    params: dict[str, Any]
    origin: str  # "baseline:<name>", "sobol" or "sampler"
    system_attrs: dict[str, Any] = field(default_factory=dict)  # a sampler's state, as of CMA-ES


def next_proposal(study: optuna.Study, spec: StudySpec, arm: str) -> Proposal:
    """Return the arm's next trial: a baseline, a Sobol point, or what the sampler proposes."""
    trials = arm_trials(study, arm)
    origins = [trial_attr(trial, "origin") for trial in trials]
    for baseline in spec.baselines:
        if f"baseline:{baseline.name}" not in origins:
            return Proposal(spec.baseline_params(baseline, arm), f"baseline:{baseline.name}")
    drawn = origins.count("sobol")
    n_finished = sum(trial.state.is_finished() for trial in trials)
    startup = drawn < spec.sampler.startup_trials or n_finished < _least_finished(spec)
    if spec.sampler.kind == "qmc" or startup:
        return Proposal(sobol_params(spec, arm, drawn), "sobol")
    sampler = _sampler(spec, arm, len(trials))
    metric = metric_of(spec.model_dump(mode="json"))
    by_log = isinstance(sampler, GPSampler | CmaEsSampler)
    known = gp_observations(trials, metric) if by_log else trials
    with threadpool_limits(1):  # the other cores train: waiting for them takes 5 times as long
        view = arm_view(known, spec.compare, sampler, metric)
        asked = view.ask()
        params = spec.suggest(asked, arm)
    stored = isinstance(sampler, CmaEsSampler)  # others are made of the trials alone
    state = view._storage.get_trial_system_attrs(asked._trial_id) if stored else {}
    return Proposal(params, "sampler", state)


def _least_finished(spec: StudySpec) -> int:
    """Return the finished trials of an arm that a sampler needs to learn anything.

    With many slots all Sobol points may be asked for before a trial has ended. More of them cover
    the space better than draws at random, and than proposals that follow from nothing.
    """
    return -(-spec.sampler.startup_trials // 2)


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
    kind, options = spec.sampler.kind, spec.sampler.options
    # From few trials it learns more than TPE (tests/benchmarks/samplers.json).
    if kind.endswith(("gp", "GPSampler")) and asked >= MAX_GP_TRIALS:
        kind, options = "tpe", {}
    # TPE is multivariate, and running trials count as bad ones ("constant liar"): Optuna 5's
    # defaults.
    return make_sampler(kind, options, seed, _least_finished(spec))
