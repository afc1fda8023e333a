"""One plain line for each event, for logs and pipes; or notices alone."""

import math
import sys
from typing import Any

from sweep.study.format import best_line, settings
from sweep.study.metric import PERPLEXITY, Metric
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


class QuietProgress(Callback):
    """Prints notices on stderr, and nothing else: quiet means no progress, not that a warning may
    be missed.
    """

    def on(self, event: SweepEvent) -> None:
        """Print a notice."""
        if isinstance(event, Notice):
            print(f"NOTICE: {event.text}", file=sys.stderr, flush=True)


class PlainProgress(Callback):
    """Prints lines on stdout, at once and without colour."""

    def __init__(self) -> None:
        self._max_steps: dict[int, int | None] = {}
        self._counted = ""  # the last line of counts
        self._metric = PERPLEXITY

    def on(self, event: SweepEvent) -> None:
        """Print the event."""
        match event:
            case Opened(metric=metric):
                self._metric = metric
            case Header(facts):
                for name, value in facts.items():
                    _print(f"{name}: {value}")
            case Notice(text):
                rule = "=" * 80
                _print(f"{rule}\nNOTICE: {text}\n{rule}")
            case Message(text):
                _print(text)
            case TrialStarted(trial=trial, arm=arm, params=params, max_steps=max_steps):
                self._max_steps[trial] = max_steps
                chosen = [f"{name} {value}" for name, value in settings(params, arm).items()]
                chosen += [f"{max_steps} steps"] if max_steps else []
                _print(f"trial {trial} started: {', '.join([arm, *chosen])}")
            case Evaluated(trial, evaluation):
                speed = evaluation.tokens_per_second
                shown = self._metric.shown(evaluation.perplexity)
                _print(
                    f"trial {trial} step {evaluation.step}/{self._max_steps.get(trial) or '?'}: "
                    f"{self._metric.name} {shown}"
                    + ("" if math.isnan(speed) else f", {speed:,.0f} tokens/s")
                )
            case TrialFinished():
                _print(finished_line(event, self._metric))
            case Counts(finished, total, best):
                line = f"{finished}/{total} trials finished"
                line += f"; best: {best_line(best, self._metric.shown)}" if best else ""
                if line != self._counted:
                    self._counted = line
                    _print(line)


def finished_line(event: TrialFinished, metric: Metric = PERPLEXITY) -> str:
    """A trial's end in one line: "trial 3 pruned (squentropy): perplexity 71.20 - the reason"."""
    value = event.perplexity
    shown = "" if value is None else f": {metric.name} {metric.shown(value)}"
    reason = f" - {event.reason}" if event.reason else ""
    return f"trial {event.trial} {event.outcome} ({event.arm}){shown}{reason}"


def _print(text: Any) -> None:
    print(text, flush=True)
