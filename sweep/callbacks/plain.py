"""One plain line for each event, for logs and pipes; or notices alone."""

import sys
from typing import TYPE_CHECKING, Any

from sweep.format import best_line, perplexity, settings

if TYPE_CHECKING:
    from gpt.events import Evaluation
from sweep.tuner.callback import Silent


class QuietProgress(Silent):
    """Shows notices on stderr, and nothing else."""

    def notice(self, text: str) -> None:
        """Prints it on stderr: quiet means no progress, not that a warning may be missed."""
        print(f"NOTICE: {text}", file=sys.stderr, flush=True)


class PlainProgress(Silent):
    """Prints one plain line per event on stdout, at once and without colour: for logs and pipes."""

    def __init__(self) -> None:
        self._max_steps: dict[int, int] = {}
        self._counted = ""  # what `counts` printed last

    def header(self, facts: dict[str, str]) -> None:
        """Prints one line per fact."""
        for name, value in facts.items():
            self._line(f"{name}: {value}")

    def notice(self, text: str) -> None:
        """Prints the notice between two rules."""
        rule = "=" * 80
        self._line(f"{rule}\nNOTICE: {text}\n{rule}")

    def message(self, text: str) -> None:
        """Prints the line."""
        self._line(text)

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Prints the trial's arm and parameters."""
        self._max_steps[number] = max_steps
        chosen = ", ".join(f"{name} {value}" for name, value in settings(params, arm).items())
        self._line(f"trial {number} started: {arm}, {chosen}, {max_steps} steps")

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Prints step, perplexity and speed."""
        self._line(
            f"trial {number} step {evaluation.step}/{self._max_steps.get(number, '?')}: "
            f"perplexity {perplexity(evaluation.perplexity)}, "
            f"{evaluation.tokens_per_second:,.0f} tokens/s"
        )

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Prints the outcome."""
        self._line(finished_line(number, arm, outcome, perplexity, reason))

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Prints how far the study is and the best per arm, where that is new."""
        line = f"{finished}/{total} trials finished"
        if best:
            line += f"; best: {best_line(best)}"
        if line != self._counted:
            self._counted = line
            self._line(line)

    @staticmethod
    def _line(text: str) -> None:
        print(text, flush=True)


def finished_line(
    number: int, arm: str, outcome: str, value: float | None, reason: str | None
) -> str:
    """A trial's end in one line: "trial 3 pruned (squentropy): perplexity 71.20 - the reason"."""
    shown = "" if value is None else f": perplexity {perplexity(value)}"
    return f"trial {number} {outcome} ({arm}){shown}" + (f" - {reason}" if reason else "")
