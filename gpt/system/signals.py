"""Signals that are recorded, so that a loop can stop where that is clean."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def noted(received: list[int], *, twice_interrupts: bool = False) -> Iterator[None]:
    """Record Ctrl-C, SIGTERM and SIGHUP in `received` while the block runs.

    A handler may do no more: it may run anywhere, also in the middle of a line of output. A SIGHUP
    that is ignored, as under nohup, stays ignored.

    Args:
        received: Signal numbers are appended to it.
        twice_interrupts: Raise KeyboardInterrupt when Ctrl-C comes after another signal.
    """

    def note(number: int, frame: FrameType | None) -> None:
        if twice_interrupts and received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    numbers = [n for n in STOPPING if n is signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
