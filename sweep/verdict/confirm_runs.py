"""Run the phases before a verdict, with the driver of the sweep: slots, resume and progress alike.

An interrupted call is continued by the next one; what is complete is not run again.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from gpt.config import DataConfig, read_config
from gpt.data.dataset import prepare
from gpt.errors import InputError
from sweep.analysis.results import CONFIRM, SCREENING, run_dir
from sweep.storage.lock import only_tuner
from sweep.storage.schema import set_study_attrs, study_attrs
from sweep.study.dataset import data_facts
from sweep.tuner.callback import Callback, Message
from sweep.tuner.limits import SILENCE_SECONDS, Limits
from sweep.tuner.options import RunOptions
from sweep.tuner.summary import Summary
from sweep.tuner.tuner import Tuner, open_tuner
from sweep.verdict.confirm_plan import phase_spec, plan, seeds_of, wanted_runs
from sweep.verdict.confirm_results import chosen_trials
from sweep.verdict.request import Question


@dataclass(frozen=True)
class Place:
    """Where and how the phases run."""

    storage: str  # a path or URL, as `sweep.tuner.tuner.run` takes it
    runs: Path
    device: str
    workers: int | None
    listener: Callable[[], Callback]  # makes one for each phase
    timeout: float | None = None  # seconds that all phases together may take
    silence: float | None = SILENCE_SECONDS  # see sweep.tuner.limits.Limits
    wait: bool = False  # for another process that runs the sweep or its verdict


@contextmanager
def search_at_rest(question: Question, place: Place) -> Iterator[None]:
    """Nobody adds trials to the sweep meanwhile: its best must not change while they train again.

    Raises:
        BusyError: somebody runs the sweep or its verdict, and place.wait is not set.
    """
    _text_of(question)  # raises if the runs are gone: no folder is made then
    folder, name = _run_dir_of(question).parent, question.study.study_name
    with ExitStack() as stack:
        if place.wait:
            with place.listener() as listener:
                stack.enter_context(
                    only_tuner(folder, name, lambda text: listener.on(Message(text)))
                )
        else:
            stack.enter_context(only_tuner(folder, name))
        yield


def run_phases(question: Question, storage: RDBStorage, place: Place) -> Summary:
    """Screen, choose, confirm; what is there already is not run again.

    Returns:
        The summary of the last phase that ran; it may be interrupted.

    Raises:
        InputError: the text is another than the sweep's, or has no story that the sweep did not
            see, or what `sweep.tuner.tuner.run` refuses.
    """
    limits = _shared(place)
    _require_held_back(question)
    candidates = {arm: question.top_trials(arm) for arm in question.arms}
    several = [trial for trials in candidates.values() if len(trials) > 1 for trial in trials]
    if several:
        seeds = seeds_of(question.spec, SCREENING, question.spec.verdict.screening_seeds)
        summary = _run(question, SCREENING, several, seeds, place, limits())
        if summary.interrupted:
            return summary
    chosen = chosen_trials(question, storage).values()
    seeds = seeds_of(question.spec, CONFIRM, question.seeds)
    return _run(question, CONFIRM, chosen, seeds, place, limits())


def _run(
    question: Question,
    phase: str,
    trials: Iterable[FrozenTrial],
    seeds: list[int],
    place: Place,
    limits: Limits,
) -> Summary:
    spec = phase_spec(question.spec, phase)
    data = _text_of(question)
    options = RunOptions(
        storage=place.storage,
        runs=place.runs,
        device=place.device,
        workers=place.workers,
        limits=limits,
    )
    with open_tuner(spec, data, options, place.listener()) as tuner:
        _bind(tuner, question)
        return tuner.run(plan(tuner.study, spec, wanted_runs(trials, seeds)))


def _shared(place: Place) -> Callable[[], Limits]:
    """Makes the limits of the next phase: the time that is left of what all have together."""
    started = time.monotonic()

    def left() -> Limits:
        if place.timeout is None:
            return Limits(silence=place.silence)
        passed = time.monotonic() - started
        return Limits(sweep=max(0.0, place.timeout - passed), silence=place.silence)

    return left


def _text_of(question: Question) -> DataConfig:
    """The sweep's text, pinned: other text is refused when it is prepared."""
    return read_config(_run_dir_of(question) / "config.json").data


def _run_dir_of(question: Question) -> Path:
    """The run directory of one of the sweep's trials."""
    return run_dir(question.study, question.top_trials(question.arms[0])[0])


def _require_held_back(question: Question) -> None:
    """Find out before the first run whether the text suffices for the last."""
    spec = phase_spec(question.spec, CONFIRM)
    data_facts(prepare(_text_of(question)), spec)


def _bind(tuner: Tuner, question: Question) -> None:
    """Trials are matched by number, so a phase belongs to one sweep, not to all of its name.

    Raises:
        InputError: the phase was of a sweep that was deleted since.
    """
    mine = study_attrs(question.study).identity
    if study_attrs(tuner.study).of in (None, mine):
        set_study_attrs(tuner.study, of=mine)
        return
    raise InputError(
        f"study {tuner.study.study_name!r} must belong to this sweep, but it is of a deleted one "
        f"of the same name; delete it too: optuna delete-study --study-name "
        f"{tuner.study.study_name} --storage ..."
    )
