"""A stored sweep with confirm runs that end where a test says, without training."""

import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from stored_studies import STUDY, StoredStudy, add_at_once, evaluation

from gpt.events import Evaluation
from sweep.analysis.results import arm_of
from sweep.verdict.compare import Verdict, judge
from sweep.verdict.confirm_plan import (
    CONFIRM,
    SCREENING,
    phase_spec,
    plan,
    planned_runs,
    seeds_of,
)
from sweep.verdict.confirm_results import chosen_trials
from sweep.verdict.request import VerdictRequest, make_request

NOISE = [0.004, -0.003, 0.001, -0.004, 0.002]  # by seed, the same for every arm
OWN = [0.001, 0.0, -0.001, 0.002, -0.002]  # of the arms after the first


class Judged:
    """A sweep with one complete trial per arm, and confirm runs that end where a test says."""

    def __init__(self, folder: Path, text: str = STUDY) -> None:
        self.stored = StoredStudy(folder, text)
        for arm in self.stored.spec.arms:
            self.stored.add(arm, [80.0])
        self.request: VerdictRequest = make_request(self.stored.study)
        self.links: dict[int, float] = {}  # link_perplexity over perplexity, by trial; else 1

    def run(self, phase: str, ends: dict[str, list[float]], diverged: int = 0) -> None:
        """Store the runs of a phase, with these perplexities by seed; the last few diverged.

        In the confirm phase of what screening chose, else of each arm's best trial.
        """
        request = self.request
        if phase == CONFIRM:
            trials = list(chosen_trials(request, self.stored.storage).values())
        else:
            trials = [request.top_trials(arm)[0] for arm in request.arms]
        by_trial = {trial.number: ends[arm_of(trial)] for trial in trials}
        self._store(phase, by_trial, diverged)

    def screen(self, perplexities: dict[int, float]) -> None:
        """Store the screening of these trials, each with one perplexity on all seeds."""
        seeds = self.request.spec.verdict.screening_seeds
        self._store(SCREENING, {trial: [value] * seeds for trial, value in perplexities.items()})

    def _store(self, phase: str, ends: dict[int, list[float]], diverged: int = 0) -> None:
        spec, storage = phase_spec(self.request.spec, phase), self.stored.storage
        seeds = seeds_of(self.request.spec, phase, len(next(iter(ends.values()))))
        study = optuna.create_study(storage=storage, study_name=spec.name, load_if_exists=True)
        known = study.trials
        planned = optuna.create_study()  # in memory: a database waits for the disk at each
        planned.add_trials(known)
        trials = [self.stored.study.trials[number] for number in ends]
        total = plan(planned, spec, planned_runs(trials, seeds))
        runs = planned.trials[len(known) :]
        for run in runs:
            lost = run.number >= total - diverged
            run.user_attrs["outcome"] = "diverged" if lost else "complete"
            run.state = TrialState.PRUNED if lost else TrialState.COMPLETE
            run.value = ends[run.user_attrs["of_trial"]][seeds.index(run.params["seed"])]
            run.datetime_start = run.datetime_complete = datetime.now()
        added = add_at_once(storage, study._study_id, len(known), runs)
        self.stored.record(dict(zip(added, map(self._measured, runs), strict=True)))

    def _measured(self, run: FrozenTrial) -> list[Evaluation]:
        assert run.value is not None
        link = run.value * self.links.get(run.user_attrs["of_trial"], 1.0)
        return [replace(evaluation(100, run.value), link_perplexity=link)]

    def verdict(self) -> Verdict:
        return judge(self.request, self.stored.storage)


def ends(factor: float, own: list[float] = OWN) -> list[float]:
    """Perplexities of an arm that is so many times as bad as one with 60."""
    return [60 * factor * math.exp(a + b) for a, b in zip(NOISE, own, strict=True)]
