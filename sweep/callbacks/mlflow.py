"""MLflow: one run for each trial in the experiment of the study's name."""

from os import environ
from pathlib import Path
from time import time

from sweep.callbacks.metrics import flat, metrics_of
from sweep.storage.schema import study_attrs
from sweep.tuner.callback import (
    Callback,
    Evaluated,
    Opened,
    SweepEvent,
    TrialFinished,
    TrialStarted,
)


class MLflow(Callback):
    """Runs in MLFLOW_TRACKING_URI, by default the SQLite file mlflow.db beside the runs.

    See them with `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`.
    """

    def __init__(self, study: str, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        uri = environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        self._client = MlflowClient(uri)
        known = self._client.get_experiment_by_name(study)
        self._experiment = known.experiment_id if known else self._client.create_experiment(study)
        self._identity = ""  # of the study in its storage: its runs never mix with another's
        self._runs: dict[int, str] = {}

    def __exit__(self, *error: object) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")  # to be continued under the same run

    def on(self, event: SweepEvent) -> None:
        """Start a run or go on with the one that the trial had, log a step, or end the run."""
        match event:
            case Opened(study):
                self._identity = study_attrs(study).identity or ""
            case TrialStarted():
                self._start(event)
            case Evaluated(trial, evaluation, metric):
                self._log(self._runs[trial], metrics_of(evaluation, metric), evaluation.step)
            case TrialFinished():
                self._finish(event)

    def _start(self, event: TrialStarted) -> None:
        tags = {"trial": str(event.trial), "study": self._identity}
        same = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
        if found := self._client.search_runs([self._experiment], same):
            self._runs[event.trial] = found[0].info.run_id
            self._client.update_run(self._runs[event.trial], "RUNNING")
            return
        run = self._client.create_run(
            self._experiment, run_name=f"trial {event.trial}", tags=tags | {"arm": event.arm}
        )
        self._runs[event.trial] = run.info.run_id
        values = flat(event.config) | {"arm": event.arm} | event.params
        for name, value in values.items():
            self._client.log_param(run.info.run_id, name, value)

    def _finish(self, event: TrialFinished) -> None:
        run = self._runs.pop(event.trial)
        if event.perplexity is not None:
            self._log(run, {"result": event.perplexity}, step=0)
        self._client.set_tag(run, "outcome", event.outcome)
        if event.reason:
            self._client.set_tag(run, "reason", event.reason)
        self._client.set_terminated(run, "FAILED" if event.outcome == "failed" else "FINISHED")

    def _log(self, run: str, values: dict[str, float], step: int) -> None:
        """Log a step in one request."""
        from mlflow.entities import Metric

        now = int(1000 * time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(run, metrics)
