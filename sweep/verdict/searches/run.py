"""Run further searches of a sweep's arms with its tuner, and confirm the winner of each."""

from dataclasses import replace

from optuna.storages import RDBStorage

from sweep.analysis import results
from sweep.analysis.phases import name_of_phase
from sweep.storage.rdb import located_spec
from sweep.storage.reader import load_study
from sweep.tuner.summary import Summary
from sweep.verdict.confirm_runs import MakeCallback, TimeLeft, run_beside, run_phases
from sweep.verdict.request import VerdictRequest
from sweep.verdict.searches.plan import progress, search_ending, search_spec


def run_searches(
    request: VerdictRequest,
    storage: RDBStorage,
    options: TimeLeft,
    make_callback: MakeCallback,
    searches: int,
) -> Summary | None:
    """Bring the 2nd to the last search to the sweep's total of trials, and confirm their winners.

    Those that are complete are not repeated.

    Returns:
        The summary of what was interrupted; None where everything is there.

    Raises:
        InputError: an arm has no complete trial in a search, or sweep.tuner.run.run refuses.
    """
    _, total = progress(request.study)
    for number in range(2, searches + 1):
        summary = run_beside(
            request,
            storage,
            options(),
            make_callback,
            search_ending(number),
            search_spec(request.spec, number),
            plan_all=lambda study, spec: total,
        )
        if summary.interrupted:
            return summary
        summary = run_phases(
            request_of(request, storage, number), storage, options(), make_callback
        )
        if summary.interrupted:
            return summary
    return None


def request_of(request: VerdictRequest, storage: RDBStorage, number: int) -> VerdictRequest:
    """Return the request that judges the winners of the nth search; 1 is the sweep's own.

    Raises:
        InputError: an arm has no complete trial in that search.
    """
    if number == 1:
        return request
    study = load_study(storage, name_of_phase(storage, request.study, search_ending(number)))
    for arm in request.arms:
        results.best_trial(study, arm)  # raises where the arm has none
    return replace(request, study=study, spec=located_spec(study))
