"""A trial in its slot, as the tuner sees it while its process runs."""

from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import Trial

from gpt.errors import BusyError, StorageError
from gpt.events import Event
from gpt.system.files import disk_error
from sweep.backends.base import Job, Status
from sweep.study.format import duration
from sweep.trainers.base import RunFacts
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
    looked_at: float = field(init=False)  # when the backend was asked about it last
    offset: int = 0  # bytes of events that have been read
    last: tuple[int, float] | None = None  # step and metric of the last evaluation
    last_event: Event | None = None  # `done`, `stopped` or `error`, of the present process
    intent: Intent = Intent.TRAIN
    stop_requested_at: float | None = None
    timeout_reason: str | None = None  # the limit of a trial that it is over
    hang_reason: str | None = None  # how long it had been silent when it was killed
    crashes: list[int] = field(default_factory=list)  # the last step known at each crash
    furthest: int = 0  # step that it is known to have reached when a process of it ended
    in_vain: int = 0  # processes in a row that others ended before they brought it further
    signals_sent: int = 0  # signals of the user that have been passed on
    heard: bool = False  # of the present process
    trained: bool = False  # the present process, for seconds at least
    lost: str | None = None  # how the present process was, with what it had trained
    batch_halved: bool = False  # after it ran out of memory
    elsewhere: str | None = None  # why another machine's disk cannot be written

    def __post_init__(self) -> None:
        """Begin to look when it starts."""
        self.looked_at = self.started_at

    @property
    def run_dir(self) -> Path:
        """Run directory; the backend knows the job by it."""
        return self.job.run_dir

    @property
    def last_step(self) -> int:
        """Step of the last evaluation, 0 before the first."""
        return self.last[0] if self.last else 0

    @property
    def has_ended(self) -> bool:
        """True once it said that it is done, or why it cannot be."""
        return self.last_event is not None and self.last_event["event"] != "stopped"

    def restarted(self, now: float) -> None:
        """Note that a new process continues it."""
        self.last_event = self.stop_requested_at = self.hang_reason = self.lost = None
        self.intent = Intent.TRAIN
        self.signals_sent = 0
        self.heard = self.trained = False
        self.last_event_at = now

    def looked(self, now: float, waits: bool) -> None:
        """Note the time of a look; what passed since the last counts unless its process waits."""
        if waits:
            self.started_at += now - self.looked_at
            self.last_event_at = now
        self.looked_at = now

    def believe(self, status: Status) -> None:
        """Let a backend say how a process ended that could not say so itself.

        One whose machine went away is no fault of the trial, unless it never got as far as a word.
        """
        if self.last_event is not None or status.cause is None:
            return
        if status.cause == "lost" and self.heard:
            self.last_event = {"event": "stopped", "step": self.last_step}
            self.lost = status.words or "was lost"
            return
        outcome = "crashed" if status.cause == "lost" else status.cause
        end = {"event": "error", "outcome": outcome, "step": self.last_step}
        self.last_event = {**end, "message": status.words}
        self.elsewhere = status.words if status.cause == "disk" else None

    def count_in_vain(self, exit_code: int | None) -> int:
        """Count a process that others ended; return how many in a row were in vain.

        One was not if it brought the trial to a later step, or if it trained for a while and ended
        by itself: some programs save what they report only at their end. Nor is one counted that
        found another trainer in its directory.
        """
        step = max(self.last_step, (self.last_event or {}).get("step", 0))
        if step > self.furthest or (self.trained and self.lost is None):
            self.in_vain = 0
        elif exit_code != BusyError.exit_code:
            self.in_vain += 1
        self.furthest = max(step, self.furthest)
        return self.in_vain

    def ending(self, exit_code: int | None) -> Ending:
        """Read what its process left behind."""
        ending = ending_of(self.last_event, exit_code)
        if ending is Ending.DONE and self.last is None:
            return Ending.CRASHED  # nothing was measured
        return ending

    def in_vain_reason(self) -> str:
        """Say why a trial is not continued that others ended again and again."""
        return (
            f"was ended {self.in_vain} times in a row at step {self.furthest}, before its next "
            f"checkpoint (the last time it {self.lost or 'was asked to end'}): its machine or its "
            f"job must last until then; evaluate more often (eval_interval), or give it longer"
        )

    def exit(self, exit_code: int | None) -> Exit:
        """Decide what becomes of it, now that its process has ended."""
        return exit_of(self.intent, self.ending(exit_code))

    def disk_error(self) -> StorageError:
        """Make the error of the disk that is full, this machine's or another's."""
        if self.elsewhere is None:
            return disk_error(self.run_dir, (self.last_event or {}).get("message"))
        return StorageError(f"{self.elsewhere}; make space there and run the same command again.")

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
