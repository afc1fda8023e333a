"""How long things may take: a sweep, a trial, and silence. Knows nothing of why a trial is slow.

No limit is measured on a clock that somebody may set, and those of a trial not while its sweep
stands still: see sweep.tuner.clock.
"""

import re
import time
from dataclasses import dataclass

from gpt.errors import InputError
from sweep.format import duration
from sweep.tuner.clock import awake_seconds
from sweep.tuner.trial import Running

GRACE_SECONDS = 60.0  # for a checkpoint, from being asked to stop until being killed
SILENCE_SECONDS = 600.0  # a trial that trains says something every 10 s, a compiling one does not
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Limits:
    """Seconds that may pass; None: as many as it takes."""

    sweep: float | None = None  # of this call, until every trial is stopped at a checkpoint
    trial: float | None = None  # of one trial, within this call
    silence: float | None = SILENCE_SECONDS  # of a trial that says nothing, until it counts as hung


class Watchdog:
    """Ends what takes too long. The sweep's time begins when it is made."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._started = time.monotonic()

    @property
    def time_is_up(self) -> bool:
        """Whether the sweep has had its time."""
        limit = self.limits.sweep
        return limit is not None and time.monotonic() - self._started > limit

    def watch(self, running: Running) -> None:
        """Stop or kill a trial that is over a limit. Its events must have been read just before."""
        now = awake_seconds()
        if running.asked is not None:
            if now - running.asked > GRACE_SECONDS:
                running.process.kill()
        elif _over(self.limits.trial, now - running.started):
            running.overdue = f"took longer than {duration(self.limits.trial)}"
            running.stop()
        if _over(self.limits.silence, now - running.heard):
            running.hung = f"said nothing for {duration(self.limits.silence)}"
            running.process.kill()


def seconds_of(option: str, text: str | None) -> float | None:
    """A duration such as 90, 90s, 15m, 8h or 2d, in seconds; None and "off" are no limit.

    Raises:
        InputError: it is none, or zero.
    """
    if text in (None, "off"):
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None or float(match[1]) == 0:
        raise InputError(f"{option} must be a time like 90s, 15m, 8h or off, but got {text!r}.")
    return float(match[1]) * _UNITS[match[2]]


def _over(limit: float | None, seconds: float) -> bool:
    return limit is not None and seconds > limit
