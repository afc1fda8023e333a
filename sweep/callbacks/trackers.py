"""Experiment trackers that mirror each trial. Add one by adding a file like these and an entry.

Each is a callback: it receives every evaluation that the tuner reads from a trial's events, so
training knows nothing of it. All of them get the complete configuration of a trial's run, every
metric of every evaluation, and at its end the last metrics, the outcome and its reason.

One that cannot start is refused before the first trial. One that fails later, such as a server that
goes away, is left out from then on: it may cost its curves, never the sweep.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from gpt.errors import InputError
from sweep.callbacks.mlflow import MLflow
from sweep.callbacks.tensorboard import TensorBoard
from sweep.callbacks.wandb import WeightsAndBiases
from sweep.tuner.callback import Callback, SweepEvent

TRACKERS: dict[str, type[TensorBoard] | type[WeightsAndBiases] | type[MLflow]] = {
    "tensorboard": TensorBoard,  # by the name of the package
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def make_trackers(
    names: Iterable[str], study: str, runs: Path, say: Callable[[str], None]
) -> list[Callback]:
    """Make the trackers of these names.

    Args:
        names: Keys of TRACKERS; one that comes twice counts once.
        study: Its name.
        runs: Where run directories go; trackers that write files write them there.
        say: Called with one line when a tracker fails.

    Raises:
        InputError: a name is not known, its library is not installed, or it cannot start.
    """
    trackers: list[Callback] = []
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise InputError(f"--track must be one of {', '.join(TRACKERS)}, but got {name!r}.")
        if find_spec(name) is None:
            raise InputError(
                f"--track {name} needs {name}, but it is not installed; "
                f"pip install 'squen-sweep[{name}]'"
            )
        try:
            tracker = TRACKERS[name](study, runs)
        except Exception as error:  # whatever a library raises
            raise InputError(
                f"--track {name} must start, but {_in_words(error)}; or leave it out."
            ) from None
        trackers.append(_NeverInTheWay(name, tracker, say))
    return trackers


class _NeverInTheWay(Callback):
    """A tracker until it fails, and then nothing."""

    def __init__(self, name: str, tracker: Callback, say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._tracker: Callback | None = tracker

    def __enter__(self) -> Self:
        self._call(lambda tracker: tracker.__enter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._call(lambda tracker: tracker.__exit__(*error))

    def on(self, event: SweepEvent) -> None:
        """Pass the event on."""
        self._call(lambda tracker: tracker.on(event))

    def _call(self, method: Callable[[Callback], object]) -> None:
        if self._tracker is None:
            return
        try:
            method(self._tracker)
        except Exception as error:  # whatever a library raises
            self._tracker = None
            self._say(f"--track {self._name} is left out from here on: {_in_words(error)}")


def _in_words(error: Exception) -> str:
    """Return the kind of an error and its first line: some libraries write a page."""
    first, _, _ = str(error).strip().partition("\n")
    return f"{type(error).__name__}: {first.rstrip('.')}"
