"""Run the phases before a verdict with the tuner of the sweep: slots, resume and progress alike.

A call that was interrupted is continued by the next one; runs that are complete are not repeated.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from gpt.data.dataset import prepare
from gpt.errors import InputError
from sweep.analysis.phases import CONFIRM, SCREENING, name_of_phase
from sweep.storage.location import runs_folder
from sweep.storage.lock import only_tuner
from sweep.storage.rdb import find_study, stored_text
from sweep.storage.schema import set_study_attrs, study_attrs
from sweep.study.dataset import data_facts
from sweep.study.paths import SOURCES
from sweep.study.spec import StudySpec
from sweep.tuner.callback import Callback, Message
from sweep.tuner.options import RunOptions
from sweep.tuner.run import open_tuner
from sweep.tuner.summary import Summary
from sweep.verdict.confirm_plan import phase_spec, plan, planned_runs, seeds_of
from sweep.verdict.confirm_results import chosen_trials
from sweep.verdict.request import VerdictRequest

MakeCallback = Callable[[], Callback]  # called once for each phase
TimeLeft = Callable[[], RunOptions]  # options of a call, with what is left of its time


@contextmanager
def lock_sweep(
    request: VerdictRequest, options: RunOptions, make_callback: MakeCallback
) -> Iterator[None]:
    """Hold the sweep's lock: its best trials must not change while they train again.

    Raises:
        BusyError: another process runs the sweep or its verdict, and options.wait is not set.
    """
    folder, name = runs_folder(request.study), request.study.study_name
    with ExitStack() as stack:
        if options.wait:
            with make_callback() as callback:
                stack.enter_context(
                    only_tuner(folder, name, lambda text: callback.on(Message(text)))
                )
        else:
            stack.enter_context(only_tuner(folder, name))
        yield


def run_phases(
    request: VerdictRequest,
    storage: RDBStorage,
    options: RunOptions,
    make_callback: MakeCallback,
) -> Summary:
    """Screen, choose, confirm; runs that are there already are not repeated.

    The sweep's limit in `options` holds for all phases together.

    Returns:
        The summary of the last phase that ran; it may be interrupted.

    Raises:
        InputError: the text is not the sweep's, or has no story that the sweep did not see, or
            sweep.tuner.run.run refuses.
    """
    left = shared(options)
    if request.spec.trainer is None:
        _require_held_back(request)
    candidates = {arm: request.top_trials(arm) for arm in request.arms}
    several = [trial for trials in candidates.values() if len(trials) > 1 for trial in trials]
    if several:
        seeds = seeds_of(request.spec, SCREENING, request.spec.verdict.screening_seeds)
        summary = _run(request, storage, SCREENING, several, seeds, left(), make_callback)
        if summary.interrupted:
            return summary
    chosen = chosen_trials(request, storage).values()
    seeds = seeds_of(request.spec, CONFIRM, request.seeds)
    return _run(request, storage, CONFIRM, chosen, seeds, left(), make_callback)


def seeds_at_once(request: VerdictRequest, options: RunOptions) -> int:
    """Return the number of seeds whose runs fill all slots; at least 1."""
    backend = options.make_backend(request.spec.resources)
    backend.check()  # connects, where that takes a connection
    return max(1, len(backend.capacity()) // len(request.arms))


def _run(
    request: VerdictRequest,
    storage: RDBStorage,
    phase: str,
    trials: Iterable[FrozenTrial],
    seeds: list[int],
    options: RunOptions,
    make_callback: MakeCallback,
) -> Summary:
    return run_beside(
        request,
        storage,
        options,
        make_callback,
        phase,
        phase_spec(request.spec, phase),
        plan_all=lambda study, spec: plan(study, spec, planned_runs(trials, seeds)),
    )


def run_beside(
    request: VerdictRequest,
    storage: RDBStorage,
    options: RunOptions,
    make_callback: MakeCallback,
    ending: str,
    spec: StudySpec,
    *,
    plan_all: Callable[[optuna.Study, StudySpec], int],
) -> Summary:
    """Run a study that belongs to a sweep, on its text and under its name with an ending.

    Args:
        request: Of the sweep.
        storage: Of both.
        options: Where and how it runs.
        make_callback: Of its display.
        ending: Of its name.
        spec: Of the study, under any name.
        plan_all: Plans what is missing, and returns the total of trials.

    Raises:
        InputError: sweep.tuner.run.run refuses.
    """
    name = name_of_phase(storage, request.study, ending)
    spec = spec.model_copy(update={"name": name})
    began = find_study(storage, name) is not None
    grown = bool(study_attrs(request.study).extensions)  # since then, maybe: its phases follow
    options = replace(options, extend=began and grown)
    text = stored_text(request.study, request.spec)  # pinned: other text is refused
    with open_tuner(spec, text, options, make_callback()) as tuner:
        if study_attrs(tuner.study).of is None:  # trials are matched by number: bound by identity
            set_study_attrs(tuner.study, of=study_attrs(request.study).identity)
        return tuner.run(plan_all(tuner.study, spec))


def shared(options: RunOptions) -> TimeLeft:
    """Return a function that gives the next phase the time that is left for all together."""
    started = time.monotonic()

    def left() -> RunOptions:
        limits = options.limits
        if limits.sweep is not None:
            passed = time.monotonic() - started
            limits = replace(limits, sweep=max(0.0, limits.sweep - passed))
        return replace(options, limits=limits, wait=False)

    return left


def _require_held_back(request: VerdictRequest) -> None:
    """Refuse before the first run a text that is gone, or has no stories for the last."""
    spec, text = phase_spec(request.spec, CONFIRM), stored_text(request.study, request.spec)
    try:
        tokens = prepare(text)
    except InputError:
        if text.source in SOURCES or Path(text.source).exists():
            raise
        raise InputError(
            f"study {request.study.study_name!r} must be judged on its own text, but there is no "
            f"{text.source}; bring it back and run the same command again."
        ) from None
    data_facts(tokens, spec)
