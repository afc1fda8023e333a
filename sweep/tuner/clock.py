"""A clock that stands still while this process does: a trial's limits of time are measured on it.

A cluster that suspends a job stops all of its processes, for hours maybe, and none of that time is
a trial's. Nobody sets this clock, as somebody may the time of day.
"""

import time

ASLEEP_SECONDS = 5.0  # between two looks at the clock, where a sweep looks many times a second


class AwakeClock:
    """Seconds in which its process was awake, as far as looks at the clock can tell."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._asleep = 0.0

    def seconds(self) -> float:
        """Now, from an arbitrary start. Long gaps between two looks are left out."""
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        if gap > ASLEEP_SECONDS:
            self._asleep += gap
        return now - self._asleep


awake_seconds = AwakeClock().seconds
