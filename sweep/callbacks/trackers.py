"""Experiment trackers that mirror each trial. Add one by adding a file like these and an entry.

Each is a callback: it receives every evaluation that the tuner reads from a trial's events, so
training knows nothing of it. All of them get the complete configuration of a trial's run, every
metric of every evaluation, and at its end the last metrics, the outcome and its reason.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from gpt.errors import InputError
from sweep.callbacks.mlflow import MLflow
from sweep.callbacks.tensorboard import TensorBoard
from sweep.callbacks.wandb import WeightsAndBiases
from sweep.tuner.callback import Callback

TRACKERS: dict[str, type[TensorBoard] | type[WeightsAndBiases] | type[MLflow]] = {
    "tensorboard": TensorBoard,  # by the name of the package
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def make_trackers(names: Iterable[str], study: str, runs: Path) -> list[Callback]:
    """Make the trackers of these names.

    Args:
        names: Keys of TRACKERS; one that comes twice counts once.
        study: Its name.
        runs: Where run directories go; trackers that write files write them there.

    Raises:
        InputError: a name is not known, or its library is not installed.
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
        trackers.append(TRACKERS[name](study, runs))
    return trackers
