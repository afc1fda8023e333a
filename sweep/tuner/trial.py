"""A trial in its slot, as the tuner sees it while its process runs."""

from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import Trial

from gpt.events import Event
from sweep.backends import Job
from sweep.format import duration
from sweep.trainers import RunFacts
from sweep.tuner.exits import Ending, Exit, Intent, ending_of, exit_of
from sweep.tuner.limits import GRACE_SECONDS, Limits, is_over


@dataclass
class TrialRun:
    """A trial in its slot, and its process. Times are seconds of the tuner's clock."""

    trial: Trial
    arm: str
    job: Job
    facts: RunFacts
    started_at: float
    last_event_at: float
    offset: int = 0  # bytes of events that have been read
    last: tuple[int, float] | None = None  # step and metric of the last evaluation
    last_event: Event | None = None  # `done`, `stopped` or `error`, of the present process
    intent: Intent = Intent.TRAIN
    stop_requested_at: float | None = None
    timeout_reason: str | None = None  # the limit of a trial that it is over
    hang_reason: str | None = None  # how long it had been silent when it was killed
    crashes: list[int] = field(default_factory=list)  # the last step known at each crash
    signals_sent: int = 0  # signals of the user that have been passed on
    batch_halved: bool = False  # after it ran out of memory

    @property
    def run_dir(self) -> Path:
        """Run directory; the backend knows the job by it."""
        return self.job.run_dir

    @property
    def last_step(self) -> int:
        """Step of the last evaluation, 0 before the first."""
        return self.last[0] if self.last else 0

    def restarted(self, now: float) -> None:
        """Note that a new process continues it."""
        self.last_event = self.stop_requested_at = self.hang_reason = None
        self.intent = Intent.TRAIN
        self.signals_sent = 0
        self.last_event_at = now

    def ending(self, exit_code: int | None) -> Ending:
        """Read what its process left behind."""
        ending = ending_of(self.last_event, exit_code)
        if ending is Ending.DONE and self.last is None:
            return Ending.CRASHED  # nothing was measured
        return ending

    def exit(self, exit_code: int | None) -> Exit:
        """Decide what becomes of it, now that its process has ended."""
        return exit_of(self.intent, self.ending(exit_code))

    def exit_reason(self, exit_code: int | None) -> str:
        """Say in words how its process ended."""
        if self.hang_reason:
            return self.hang_reason
        if message := (self.last_event or {}).get("message"):
            return str(message)
        if exit_code is None:
            return "exited with unknown status"
        if exit_code < 0:
            return f"was killed by signal {-exit_code}"
        return f"ended with exit code {exit_code}"


def is_overdue(run: TrialRun, limits: Limits, now: float) -> bool:
    """Return whether it trains for longer than it may, and note the reason."""
    if run.stop_requested_at is None and is_over(limits.trial, now - run.started_at):
        run.timeout_reason = f"took longer than {duration(limits.trial)}"
        return True
    return False


def must_be_killed(run: TrialRun, limits: Limits, now: float) -> bool:
    """Return whether it hangs or ignored a request to stop; read its events just before."""
    if is_over(limits.silence, now - run.last_event_at):
        run.hang_reason = f"said nothing for {duration(limits.silence)}"
        return True
    return run.stop_requested_at is not None and now - run.stop_requested_at > GRACE_SECONDS
