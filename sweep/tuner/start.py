"""Open a study for its one tuner: lock, check, create or resume."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from gpt.config import DataConfig
from sweep.backends import BACKENDS, Backend, Slot
from sweep.storage.lock import claim_runs, only_tuner, runs_of
from sweep.storage.rdb import (
    check_storage,
    check_study,
    create_study,
    data_source,
    database_exists,
    find_study,
    fold_log,
    open_storage,
    set_up,
    sqlite_path,
    storage_url,
)
from sweep.storage.schema import StudyAttrs, study_attrs
from sweep.storage.sqlite import in_one_line
from sweep.study.spec import StudySpec
from sweep.trainers import TRAINERS, Facts, Trainer
from sweep.tuner.callback import Callback, Message
from sweep.tuner.options import RunOptions


@dataclass(frozen=True)
class OpenStudy:
    """A study that is locked, checked and stored, and all that its trials need."""

    study: optuna.Study
    storage: RDBStorage
    spec: StudySpec
    folder: Path  # of its run directories
    trainer: Trainer
    backend: Backend
    slots: list[Slot]
    facts: Facts


@contextmanager
def open_study(
    spec: StudySpec, data: DataConfig, options: RunOptions, callback: Callback, total: int = 0
) -> Iterator[OpenStudy]:
    """Lock a study, and create or resume it; a refusal leaves nothing behind.

    Args:
        spec: The study file, for the kind of device.
        data: Which text; "auto" is the stored study's own, for a new one the hub or else the
            built-in corpus.
        options: Where and how it runs.
        callback: Receives messages.
        total: Trials that are asked for; a study that has them needs no text.

    Raises:
        InputError: one of these cannot work.
        BusyError: another process runs this study, or holds its database.
        DataError: the database is damaged, or of another version of Optuna.
        StorageError: the runs or the database cannot be written.
    """
    backend = BACKENDS[options.backend](options.device, options.workers)
    backend.check()
    slots = backend.capacity()
    kind = slots[0].device.partition(":")[0]
    check_storage(options.storage)
    path = sqlite_path(storage_url(options.storage))

    def show(text: str) -> None:
        callback.on(Message(text))

    with in_one_line(options.storage, path, options.runs), ExitStack() as stack:
        own = options.runs / spec.name
        stack.enter_context(only_tuner(own, spec.name, show if options.wait else None))
        storage = open_storage(options.storage) if database_exists(options.storage) else None
        study = None if storage is None else find_study(storage, spec.name)
        stored = StudyAttrs() if study is None else study_attrs(study)
        pinned = study is not None and stored.data is not None and data.source == "auto"
        if study is not None and pinned:
            found_by = (stored.data or {}).get("options", {})
            data = data.with_source(data_source(study)).model_copy(update=found_by)
        trainer = TRAINERS["gpt"](data)
        spec = trainer.settle(spec, stored.spec, slots[0].device)
        if study is not None and stored.data and pinned and is_complete(study, total):
            facts = trainer.recall(spec, stored.data)
        else:
            facts = trainer.check(spec, show)
        if study is not None:
            check_study(study, spec, facts.data, kind)
        folder = runs_of(study, options.runs, spec.name)
        if folder != own:  # of a study that was renamed
            stack.enter_context(only_tuner(folder, spec.name, show if options.wait else None))
        storage = open_storage(options.storage, create=True) if storage is None else storage
        set_up(storage)
        stack.callback(fold_log, storage)
        if study is None or stored.spec is None:
            study = create_study(storage, spec, facts.data, kind)
        claim_runs(study, folder)
        yield OpenStudy(study, storage, spec, folder, trainer, backend, slots, facts)


def is_complete(study: optuna.Study, total: int) -> bool:
    """Return True if a study has `total` trials, and all are finished."""
    trials = study.get_trials(deepcopy=False)
    return 0 < total <= len(trials) and all(trial.state.is_finished() for trial in trials)
