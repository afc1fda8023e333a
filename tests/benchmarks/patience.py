"""How patient may a pruner be? Others on the recorded curves of sweeps that had none.

    python -m tests.benchmarks.patience NAME=DATABASE...

Each DATABASE holds a study `tinystories` of 40 complete trials, run with `kind = "none"` in its
table `pruner`; NAME is that of its text. A pruner stops a trial that is not among the best of its
arm's complete trials, after a share of the steps: how many it stops, the steps that it saves, and
how many of the best three of each arm it loses. Baselines are never stopped, as in a sweep.
"""

import sys
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner, PercentilePruner
from optuna.trial import FrozenTrial, TrialState

from sweep.search.arms import arm_trials
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

PERCENTILES = (50.0, 40.0, 33.0, 25.0)  # 50 is the median
PATIENCE = (0.2, 0.3, 0.4, 0.5)
TOP = 3


def replay(trials: Sequence[FrozenTrial], pruner: BasePruner, max_steps: int) -> dict[str, float]:
    """Run a pruner over the curves of an arm's complete trials, in the order of their numbers."""
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    ends = {trial.number: _stopped_at(study, trial, max_steps) for trial in trials}
    lengths = {trial.number: max(trial.intermediate_values) for trial in trials}
    stopped = {number: end for number, end in ends.items() if end is not None}
    best = [trial.number for trial in sorted(trials, key=lambda one: (one.values[0], one.number))]
    saved = sum(lengths[number] - end for number, end in stopped.items())
    return {
        "stopped": len(stopped),
        "steps_saved": saved / sum(lengths.values()),
        "winners_lost": len(set(best[:TOP]) & stopped.keys()),
        "best_lost": best[0] in stopped,
    }


def _stopped_at(study: optuna.Study, trial: FrozenTrial, max_steps: int) -> int | None:
    """The step at which the study's pruner stops a trial; None if it lets it train to its end."""
    replayed = study.ask()
    free = str(trial.user_attrs.get("origin", "")).startswith("baseline:")
    for step, value in sorted(trial.intermediate_values.items()):
        replayed.report(value, step)
        if not free and step < max_steps and replayed.should_prune():
            study.tell(replayed, state=TrialState.PRUNED)
            return step
    study.tell(replayed, trial.values[0])
    return None


def audit(database: str) -> dict[str, Any]:
    """Replay every pruner on one sweep, both arms together."""
    spec = read_study_file("tinystories", "cpu")
    study = optuna.load_study(study_name=spec.name, storage=f"sqlite:///{database}")
    arms = [
        [trial for trial in arm_trials(study, arm) if trial.state == TrialState.COMPLETE]
        for arm in spec.arms
    ]
    return {
        f"best {percentile:g} %, none before {patience:g} of the steps": _both_arms(
            spec, arms, percentile, patience
        )
        for percentile in PERCENTILES
        for patience in PATIENCE
    }


def _both_arms(
    spec: StudySpec, arms: list[list[FrozenTrial]], percentile: float, patience: float
) -> dict[str, Any]:
    startup, steps = spec.pruner.startup_trials, spec.max_steps
    rows = [
        replay(trials, PercentilePruner(percentile, startup, round(patience * steps)), steps)
        for trials in arms
    ]
    return {
        "stopped": sum(row["stopped"] for row in rows),
        "steps_saved": round(sum(row["steps_saved"] for row in rows) / len(rows), 3),
        "lost_of_best_3_of_each_arm": sum(row["winners_lost"] for row in rows),
        "arms_that_lost_their_best": sum(row["best_lost"] for row in rows),
    }


def main() -> None:
    """Replay and write the results."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    databases = dict(argument.split("=", 1) for argument in sys.argv[1:])
    figures = {text: audit(database) for text, database in databases.items()}
    measuring.write("patience", figures, "NAME=DATABASE...")


if __name__ == "__main__":
    main()
