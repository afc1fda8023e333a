"""TensorBoard: `tensorboard --logdir runs/STUDY/tensorboard`."""

from pathlib import Path
from typing import Any

from sweep.callbacks.metrics import flat, metrics_of
from sweep.tuner.callback import Callback, Evaluated, SweepEvent, TrialFinished, TrialStarted


class TensorBoard(Callback):
    """One event file for each process of a trial, in a folder named by its number and arm."""

    def __init__(self, study: str, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow, so not before it is asked for

        self._new_writer = SummaryWriter
        self._folder = folder / study / "tensorboard"
        self._writers: dict[int, Any] = {}
        self._configs: dict[int, dict[str, Any]] = {}
        self._latest: dict[int, dict[str, float]] = {}  # figures by name

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def on(self, event: SweepEvent) -> None:
        """Open the trial's file, add a point to each curve, or end it with its row of hparams."""
        match event:
            case TrialStarted(trial, arm, params, _, config):
                self._configs[trial] = flat(config) | {"arm": arm} | params
                self._writers[trial] = self._new_writer(str(self._folder / f"{trial:04}-{arm}"))
            case Evaluated(trial, evaluation, metric):
                self._latest[trial] = metrics_of(evaluation, metric)
                for name, value in self._latest[trial].items():
                    self._writers[trial].add_scalar(name, value, evaluation.step)
            case TrialFinished():
                self._finish(event)

    def _finish(self, event: TrialFinished) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self._writers.pop(event.trial)
        config = self._configs.pop(event.trial)
        kinds = (str, int, float, bool)
        values = {name: value for name, value in config.items() if isinstance(value, kinds)}
        values |= {"outcome": event.outcome, "reason": event.reason or ""}
        result = {} if event.perplexity is None else {"result": event.perplexity}
        last = self._latest.pop(event.trial, {})
        for summary in hparams(values, result | {f"final/{k}": v for k, v in last.items()}):
            writer.file_writer.add_summary(summary)
        for name, value in result.items():
            writer.add_scalar(name, value)
        writer.close()
