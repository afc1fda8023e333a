"""JSON lines on stdout, one object for each event: for programs that follow a sweep."""

import json
from dataclasses import asdict
from typing import Any

from sweep.study.format import json_values
from sweep.study.metric import PERPLEXITY
from sweep.tuner.callback import (
    Callback,
    Counts,
    Evaluated,
    Header,
    Message,
    Notice,
    Opened,
    SweepEvent,
    TrialFinished,
    TrialStarted,
)


class JsonProgress(Callback):
    """Prints {"event": ..., ...} at once."""

    def __init__(self) -> None:
        self._metric = PERPLEXITY

    def on(self, event: SweepEvent) -> None:
        """Print the event."""
        match event:
            case Header(facts):
                _print("header", **facts)
            case Notice(text):
                _print("notice", text=text)
            case Message(text):
                _print("message", text=text)
            case TrialStarted(trial, arm, params, max_steps):
                _print("trial_started", trial=trial, arm=arm, params=params, max_steps=max_steps)
            case Opened(metric=metric):
                self._metric = metric
            case Evaluated(trial, evaluation):
                _print("evaluation", trial=trial, **self._named(asdict(evaluation)))
            case TrialFinished():
                _print("trial_finished", **self._named(asdict(event)))
            case Counts(finished, total, best):
                of_arm = {
                    arm: {"trial": trial, self._metric.name: value}
                    for arm, (trial, value) in best.items()
                }
                _print("counts", finished=finished, total=total, best=of_arm)

    def _named(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Give the study's metric its name."""
        value = fields.pop("perplexity")  # its name may be that of another field
        return {**fields, self._metric.name: value}


def _print(event: str, **fields: Any) -> None:
    line = json_values({"event": event, **fields})
    print(json.dumps(line, ensure_ascii=False), flush=True)
