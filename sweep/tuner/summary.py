"""Facts of a sweep that are shown at its start and at its end."""

from dataclasses import dataclass

import optuna

from sweep.analysis import results
from sweep.study.metric import PERPLEXITY, Metric
from sweep.tuner.start import OpenStudy


@dataclass(frozen=True)
class Summary:
    """State of a study at the end of a call of `run`."""

    study: str
    finished: int
    total: int
    outcomes: dict[str, int]
    arms: list[str]  # that the study compares; one, where it compares nothing
    best: dict[str, tuple[int, float]]  # arm -> (trial number, perplexity or other metric)
    already_complete: bool
    signal: int | None  # that ended the call early
    late: bool  # the call's own time limit ended it early
    seconds: float
    metric: Metric = PERPLEXITY

    @property
    def interrupted(self) -> bool:
        """True if a signal or the time limit ended the call before the total was reached."""
        return self.signal is not None or self.late


def summary_of(
    study: optuna.Study,
    total: int,
    seconds: float,
    already_complete: bool,
    signals: list[int],
    late: bool,
) -> Summary:
    """The summary of a call that has ended.

    Args:
        study: As the call leaves it.
        total: Trials that were asked for.
        seconds: That the call took.
        already_complete: Whether there was nothing to do.
        signals: Received by the call, in their order.
        late: Whether its time was up.
    """
    trials = study.get_trials(deepcopy=False)
    outcomes = [results.outcome_of(t) for t in trials if t.state.is_finished()]
    short = len(outcomes) < total
    return Summary(
        study=study.study_name,
        finished=len(outcomes),
        total=total,
        outcomes={outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        arms=results.arms(study),
        best=results.best_by_arm(study),
        already_complete=already_complete,
        signal=signals[0] if signals and short else None,
        late=late and short,
        seconds=seconds,
        metric=results.metric_of_study(study),
    )


def header(opened: OpenStudy, storage: str) -> dict[str, str]:
    """Describe study, data, slots and storage, as a sweep shows them at its start."""
    spec, slots = opened.spec, opened.slots
    devices = ", ".join(sorted({slot.device for slot in slots}))
    open_ = "dtype" in spec.search or spec.trainer is not None
    dtype = "" if open_ else f", {spec.base('dtype')}"
    return {
        "study": spec.name,
        "program" if spec.trainer else "data": opened.facts.description,
        "slots": f"{len(slots)} on {devices}, {slots[0].threads} CPU thread(s) each{dtype}",
        "storage": storage,
    }
