"""Signals that are noted, not obeyed at once: a loop looks at them where it can stop cleanly."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def noted(received: list[int], *, twice_interrupts: bool = False) -> Iterator[None]:
    """Within it, Ctrl-C, SIGTERM and SIGHUP are only added to `received`.

    Noting is all that a handler may do: it may come anywhere, also in the middle of a line of
    output. A SIGHUP that is ignored, as nohup arranges it, stays ignored.

    Args:
        received: Grows with each signal.
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
