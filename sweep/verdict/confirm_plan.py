"""Plan of the two phases between a sweep and its verdict, each a study of its own.

    <study>.screening   the top configurations of each arm, a few fresh seeds, the sweep's stories
    <study>.confirm     the one that screening chose per arm, other fresh seeds, held-back stories

Two phases, because whoever chooses and judges by the same runs flatters the choice. Of 10,000
simulated studies with a flat and a steep arm (choosing_and_judging in
tests/benchmarks/verdict.json): runs of an arm; coverage of the interval of a single analysis at
95 %; "better" or "worse" said of equal settings; half width and bias of the difference in nats, all
at the seed noise of short runs; and how often a difference of 2 % is found at that of longer ones.

                                                  runs  coverage   false  half width  bias  found
    screened by 3 seeds, judged by 5 others         14    95.2 %   4.8 %    0.043    0.000   99.5 %
    5 seeds each, chosen by 2, judged by 3          15    95.0 %   5.0 %    0.081    0.000   70.7 %
    5 seeds each, chosen and judged by all          15    95.7 %   4.3 %    0.043    0.004   99.4 %
    5 seeds each, 4 choose and 1 judges, in turn    15    90.6 %   9.4 %    0.041    0.000   99.5 %

8 seeds each, of which 3 choose and 5 judge, is the first line at 24 runs: those of what was not
chosen are never read. In turn is too sure, since its turns share their runs. Screening on the
sweep's own stories shows how much the best trial of the search flattered itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.analysis.phases import CONFIRM, SCREENING, phase_name
from sweep.storage.schema import new_trial_attrs, trial_attrs
from sweep.study.search_space import Parameter
from sweep.study.spec import MOST_SEEDS, PrunerSpec, StudySpec

_FIRST_SEED = {SCREENING: 1_000, CONFIRM: 2_000}  # above the study's own
HELD_BACK = 8  # times the sweep's eval_tokens, as far as the text goes
EVALUATIONS = 4  # of a confirm run: it is never pruned, and each is 8 times as long as a trial's


@dataclass(frozen=True)
class PlannedRun:
    """A run of a phase."""

    arm: str
    of_trial: int  # the sweep's trial whose configuration it has
    params: dict[str, Any]
    seed: int


def phase_spec(spec: StudySpec, phase: str) -> StudySpec:
    """Return the study of a phase: the sweep's trials, unpruned, with other seeds and stories.

    A program has no stories of ours: its runs differ in their seeds alone.

    The result need not pass the checks of a study file: its trials are given, not drawn.
    """
    first = spec.seed + _FIRST_SEED[phase]
    seed = Parameter(low=first, high=first + MOST_SEEDS - 1)
    train = dict(spec.train)
    if phase == CONFIRM and spec.trainer is None:
        train |= {
            "eval_skip_tokens": spec.eval_tokens,
            "eval_tokens": HELD_BACK * spec.eval_tokens,
            "eval_interval": -(-int(spec.base("max_steps")) // EVALUATIONS),
        }
    changes = {
        "name": phase_name(spec.name, phase),
        "train": train,
        "search": spec.search | {"seed": seed},
        "baselines": [],
        "pruner": PrunerSpec(kind="none"),
    }
    return spec.model_copy(update=changes)


def seeds_of(spec: StudySpec, phase: str, count: int) -> list[int]:
    """Return the first seeds of a phase: the same for every arm, none of them the sweep's."""
    first = spec.seed + _FIRST_SEED[phase]
    return list(range(first, first + count))


def planned_runs(trials: Iterable[FrozenTrial], seeds: Iterable[int]) -> list[PlannedRun]:
    """Pair each of these trials with each seed; seed by seed, so that pairs end together."""
    chosen = list(trials)
    return [
        PlannedRun(trial_attrs(trial).arm or "", trial.number, trial.params | {"seed": seed}, seed)
        for seed in seeds
        for trial in chosen
    ]


def plan(study: optuna.Study, spec: StudySpec, runs: Iterable[PlannedRun]) -> int:
    """Store the runs that are missing as waiting trials, and return the study's new total.

    A run that failed (a crash of the machine, not a divergence) is planned again.
    """
    there = {
        (trial_attrs(trial).of_trial, trial.params["seed"])
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.FAIL
    }
    for run in runs:
        if (run.of_trial, run.seed) not in there:
            study.add_trial(_waiting(spec, run))
    return len(study.get_trials(deepcopy=False))


def _waiting(spec: StudySpec, run: PlannedRun) -> FrozenTrial:
    origin = f"trial:{run.of_trial}"
    return create_trial(
        state=TrialState.WAITING,
        params=run.params,
        distributions=spec.distributions(run.params),
        user_attrs=new_trial_attrs(arm=run.arm, origin=origin, of_trial=run.of_trial),
    )
