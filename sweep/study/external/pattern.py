"""Patterns that find a figure in what a program prints, matched in limited time.

Light: the process that runs a program imports it for every trial.
"""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GROUPS = ("step", "value")
LINE_LENGTH = 2000  # characters of a line that a pattern is matched with
MATCH_SECONDS = 1.0  # of the processor's time; a pattern of linear time takes microseconds


class SlowPatternError(Exception):
    """Raised by `limited` within a match that takes too long."""


@contextmanager
def limited(seconds: float = MATCH_SECONDS) -> Iterator[None]:
    """End a match after so many seconds of the processor's time, whatever else the machine does.

    The `re` module heeds signals within a match. Elsewhere than in the main thread, which alone
    receives signals, nothing is limited.

    Raises:
        SlowPatternError: the time is up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise SlowPatternError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def check_pattern(text: str) -> None:
    """Raise ValueError for no pattern, one without its groups, and one of more than linear time."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression, but {error}: {text!r}") from None
    for group in GROUPS:
        if group not in pattern.groupindex:
            raise ValueError(f"must have a group (?P<{group}>...), but got {text!r}")
    for character in sorted(set(f"0a .=,-{text}")):
        try:
            with limited():
                pattern.search(character * LINE_LENGTH + "\0")
        except SlowPatternError:
            raise ValueError(
                f"must match in time linear in the length of a line, but takes over "
                f"{MATCH_SECONDS:g} s on {LINE_LENGTH:,} times {character!r}; "
                f"avoid a repetition within a repetition: {text!r}"
            ) from None
