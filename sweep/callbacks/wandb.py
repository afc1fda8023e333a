"""Weights & Biases: one run for each trial in the project of the study's name, grouped by arm."""

from os import environ
from pathlib import Path
from typing import Any

from sweep.callbacks.metrics import metrics_of
from sweep.storage.schema import study_attrs
from sweep.tuner.callback import (
    Callback,
    Evaluated,
    Opened,
    SweepEvent,
    TrialFinished,
    TrialStarted,
)


class WeightsAndBiases(Callback):
    """Runs that go on when their trial is continued.

    WANDB_MODE=offline writes files that `wandb sync` uploads later. W&B's system panel is off: it
    would measure the tuner's process, not the trial's.
    """

    def __init__(self, study: str, folder: Path) -> None:
        if environ.get("WANDB_MODE", "online") == "online":
            import wandb

            wandb.login()  # here, and not when trials train already
        self._study, self._folder = study, folder / study
        self._identity = ""  # of the study in its storage: its runs never mix with another's
        self._runs: dict[int, Any] = {}
        self._latest: dict[int, dict[str, float]] = {}  # figures by name

    def __exit__(self, *error: object) -> None:
        for run in self._runs.values():
            run.finish()

    def on(self, event: SweepEvent) -> None:
        """Start or resume a run beside those of the other slots, log a step, or end the run."""
        match event:
            case Opened(study):
                self._identity = (study_attrs(study).identity or "")[:8]
            case TrialStarted():
                self._start(event)
            case Evaluated(trial, evaluation, metric):
                self._latest[trial] = metrics_of(evaluation, metric)
                self._runs[trial].log(self._latest[trial], step=evaluation.step)
            case TrialFinished():
                run = self._runs.pop(event.trial)
                result = {"result": event.perplexity, "reason": event.reason}
                last = self._latest.pop(event.trial, {})
                run.summary.update(last | {"outcome": event.outcome} | result)
                run.finish(exit_code=int(event.outcome == "failed"))

    def _start(self, event: TrialStarted) -> None:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._runs[event.trial] = wandb.init(
            project=self._study,
            id="-".join(filter(None, [self._study, self._identity, str(event.trial)])),
            resume="allow",
            name=f"trial {event.trial}",
            group=event.arm,
            config=event.config | {"arm": event.arm} | event.params,
            dir=str(self._folder),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )
