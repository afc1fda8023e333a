"""Experiment trackers that mirror each trial: TensorBoard, Weights & Biases, MLflow.

Each is a listener: it is told every evaluation that the driver reads from a trial's events, so
training knows nothing of it. Add one by adding a class and a TRACKERS entry.
"""

from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt.errors import InputError
from sweep.tuner.callback import Listener, Silent

if TYPE_CHECKING:
    from gpt.events import Evaluation


def metrics_of(evaluation: "Evaluation") -> dict[str, float]:
    """Every figure of an evaluation that was measured, by its name, without the step."""
    values = asdict(evaluation)
    del values["step"]
    return {name: float(value) for name, value in values.items() if value is not None}


class TensorBoard(Silent):
    """One event file per process of a trial: `tensorboard --logdir runs/STUDY/tensorboard`."""

    def __init__(self, study: str, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow, so not before it is asked for

        self._writer_in = SummaryWriter
        self._folder = folder / study / "tensorboard"
        self._writers: dict[int, Any] = {}
        self._params: dict[int, dict[str, Any]] = {}

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Opens the trial's folder, named by number and arm."""
        self._params[number] = params
        self._writers[number] = self._writer_in(str(self._folder / f"{number:04}-{arm}"))

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Adds a point to each curve."""
        for name, value in metrics_of(evaluation).items():
            self._writers[number].add_scalar(name, value, evaluation.step)

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Adds the row of the hparams table and closes the file."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._writers.pop(number)
        values = {"arm": arm, "outcome": outcome} | self._params.pop(number)
        result = {} if perplexity is None else {"result": perplexity}
        for summary in hparams(values, result):
            writer.file_writer.add_summary(summary)
        for name, value in result.items():
            writer.add_scalar(name, value)
        writer.close()


class WeightsAndBiases(Silent):
    """One run per trial in the project of the study's name, grouped by arm.

    WANDB_MODE=offline writes files that `wandb sync` uploads later. A continued trial goes on as
    the run that it was.
    """

    def __init__(self, study: str, folder: Path) -> None:
        self._study, self._folder = study, folder / study
        self._identity = ""  # of the study in its storage: its runs never mix with another's
        self._runs: dict[int, Any] = {}

    def __exit__(self, *error: object) -> None:
        for run in self._runs.values():
            run.finish()

    def opened(self, study: Any, storage: Any) -> None:
        """Notes which study it is."""
        self._identity = str(study.user_attrs.get("identity", ""))[:8]

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Starts or resumes a run beside those of the other slots."""
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._runs[number] = wandb.init(
            project=self._study,
            id="-".join(filter(None, [self._study, self._identity, str(number)])),
            resume="allow",
            name=f"trial {number}",
            group=arm,
            config={"arm": arm, "max_steps": max_steps} | params,
            dir=str(self._folder),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Logs a step."""
        self._runs[number].log(metrics_of(evaluation), step=evaluation.step)

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Writes the outcome into the run's summary and ends it."""
        run = self._runs.pop(number)
        run.summary.update({"outcome": outcome, "result": perplexity, "reason": reason})
        run.finish(exit_code=int(outcome == "failed"))


class MLflow(Silent):
    """One run per trial in the experiment of the study's name.

    In MLFLOW_TRACKING_URI, by default the SQLite file mlflow.db beside the runs:
    `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`.
    """

    def __init__(self, study: str, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        uri = environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        self._client = MlflowClient(uri)
        known = self._client.get_experiment_by_name(study)
        self._experiment = known.experiment_id if known else self._client.create_experiment(study)
        self._identity = ""
        self._runs: dict[int, str] = {}

    def __exit__(self, *error: object) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")  # to be continued under the same run

    def opened(self, study: Any, storage: Any) -> None:
        """Notes which study it is."""
        self._identity = str(study.user_attrs.get("identity", ""))

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Starts a run, or goes on with the one that the trial had."""
        tags = {"trial": str(number), "study": self._identity}
        same = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([self._experiment], same)
        if found:
            self._runs[number] = found[0].info.run_id
            self._client.update_run(self._runs[number], "RUNNING")
            return
        run = self._client.create_run(
            self._experiment, run_name=f"trial {number}", tags=tags | {"arm": arm}
        )
        self._runs[number] = run.info.run_id
        for name, value in {"arm": arm, **params}.items():
            self._client.log_param(run.info.run_id, name, value)

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Logs a step in one request."""
        from time import time

        from mlflow.entities import Metric

        now = int(1000 * time())
        values = metrics_of(evaluation).items()
        metrics = [Metric(name, value, now, evaluation.step) for name, value in values]
        self._client.log_batch(self._runs[number], metrics)

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Tags the outcome and ends the run."""
        run = self._runs.pop(number)
        self._client.set_tag(run, "outcome", outcome)
        self._client.set_terminated(run, "FAILED" if outcome == "failed" else "FINISHED")


def make_trackers(names: Iterable[str], study: str, runs: Path) -> list[Listener]:
    """The trackers of these names.

    Args:
        names: Keys of TRACKERS; one that comes twice counts once.
        study: Its name.
        runs: Where run directories go; trackers that write files write them there.

    Raises:
        InputError: a name is not known, or its library is not installed.
    """
    trackers: list[Listener] = []
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


TRACKERS: dict[str, type[TensorBoard] | type[WeightsAndBiases] | type[MLflow]] = {
    "tensorboard": TensorBoard,  # by the name of the package
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
