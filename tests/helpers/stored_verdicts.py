"""A stored sweep with confirm runs that end where a test says, without training."""

import math
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from stored_studies import STUDY, StoredStudy, evaluation

from sweep.storage.rdb import record_evaluation
from sweep.verdict.compare import Verdict, judge
from sweep.verdict.confirm_plan import phase_spec, plan, seeds_of, wanted_runs
from sweep.verdict.request import Question, make_question

NOISE = [0.004, -0.003, 0.001, -0.004, 0.002]  # by seed, the same for every arm
OWN = [0.001, 0.0, -0.001, 0.002, -0.002]  # of the arms after the first


class Judged:
    """A sweep with one complete trial per arm, and confirm runs that end where a test says."""

    def __init__(self, folder: Path, text: str = STUDY) -> None:
        self.stored = StoredStudy(folder, text)
        for arm in self.stored.spec.arms:
            self.stored.add(arm, [80.0])
        self.question: Question = make_question(self.stored.study)

    def run(self, phase: str, ends: dict[str, list[float]], blown_up: int = 0) -> None:
        """Store the runs of a phase, with these perplexities by seed; the last few diverged."""
        question = self.question
        spec = phase_spec(question.spec, phase)
        count = len(next(iter(ends.values())))
        seeds = seeds_of(question.spec, phase, count)
        study = optuna.create_study(storage=self.stored.storage, study_name=spec.name)
        trials = [question.top_trials(arm)[0] for arm in question.arms]
        plan(study, spec, wanted_runs(trials, seeds))
        for trial in study.get_trials():
            perplexity = ends[trial.user_attrs["arm"]][seeds.index(trial.params["seed"])]
            lost = trial.number >= len(study.trials) - blown_up
            self._end(study, trial, perplexity, "diverged" if lost else "complete")

    def _end(
        self, study: optuna.Study, trial: FrozenTrial, perplexity: float, outcome: str
    ) -> None:
        storage, trial_id = self.stored.storage, trial._trial_id
        storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        storage.set_trial_user_attr(trial_id, "outcome", outcome)
        record_evaluation(storage, trial_id, evaluation(100, perplexity))
        state = TrialState.COMPLETE if outcome == "complete" else TrialState.PRUNED
        storage.set_trial_state_values(trial_id, state, [perplexity])

    def verdict(self) -> Verdict:
        return judge(self.question, self.stored.storage)


def ends(factor: float, own: list[float] = OWN) -> list[float]:
    """Perplexities of an arm that is so many times as bad as one with 60."""
    return [60 * factor * math.exp(a + b) for a, b in zip(NOISE, own, strict=True)]
