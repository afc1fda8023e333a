"""How a trial's end is written to the study: once, with its outcome and its reason."""

from pathlib import Path

import optuna
from optuna.trial import TrialState

from gpt import checkpoint
from gpt.errors import TrialsFailedError
from sweep.tuner.callback import Listener
from sweep.tuner.trial import Running

MAX_FAILURES = 3  # trials that fail one after another, until the sweep gives up


class Teller:
    """Tells trials, and counts those that fail."""

    def __init__(self, study: optuna.Study, listener: Listener) -> None:
        self.study = study
        self.listener = listener
        self.failures: list[str] = []  # in a row, until now

    def tell(
        self,
        running: Running,
        state: TrialState,
        outcome: str,
        value: float | None,
        reason: str | None,
    ) -> None:
        """End a trial whose process has ended."""
        trial = running.trial
        checkpoint.tidy(running.run_dir)
        trial.set_user_attr("outcome", outcome)  # attributes first: a told trial takes none
        if reason:
            trial.set_user_attr("reason", reason)
        if outcome == "failed":
            self.failures.append(f"trial {trial.number} {reason}")
        else:
            self.failures.clear()
        self.listener.trial_ending(trial, outcome, value)
        complete = state == TrialState.COMPLETE
        self.study.tell(trial, value if complete else None, state=state)
        self.listener.trial_finished(trial.number, running.arm, outcome, value, reason)

    def tell_worst(self, running: Running, outcome: str, step: int, reason: str) -> None:
        """As PRUNED with the worst perplexity there is: samplers learn from it, never from FAIL."""
        worst = float(running.config.vocab_size)
        running.trial.report(worst, max(step, (running.last or (0, 0.0))[0] + 1))
        self.tell(running, TrialState.PRUNED, outcome, worst, reason)

    def capped(self, perplexity: float) -> float:
        """Guessing uniformly has perplexity V: anything above, infinity too, counts as that."""
        return min(perplexity, float(self.study.user_attrs["data"]["vocab_size"]))

    def give_up_if_everything_fails(self, folder: Path) -> None:
        """A missing library fails every trial: better stop than use them all up.

        Raises:
            TrialsFailedError: the last trials did, and their logs in `folder` say why.
        """
        if len(self.failures) >= MAX_FAILURES:
            raise TrialsFailedError(
                f"trials must not fail one after another, but the last {MAX_FAILURES} did: "
                f"{self.failures[-1]} (see log.txt in {folder}); "
                f"mend it and run the same command again."
            )
