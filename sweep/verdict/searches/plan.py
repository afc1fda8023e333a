"""Plan of a verdict over searches: the sweep is search 1, the others are studies beside it.

    <study>              search 1: the sweep, with its own .screening and .confirm
    <study>.search-2     the same study file, budget and text, with another sampler seed and seed

Within a search the arms share Sobol points and seeds; no two searches share any.
"""

import optuna

from gpt.errors import InputError
from sweep.analysis import results
from sweep.storage.schema import study_attrs
from sweep.study.spec import StudySpec
from sweep.verdict.request import VerdictRequest

MOST_SEARCHES = 50  # as in VerdictSpec.searches
SEED_STEP = 10_000  # between two searches: above the seeds of all phases of one


def search_ending(number: int) -> str:
    """Return the last part of the name of a search's study."""
    return f"search-{number}"


def search_spec(spec: StudySpec, number: int) -> StudySpec:
    """Return the study of the nth search, from 2 on: the same, drawn and trained by other luck."""
    seed = spec.seed + SEED_STEP * (number - 1)
    sampler = spec.sampler.model_copy(update={"seed": spec.sampler.seed + number - 1})
    changes: dict[str, object] = {"sampler": sampler}
    if spec.trainer is None:
        changes["train"] = spec.train | {"seed": seed}
    else:
        changes["trainer"] = spec.trainer.model_copy(update={"seed": seed})
    return spec.model_copy(update=changes)


def check_searches(request: VerdictRequest, asked: int | None) -> int:
    """Return the number of searches, by default the study's.

    Raises:
        InputError: it is out of range, or the sweep, whose budget all are to have, is not finished.
    """
    count = request.spec.verdict.searches if asked is None else asked
    if not 1 <= count <= MOST_SEARCHES:
        raise InputError(f"--searches must be from 1 to {MOST_SEARCHES}, but got {count}.")
    if count > 1:
        finished, total = progress(request.study)
        if finished < total:
            raise InputError(
                f"study {request.study.study_name!r} must be finished before its search is "
                f"repeated with the same budget, but {finished} of {total} trials are; run it to "
                f"its end first."
            )
    return count


def progress(study: optuna.Study) -> tuple[int, int]:
    """Return the numbers of a study's finished trials and of those that were asked for."""
    trials = study.get_trials(deepcopy=False)
    finished = sum(results.outcome_of(trial) not in results.UNFINISHED for trial in trials)
    return finished, study_attrs(study).n_trials or len(trials)
