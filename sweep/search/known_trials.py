"""The trials of a study, kept in memory by its one writer.

Optuna reads every unfinished trial again whenever somebody asks for the trials of a study: with
1,000 that train, 1.4 s each time. The tuner alone writes those that it trains, so it knows them;
what other programs add, such as trials of `study.enqueue_trial`, is read from the storage still.
"""

import copy
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState

from gpt.events import Evaluation
from sweep.storage.schema import trial_attrs
from sweep.storage.tables import record_evaluation, record_trial_attr


def in_memory(study: optuna.Study, storage: RDBStorage) -> optuna.Study:
    """Return a study for its one writer, which keeps in memory the trials that it trains."""
    return optuna.load_study(study_name=study.study_name, storage=_WriterStorage(storage))


def known_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials by number, without another reading of the storage by its one writer.

    Those that other programs have added since the last reading are missing then.
    """
    storage = study._storage
    if isinstance(storage, _WriterStorage):
        return storage.known(study._study_id)
    return study.get_trials(deepcopy=False)


def report_evaluation(
    study: optuna.Study, trial_id: int, evaluation: Evaluation, value: float
) -> None:
    """Store an evaluation of a trial that trains, and report its value to Optuna.

    Args:
        study: As its one writer has it.
        trial_id: Of the trial.
        evaluation: Of a step that was not reported yet.
        value: By which trials are ranked.
    """
    storage = study._storage
    assert isinstance(storage, _WriterStorage)
    storage.report(trial_id, evaluation, value)


class _WriterStorage(_CachedStorage):
    """Optuna's cache of a database, in which running trials of ours are as good as finished ones.

    A trial is ours while it is running and has an arm: no other program gives it one. What is
    written to it is written to the database first, and then to the trial in memory.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._ours: dict[int, FrozenTrial] = {}  # by trial id
        self._last_read: dict[int, int] = {}  # the largest trial id of each study

    def known(self, study_id: int) -> list[FrozenTrial]:
        """Return the trials that have been read, by number."""
        trials = self._info(study_id).trials
        return [trials[number] for number in sorted(trials)]

    def report(self, trial_id: int, evaluation: Evaluation, value: float) -> None:
        record_evaluation(self._backend, trial_id, evaluation, value)
        self._change(trial_id, "intermediate_values", evaluation.step, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        ours = self._ours.get(trial_id)
        return super().get_trial(trial_id) if ours is None else copy.deepcopy(ours)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        changed = super().set_trial_state_values(trial_id, state, values)
        with self._lock:  # the database has its times and values
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            self._keep(study_id, [self._backend.get_trial(trial_id)])
        return changed

    def set_trial_param(self, trial_id: int, *args: Any) -> None:
        super().set_trial_param(trial_id, *args)
        self._ours.pop(trial_id, None)  # read again

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._change(trial_id, "intermediate_values", step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id in self._ours:  # its end follows, which waits for the disk
            record_trial_attr(self._backend, trial_id, key, value)
        else:
            super().set_trial_user_attr(trial_id, key, value)
        self._change(trial_id, "user_attrs", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        self._change(trial_id, "system_attrs", key, value)

    def _change(self, trial_id: int, table: str, key: Any, value: Any) -> None:
        """Replace a trial of ours: whoever has it by now, such as a pruner, sees it as it was."""
        if trial_id in self._ours:
            trial = copy.copy(self._ours[trial_id])
            setattr(trial, table, {**getattr(trial, table), key: value})
            self._ours[trial_id] = trial
            study_id, number = self._trial_id_to_study_id_and_number[trial_id]
            self._studies[study_id].trials[number] = trial

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        """Read what is new, and again what is unfinished and not ours."""
        with self._lock:
            trials = self._backend._get_trials(
                study_id,
                states=None,
                included_trial_ids=self._info(study_id).unfinished_trial_ids - self._ours.keys(),
                trial_id_greater_than=self._last_read.get(study_id, -1),
            )
            self._keep(study_id, trials)
            if trials:  # a study gets its trials in the order of their ids: each locks it
                last = max(trial._trial_id for trial in trials)
                self._last_read[study_id] = max(self._last_read.get(study_id, -1), last)

    def _info(self, study_id: int) -> _StudyInfo:
        return self._studies.setdefault(study_id, _StudyInfo())

    def _keep(self, study_id: int, trials: list[FrozenTrial]) -> None:
        unfinished = self._info(study_id).unfinished_trial_ids
        self._add_trials_to_cache(study_id, trials)
        for trial in trials:
            if trial.state.is_finished():
                unfinished.discard(trial._trial_id)
            else:
                unfinished.add(trial._trial_id)
            if trial.state == TrialState.RUNNING and trial_attrs(trial).arm is not None:
                self._ours[trial._trial_id] = trial
            else:
                self._ours.pop(trial._trial_id, None)
