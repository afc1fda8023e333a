"""Run the phases before a verdict with the tuner of the sweep: slots, resume and progress alike.

A call that was interrupted is continued by the next one; runs that are complete are not repeated.
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
from sweep.analysis.results import CONFIRM, SCREENING
from sweep.storage.lock import only_driver
from sweep.study.dataset import data_facts
from sweep.tuner.callback import Listener
from sweep.tuner.limits import SILENCE_SECONDS, Limits
from sweep.tuner.summary import Summary
from sweep.tuner.tuner import Driver, driving
from sweep.verdict.confirm_plan import phase_spec, plan, planned_runs, seeds_of
from sweep.verdict.confirm_results import chosen_trials
from sweep.verdict.request import VerdictRequest


@dataclass(frozen=True)
class VerdictOptions:
    """Storage, machine and limits of the phases."""

    storage: str  # a path or URL, as sweep.tuner.tuner.run takes it
    runs: Path
    device: str
    workers: int | None
    listener: Callable[[], Listener]  # called once for each phase
    timeout: float | None = None  # seconds for all phases together
    silence: float | None = SILENCE_SECONDS  # see sweep.tuner.limits.Limits
    wait: bool = False  # for another process that runs the sweep or its verdict


@contextmanager
def lock_sweep(request: VerdictRequest, options: VerdictOptions) -> Iterator[None]:
    """Hold the sweep's lock: its best trials must not change while they train again.

    Raises:
        BusyError: another process runs the sweep or its verdict, and options.wait is not set.
    """
    _text_of(request)  # raises if the runs are gone: no folder is made then
    folder, name = _run_dir_of(request).parent, request.study.study_name
    with ExitStack() as stack:
        if options.wait:
            with options.listener() as listener:
                stack.enter_context(only_driver(folder, name, listener.message))
        else:
            stack.enter_context(only_driver(folder, name))
        yield


def run_phases(request: VerdictRequest, storage: RDBStorage, options: VerdictOptions) -> Summary:
    """Screen, choose, confirm; runs that are there already are not repeated.

    Returns:
        The summary of the last phase that ran; it may be interrupted.

    Raises:
        InputError: the text is not the sweep's, or has no story that the sweep did not see, or
            sweep.tuner.tuner.run refuses.
    """
    limits = _shared(options)
    _require_held_back(request)
    candidates = {arm: request.top_trials(arm) for arm in request.arms}
    several = [trial for trials in candidates.values() if len(trials) > 1 for trial in trials]
    if several:
        seeds = seeds_of(request.spec, SCREENING, request.spec.verdict.screening_seeds)
        summary = _run(request, SCREENING, several, seeds, options, limits())
        if summary.interrupted:
            return summary
    chosen = chosen_trials(request, storage).values()
    seeds = seeds_of(request.spec, CONFIRM, request.seeds)
    return _run(request, CONFIRM, chosen, seeds, options, limits())


def _run(
    request: VerdictRequest,
    phase: str,
    trials: Iterable[FrozenTrial],
    seeds: list[int],
    options: VerdictOptions,
    limits: Limits,
) -> Summary:
    spec = phase_spec(request.spec, phase)
    data = _text_of(request)
    where = (options.storage, options.runs, options.device, options.workers, limits)
    with driving(spec, data, options.listener(), *where) as driver:
        _bind(driver, request)
        return driver.run(plan(driver.study, spec, planned_runs(trials, seeds)))


def _shared(options: VerdictOptions) -> Callable[[], Limits]:
    """Return a function that gives the next phase the time that is left for all together."""
    started = time.monotonic()

    def left() -> Limits:
        if options.timeout is None:
            return Limits(silence=options.silence)
        passed = time.monotonic() - started
        return Limits(sweep=max(0.0, options.timeout - passed), silence=options.silence)

    return left


def _text_of(request: VerdictRequest) -> DataConfig:
    """Return the sweep's text, pinned: other text is refused when it is prepared."""
    return read_config(_run_dir_of(request) / "config.json").data


def _run_dir_of(request: VerdictRequest) -> Path:
    """Return the run directory of one of the sweep's trials."""
    return Path(request.top_trials(request.arms[0])[0].user_attrs["run_dir"])


def _require_held_back(request: VerdictRequest) -> None:
    """Refuse before the first run a text that has no stories for the last."""
    spec = phase_spec(request.spec, CONFIRM)
    data_facts(prepare(_text_of(request)), spec)


def _bind(driver: Driver, request: VerdictRequest) -> None:
    """Bind a phase to its sweep: trials are matched by number, so a name is not enough.

    Raises:
        InputError: the phase was of a sweep that was deleted since.
    """
    mine = request.study.user_attrs["identity"]
    if driver.study.user_attrs.get("of", mine) == mine:
        driver.study.set_user_attr("of", mine)
        return
    raise InputError(
        f"study {driver.study.study_name!r} must belong to this sweep, but it is of a deleted one "
        f"of the same name; delete it too: optuna delete-study --study-name "
        f"{driver.study.study_name} --storage ..."
    )
