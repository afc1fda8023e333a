"""One plain line for each event, for logs and pipes; or notices alone."""

import sys
from typing import Any

from sweep.format import best_line, perplexity, settings
from sweep.tuner.callback import (
    Callback,
    Counts,
    Evaluated,
    Header,
    Message,
    Notice,
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
        self._max_steps: dict[int, int] = {}
        self._counted = ""  # the last line of counts

    def on(self, event: SweepEvent) -> None:
        """Print the event."""
        match event:
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
                chosen = (f"{name} {value}" for name, value in settings(params, arm).items())
                _print(f"trial {trial} started: {arm}, {', '.join(chosen)}, {max_steps} steps")
            case Evaluated(trial, evaluation):
                _print(
                    f"trial {trial} step {evaluation.step}/{self._max_steps.get(trial, '?')}: "
                    f"perplexity {perplexity(evaluation.perplexity)}, "
                    f"{evaluation.tokens_per_second:,.0f} tokens/s"
                )
            case TrialFinished():
                _print(finished_line(event))
            case Counts(finished, total, best):
                line = f"{finished}/{total} trials finished"
                line += f"; best: {best_line(best)}" if best else ""
                if line != self._counted:
                    self._counted = line
                    _print(line)


def finished_line(event: TrialFinished) -> str:
    """A trial's end in one line: "trial 3 pruned (squentropy): perplexity 71.20 - the reason"."""
    shown = "" if event.perplexity is None else f": perplexity {perplexity(event.perplexity)}"
    reason = f" - {event.reason}" if event.reason else ""
    return f"trial {event.trial} {event.outcome} ({event.arm}){shown}{reason}"


def _print(text: Any) -> None:
    print(text, flush=True)
