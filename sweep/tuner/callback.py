"""What a sweep shows while it runs. Knows nothing of how trials are chosen, trained or stored.

The driver calls a Listener from its own loop, so a method must return at once. The display that a
terminal gets is in sweep.callbacks.live. Add one by adding a class with Listener's methods, and its
choice to sweep.callbacks.live.make_listener.
"""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

    from gpt.events import Evaluation


class Listener(Protocol):
    """Told by the driver what happens in a sweep; a context manager around all of it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def opened(self, study: "optuna.Study", storage: "RDBStorage") -> None:
        """The study is there to be written to, by the driver's thread alone."""

    def header(self, facts: dict[str, str]) -> None:
        """Shows study, data, device, slots and storage, once at the start."""

    def notice(self, text: str) -> None:
        """Shows what must not be missed, such as results that are not on the usual data."""

    def message(self, text: str) -> None:
        """Shows one line, such as "tokenising ..."."""

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """A trial has a slot and trains."""

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """A running trial was evaluated."""

    def trial_ending(self, trial: "optuna.Trial", outcome: str, perplexity: float | None) -> None:
        """A trial has its outcome but is not told yet: the last moment for its attributes."""

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """A trial has its outcome and leaves its slot."""

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Trials finished in the whole study, of how many; per arm the best (trial, perplexity).

        Freed slots train again by then, so this alone may take its time.
        """


class Silent:
    """Shows nothing: for listeners that care for a few of the events."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def opened(self, study: "optuna.Study", storage: "RDBStorage") -> None:
        """Does nothing."""

    def header(self, facts: dict[str, str]) -> None:
        """Shows nothing."""

    def notice(self, text: str) -> None:
        """Shows nothing."""

    def message(self, text: str) -> None:
        """Shows nothing."""

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Shows nothing."""

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Shows nothing."""

    def trial_ending(self, trial: "optuna.Trial", outcome: str, perplexity: float | None) -> None:
        """Does nothing."""

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Shows nothing."""

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Shows nothing."""


class Several(Silent):
    """Tells several listeners the same, in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        for listener in self._listeners:
            self._entered.enter_context(listener)
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def opened(self, study: "optuna.Study", storage: "RDBStorage") -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.opened(study, storage)

    def header(self, facts: dict[str, str]) -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.header(facts)

    def notice(self, text: str) -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.notice(text)

    def message(self, text: str) -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.message(text)

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.trial_started(number, arm, params, max_steps)

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.evaluation(number, evaluation)

    def trial_ending(self, trial: "optuna.Trial", outcome: str, perplexity: float | None) -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.trial_ending(trial, outcome, perplexity)

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.trial_finished(number, arm, outcome, perplexity, reason)

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Tells all."""
        for listener in self._listeners:
            listener.counts(finished, total, best)
