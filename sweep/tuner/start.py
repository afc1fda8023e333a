"""Open a study for its one tuner: lock, check, create or resume."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from gpt.config import DataConfig
from sweep.backends.base import Backend, Slot
from sweep.backends.room import free_bytes, slots_that_fit
from sweep.search.known_trials import in_memory
from sweep.storage.errors import in_one_line
from sweep.storage.growth.takeover import (
    extend_study,
    fork_study,
    settle_runs,
    stage_runs,
    study_to_extend,
)
from sweep.storage.location import (
    data_source,
    relative_to_database,
    runs_folder,
    sqlite_path,
    storage_url,
)
from sweep.storage.lock import claim_runs, only_tuner, runs_of
from sweep.storage.rdb import (
    attrs_of_spec,
    check_storage,
    check_study,
    create_study,
    database_exists,
    find_study,
    fold_log,
    only_writer,
    open_storage,
    set_up,
)
from sweep.storage.reader import load_study
from sweep.storage.schema import StudyAttrs, set_study_attrs, study_attrs
from sweep.study.spec import StudySpec
from sweep.trainers.base import Facts, Trainer
from sweep.trainers.registry import trainer_of
from sweep.tuner.callback import Callback, Message
from sweep.tuner.options import RunOptions
from sweep.tuner.plan import depths_of


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


def _with_memory(
    slots: list[Slot],
    spec: StudySpec,
    study: optuna.Study | None,
    options: RunOptions,
    show: Callable[[str], None],
) -> list[Slot]:
    """Leave out the slots in which the largest model of a study does not fit.

    What a program takes, or another machine has, is not known; and trials that a killed tuner left
    running hold memory that is theirs already.
    """
    running = (optuna.trial.TrialState.RUNNING,)
    taken_over = study is not None and study.get_trials(deepcopy=False, states=running)
    elsewhere = options.backend != "local" or slots[0].processes > 1  # which several GPUs share
    if elsewhere or spec.trainer is not None or taken_over:
        return slots
    from sweep.trainers.memory import estimate_memory  # imports torch

    of_models = [estimate_memory(depth.largest) for depth in depths_of(spec, slots[0])]
    largest = max(of_models, key=lambda estimate: estimate.peak)
    free = {slot.device: free_bytes(slot.device) for slot in slots}
    return slots_that_fit(slots, largest.tensors, largest.peak, free, show)


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
    backend = options.make_backend(spec.resources)
    backend.check()
    kind = backend.kind()
    check_storage(options.storage)
    path = sqlite_path(storage_url(options.storage))

    def show(text: str) -> None:
        callback.on(Message(text))

    with in_one_line(options.storage, path, options.runs), ExitStack() as stack:
        own, patience = options.runs / spec.name, show if options.wait else None
        stack.enter_context(only_tuner(own, spec.name, patience))
        storage = _open_existing(options.storage, spec.name, stack, show, patience)
        study = None if storage is None else find_study(storage, spec.name)
        base = study_to_extend(storage, study, spec.name, options.extend, options.taken_from)
        stored = StudyAttrs() if base is None else study_attrs(base)
        program = spec.trainer is not None
        pinned = stored.data is not None and (program or data.source == "auto")
        if base is not None and pinned and not program:
            found_by = (stored.data or {}).get("options", {})
            data = data.with_source(data_source(base)).model_copy(update=found_by)
        trainer = trainer_of(spec, data)
        slots = backend.capacity()
        spec = trainer.settle(spec, stored.spec, [slot.device for slot in slots])
        slots = _with_memory(slots, spec, study, options, show)
        extends = options.extend or base is not study
        grows = extends and stored.spec_digest != spec.digest
        if study is not None and stored.data and pinned and not grows and is_complete(study, total):
            facts = trainer.recall(spec, stored.data)
        else:
            facts = trainer.check(spec, show)
        keys = [] if base is None else check_study(base, spec, facts.data, kind, extends)
        settle_runs(study, own)
        folder = runs_of(study, options.runs, spec.name)
        if folder != own:  # of a study that was renamed
            stack.enter_context(only_tuner(folder, spec.name, patience))
        if storage is None:
            storage = open_storage(options.storage, create=True, notice=show)
            stack.enter_context(only_writer(storage, spec.name))
        set_up(storage)
        stack.callback(fold_log, storage)
        if study is None and base is not None:
            study = _take_over(base, storage, spec, facts, folder, keys, stack, show, patience)
        elif study is None or stored.spec is None:
            study = create_study(storage, spec, facts.data, kind)
        elif keys:
            attributes = attrs_of_spec(study, spec, facts.data)
            show(extend_study(storage, study, spec, attributes, keys).line())
            study = load_study(storage, spec.name)
        _claim(study, spec, folder)
        yield OpenStudy(
            in_memory(study, storage), storage, spec, folder, trainer, backend, slots, facts
        )


def _open_existing(
    storage: str,
    study: str,
    stack: ExitStack,
    show: Callable[[str], None],
    patience: Callable[[str], None] | None,
) -> RDBStorage | None:
    """Open the storage if there is one, and hold the lock of a study in it.

    Before anything is read: until then, it may be what another machine is about to change.
    """
    if not database_exists(storage, show):
        return None
    opened = open_storage(storage, notice=show)
    stack.enter_context(only_writer(opened, study, patience))
    return opened


def _claim(study: optuna.Study, spec: StudySpec, folder: Path) -> None:
    """Bind a study to its runs; store the tables of backends, which may change at any time."""
    claim_runs(study, folder)
    stored = study_attrs(study).spec
    now = spec.model_dump(mode="json", include={"backend", "resources"})
    if stored is not None and any(stored.get(name) != now[name] for name in now):
        set_study_attrs(study, spec={**stored, **now})  # its verdict reads them


def _take_over(
    old: optuna.Study,
    storage: RDBStorage,
    spec: StudySpec,
    facts: Facts,
    folder: Path,
    keys: list[str],
    stack: ExitStack,
    show: Callable[[str], None],
    patience: Callable[[str], None] | None,
) -> optuna.Study:
    """Make a new study that has the trials of an old one, whose lock is held as long."""
    stack.enter_context(only_tuner(runs_folder(old), old.study_name, patience))
    stack.enter_context(only_writer(storage, old.study_name, patience))
    identity = uuid.uuid4().hex
    stage_runs(old, folder, identity)
    attributes = attrs_of_spec(old, spec, facts.data)
    places = {"identity": identity, "runs": relative_to_database(old, folder)}
    show(fork_study(storage, old, spec, attributes | places, keys).line())
    study = load_study(storage, spec.name)
    settle_runs(study, folder)
    return study


def is_complete(study: optuna.Study, total: int) -> bool:
    """Return True if a study has `total` trials, and all are finished."""
    trials = study.get_trials(deepcopy=False)
    return 0 < total <= len(trials) and all(trial.state.is_finished() for trial in trials)
