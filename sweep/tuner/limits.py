"""Time limits of a sweep, of a trial, and of its silence.

No limit is measured on a clock that somebody may set, and those of a trial not on one that runs on
while the sweep is suspended: a cluster that suspends a job stops all of its processes, for hours
maybe, and none of that time is a trial's.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from gpt.errors import InputError

GRACE_SECONDS = 60.0  # for a checkpoint, from being asked to stop until being killed
SILENCE_SECONDS = 600.0  # a trial that trains says something every 10 s, a compiling one does not
SUSPENDED_SECONDS = 5.0  # between two readings of the clock, where a sweep reads it many times each
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

Clock = Callable[[], float]  # seconds from an arbitrary start


@dataclass(frozen=True)
class Limits:
    """Seconds that may pass; None: as many as it takes."""

    sweep: float | None = None  # of this call, until every trial is stopped at a checkpoint
    trial: float | None = None  # of one trial, within this call
    silence: float | None = SILENCE_SECONDS  # of a trial that says nothing, until it counts as hung


class SuspendAwareClock:
    """Monotonic clock that excludes time while the process was suspended (SIGSTOP).

    Args:
        clock: The clock that runs on meanwhile.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._suspended = 0.0

    def __call__(self) -> float:
        """Return seconds from an arbitrary start; long gaps between two calls are left out."""
        now = self._clock()
        gap, self._last = now - self._last, now
        if gap > SUSPENDED_SECONDS:
            self._suspended += gap
        return now - self._suspended


def seconds_of(option: str, text: str | None) -> float | None:
    """Parse a duration such as 90, 90s, 15m, 8h or 2d into seconds; None and "off" are no limit.

    Raises:
        InputError: it is none, or zero.
    """
    if text in (None, "off"):
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None or float(match[1]) == 0:
        raise InputError(f"{option} must be a time like 90s, 15m, 8h or off, but got {text!r}.")
    return float(match[1]) * _UNITS[match[2]]


def is_over(limit: float | None, seconds: float) -> bool:
    """Return whether a limit is exceeded; None is no limit."""
    return limit is not None and seconds > limit
