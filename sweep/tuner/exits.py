"""The end of a trial's process: one pure function, and the words that are stored for it.

`exit_of` combines two facts that do not depend on each other: what the tuner wanted of the trial
(`Intent`), and what the process left behind (`Ending`). Every combination is an entry of a table.
"""

import signal
from enum import StrEnum

from gpt.errors import BusyError, StorageError
from gpt.events import Event

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # signals that ask a process to end


class Intent(StrEnum):
    """Reason for which the tuner let a trial train, or asked it to stop."""

    TRAIN = "train"  # to go on to its last step
    PRUNE = "prune"  # it was hopeless
    TIMEOUT = "timeout"  # it was over its limit of time
    STOP = "stop"  # the sweep is stopping; the next call continues it


class Ending(StrEnum):
    """End of a process by its last event, or else by its exit code."""

    DONE = "done"
    STOPPED = "stopped"  # at a checkpoint, because somebody asked, or another process trains it
    DIVERGED = "diverged"
    OOM = "oom"
    DISK = "disk"
    UNUSABLE = "unusable"  # a program that ended well and reported nothing: the next try would, too
    CRASHED = "crashed"


class Exit(StrEnum):
    """Consequence for the trial; the tuner has a handler for each."""

    DONE = "done"  # complete
    PRUNED = "pruned"
    DIVERGED = "diverged"
    OOM = "oom"  # again with half the micro-batch, once
    TIMEOUT = "timeout"
    DISK = "disk"  # the sweep stops
    STOPPED = "stopped"  # it is continued, by this call or the next
    UNUSABLE = "unusable"  # it fails at once
    CRASHED = "crashed"  # again, unless it crashed at this step before


def last_end(events: list[Event]) -> Event | None:
    """Return the last event, if it says how a process ended."""
    return events[-1] if events and events[-1]["event"] in ("done", "stopped", "error") else None


def ending_of(event: Event | None, exit_code: int | None) -> Ending:
    """Read what a process left behind.

    Args:
        event: Its last `done`, `stopped` or `error` event; None: it wrote none.
        exit_code: Negative if a signal killed it; None where nobody can know.
    """
    if event is not None:
        named = event.get("outcome") if event["event"] == "error" else event["event"]
        if named in set(Ending):
            return Ending(named)
    if exit_code == StorageError.exit_code:
        return Ending.DISK
    if exit_code == BusyError.exit_code or (exit_code is not None and -exit_code in ASKING):
        return Ending.STOPPED
    return Ending.CRASHED


def exit_of(intent: Intent, ending: Ending) -> Exit:
    """Decide what becomes of a trial whose process has ended."""
    return _EXITS[intent][ending]


# What happened to the training itself counts whatever was wanted, but a trial that was to be pruned
# has its figures already. A crash while the sweep stops is no fault of the trial.
_AS_IT_ENDED = {ending: Exit(ending) for ending in Ending}
_EXITS: dict[Intent, dict[Ending, Exit]] = {
    Intent.TRAIN: _AS_IT_ENDED,
    Intent.PRUNE: dict.fromkeys(Ending, Exit.PRUNED),
    Intent.TIMEOUT: _AS_IT_ENDED | {Ending.STOPPED: Exit.TIMEOUT, Ending.CRASHED: Exit.TIMEOUT},
    Intent.STOP: _AS_IT_ENDED | {Ending.CRASHED: Exit.STOPPED},
}
