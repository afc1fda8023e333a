"""Run a study: open it for its one tuner, and bring it to its total of trials."""

from collections.abc import Iterator
from contextlib import contextmanager

from gpt.config import DataConfig
from gpt.errors import InputError
from sweep.search.samplers import equal_budget
from sweep.storage.schema import study_attrs
from sweep.study.spec import StudySpec
from sweep.tuner.callback import Callback, Header, Message, Notice, Opened
from sweep.tuner.limits import Clock
from sweep.tuner.options import RunOptions
from sweep.tuner.start import open_study
from sweep.tuner.summary import Summary, header
from sweep.tuner.tuner import Tuner

TRIALS = 40  # of a study, where nobody says how many


def run(
    spec: StudySpec,
    data: DataConfig,
    options: RunOptions,
    callback: Callback,
    *,
    trials: int | None = None,
    clock: Clock | None = None,
) -> Summary:
    """Bring a study to `trials` trials in total, continuing whatever an earlier call left.

    Args:
        spec: The study, resolved for the kind of device.
        data: Which text; "auto" is that of the stored study, for a new one the hub or else the
            built-in corpus.
        options: Storage, runs, machine and limits.
        callback: Receives the events of the sweep.
        trials: Total of the study: complete, pruned and failed; None: 40, or of a study that was
            extended as many as give all arms an equal budget.
        clock: Seconds that limits of a trial are measured in; None is a SuspendAwareClock.

    Raises:
        InputError: one of these cannot work.
        BusyError: another process runs this study, or holds its database.
        DataError: the database is damaged, or of another version of Optuna.
        StorageError: the runs or the database cannot be written; trials wait at their checkpoints.
        TrialsFailedError: trials fail one after another.
    """
    if trials is not None and trials < 1:
        raise InputError(f"trials must be at least 1, but got {trials}.")
    wanted = trials or TRIALS
    with open_tuner(spec, data, options, callback, total=wanted, clock=clock) as tuner:
        if study_attrs(tuner.study).extensions:
            equal = equal_budget(tuner.study, tuner.spec)
            wanted = trials or max(equal, study_attrs(tuner.study).n_trials or 0)
            if wanted < equal:
                text = (
                    f"arms have unequal budgets with {wanted} trials; --trials {equal} evens them"
                )
                callback.on(Message(text))
        return tuner.run(wanted)


@contextmanager
def open_tuner(
    spec: StudySpec,
    data: DataConfig,
    options: RunOptions,
    callback: Callback,
    total: int = 0,
    clock: Clock | None = None,
) -> Iterator[Tuner]:
    """Open a study for its only tuner; see `run` for arguments and errors."""
    with callback, open_study(spec, data, options, callback, total) as opened:
        tuner = Tuner(opened, options, callback, clock)
        callback.on(Opened(opened.study, opened.storage, tuner.metric))
        callback.on(Header(header(opened, options.storage)))
        if opened.facts.notice:
            callback.on(Notice(opened.facts.notice))
        yield tuner
