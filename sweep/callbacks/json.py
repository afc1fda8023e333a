"""A sweep as JSON lines on stdout, one object per event: for programs that follow it."""

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sweep.tuner.callback import Silent

if TYPE_CHECKING:
    from gpt.events import Evaluation


class JsonProgress(Silent):
    """Prints {"event": ..., ...} at once for whatever the driver tells."""

    def header(self, facts: dict[str, str]) -> None:
        """Prints the facts."""
        self._line("header", **facts)

    def notice(self, text: str) -> None:
        """Prints the notice."""
        self._line("notice", text=text)

    def message(self, text: str) -> None:
        """Prints the message."""
        self._line("message", text=text)

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Prints the trial's arm and parameters."""
        self._line("trial_started", trial=number, arm=arm, params=params, max_steps=max_steps)

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Prints every field of the evaluation."""
        self._line("evaluation", trial=number, **asdict(evaluation))

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Prints the outcome."""
        measured = {"outcome": outcome, "perplexity": perplexity, "reason": reason}
        self._line("trial_finished", trial=number, arm=arm, **measured)

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Prints how far the study is and the best per arm."""
        of_arm = {
            arm: {"trial": trial, "perplexity": value} for arm, (trial, value) in best.items()
        }
        self._line("counts", finished=finished, total=total, best=of_arm)

    @staticmethod
    def _line(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **_finite(fields)}, ensure_ascii=False), flush=True)


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity: null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
