"""Events of a sweep as objects, and the base class of those that show or record them.

The tuner calls `Callback.on` from its own loop, so it must return at once. Add a display or a
tracker by adding a subclass to sweep/callbacks that handles the events it cares for:

    def on(self, event: SweepEvent) -> None:
        match event:
            case Evaluated(trial, evaluation):
                ...
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sweep.study.metric import PERPLEXITY, Metric

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

    from gpt.events import Evaluation


@dataclass(frozen=True)
class Opened:
    """The study is there to be written to, by the tuner's thread alone."""

    study: "optuna.Study"
    storage: "RDBStorage"
    metric: Metric = PERPLEXITY


@dataclass(frozen=True)
class Header:
    """Study, data, device, slots and storage, once at the start."""

    facts: dict[str, str]


@dataclass(frozen=True)
class Notice:
    """A text that must not be missed, such as that results are not on the usual data."""

    text: str


@dataclass(frozen=True)
class Message:
    """One line, such as "tokenising ..."."""

    text: str


@dataclass(frozen=True)
class TrialStarted:
    """A trial has a slot and trains."""

    trial: int
    arm: str
    params: dict[str, Any]
    max_steps: int | None  # None: not known
    config: dict[str, Any]  # the complete configuration of its run, flat, for trackers


@dataclass(frozen=True)
class Evaluated:
    """A running trial was evaluated."""

    trial: int
    evaluation: "Evaluation"
    metric: Metric = PERPLEXITY  # the figure in its field `perplexity`


@dataclass(frozen=True)
class TrialEnding:
    """A trial has its outcome but is not finished yet: the last moment for its attributes."""

    trial: "optuna.Trial"
    run_dir: Path
    outcome: str
    perplexity: float | None


@dataclass(frozen=True)
class TrialFinished:
    """A trial has its outcome and leaves its slot."""

    trial: int
    arm: str
    outcome: str  # one of sweep.analysis.results.OUTCOMES
    perplexity: float | None
    reason: str | None


@dataclass(frozen=True)
class Counts:
    """Trials finished in the whole study, and how many there are to be.

    Freed slots train again by then, so a callback may take its time over this event alone.
    """

    finished: int
    total: int
    best: dict[str, tuple[int, float]]  # arm -> (trial, perplexity)


SweepEvent = (
    Opened
    | Header
    | Notice
    | Message
    | TrialStarted
    | Evaluated
    | TrialEnding
    | TrialFinished
    | Counts
)


class Callback:
    """Receives the events of a sweep, and is a context manager around all of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def on(self, event: SweepEvent) -> None:
        """Handle one event; the base handles none."""


class CallbackList(Callback):
    """Several callbacks, called in their order."""

    def __init__(self, *callbacks: Callback) -> None:
        self._callbacks = callbacks
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        for callback in self._callbacks:
            self._entered.enter_context(callback)
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def on(self, event: SweepEvent) -> None:
        """Call each with the event."""
        for callback in self._callbacks:
            callback.on(event)
