"""Exceptions that are printed as one line: what must hold, what came instead, the way out.

The exit codes are those of sysexits.h, so that a script or a cluster can tell them apart.
"""


class InputError(ValueError):
    """Something that the user gave cannot work. The message is one line."""

    exit_code = 2


class DataError(InputError):
    """A file that was written earlier is damaged, or of another version."""

    exit_code = 65


class DiskError(InputError):
    """Files cannot be written: no room, no permission, no such disk any more."""

    exit_code = 74


class SweepFailed(InputError):
    """Trials fail one after another, for a reason that the next one would meet as well."""

    exit_code = 1


class BusyError(InputError):
    """Another process is at it, or time is up: the same command works later."""

    exit_code = 75
