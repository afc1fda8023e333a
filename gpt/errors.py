"""Exceptions that a user reads as one line: what must hold, what came instead, the way out.

    SquenSweepError
     ├── InputError          2   an argument, a configuration or a text that cannot work
     ├── DataError          65   a file written earlier is damaged, or of another version
     │    └── DamagedCheckpointError      in gpt.checkpoint
     ├── StorageError       74   the disk or the database cannot be written
     ├── BusyError          75   another process holds it, or time is up: try later
     ├── NetworkError        2   a host does not answer, and no copy is kept here
     │    └── HubUnreachableError         in gpt.data.hub
     ├── TrialsFailedError   1   trials failed one after another
     ├── DivergedError       1   the loss or its gradient is not finite
     └── PeerError               of several processes another one failed, with its code;
                                 in gpt.system.distributed

The number is the exit code of the command, as in sysexits.h where that has one.
"""


class SquenSweepError(Exception):
    """Base of all errors that a user can act on. The message is one line."""

    exit_code = 1


class InputError(SquenSweepError):
    """An argument, a configuration or a text that cannot work."""

    exit_code = 2


class DataError(SquenSweepError):
    """A file that was written earlier is damaged, or of another version."""

    exit_code = 65


class StorageError(SquenSweepError):
    """The disk or the database cannot be written: no room, no permission, no such disk any more."""

    exit_code = 74


class BusyError(SquenSweepError):
    """Another process holds what is needed, or time is up; the same command works later."""

    exit_code = 75


class NetworkError(SquenSweepError):
    """A host does not answer, and no copy of what it has is kept here."""

    exit_code = 2


class TrialsFailedError(SquenSweepError):
    """Trials failed one after another, for a reason that the next one would meet as well."""


class DivergedError(SquenSweepError):
    """The training loss or its gradient became infinite or NaN; the optimiser has not used it.

    Attributes:
        step: Optimiser steps that were finished before.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step
