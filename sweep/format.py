"""Numbers, settings and tables as a terminal shows them. Knows nothing of studies or training.

A table in a pipe is as wide as its rows need and has no colour: nothing wraps, nothing is cut.
"""

import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    pass

SHORT_NAMES = {"learning_rate": "lr"}  # the one parameter whose field name everybody shortens


def is_terminal() -> bool:
    """Whether stdout can redraw lines: a terminal, and not a dumb one."""
    from rich.console import Console

    console = Console()
    return sys.stdout.isatty() and not console.is_dumb_terminal


class Show(Protocol):
    """Told what is under way, and which share of the whole is done before it, if that is known."""

    def __call__(self, what: str, done: float | None = None) -> None:
        """`done` is in [0, 1]."""


def unseen(what: str, done: float | None = None) -> None:
    """A Show that shows nothing."""


def share_of(message: str) -> float | None:
    """What a message says at its end is done: "tokenising: 3 of 4 stories (75%)" -> 0.75."""
    found = re.search(r"\((\d+)%\)$", message)
    return int(found[1]) / 100 if found else None


def number(value: Any) -> str:
    """A parameter's value in few characters: 0.0012 -> 1.2e-03, 0.1 -> 0.1, 4 -> 4."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.2e}" if 0 < abs(value) < 0.01 or abs(value) >= 1e5 else f"{value:.4g}"


def perplexity(value: float | None) -> str:
    """A perplexity with as many digits as can mean something; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as m:ss or h:mm:ss; "-" where they are not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def relative(path: Path) -> str:
    """Write a path as one types it in the current folder, also after the project has moved."""
    return os.path.relpath(path)


def settings(params: dict[str, Any], arm: str) -> dict[str, str]:
    """Parameters as short names and short values, without the one that is the arm itself."""
    return {
        SHORT_NAMES.get(name, name): number(value) for name, value in params.items() if value != arm
    }


def best_line(best: dict[str, tuple[int, float]]) -> str:
    """The best per arm as one line: "cross_entropy 53.70 (trial 7), squentropy 63.10 (trial 9)"."""
    found = (f"{arm} {perplexity(value)} (trial {trial})" for arm, (trial, value) in best.items())
    return ", ".join(found)


BAR_WIDTH = 16  # characters
BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(curve: Sequence[float], fraction: float, width: int = BAR_WIDTH) -> str:
    """A curve in `width` characters, of which the first `fraction` are drawn: ▇▄▂▁▁······

    Heights are by the logarithm, from the curve's lowest to its highest value. What is not finite
    is as high as the highest.
    """
    drawn = min(width, max(1, round(fraction * width))) if curve else 0
    logs = [math.log(value) for value in curve if 0 < value < math.inf]
    low, extent = min(logs, default=0.0), (max(logs, default=0.0) - min(logs, default=0.0)) or 1.0
    marks = ""
    for place in range(drawn):
        value = curve[(place + 1) * len(curve) // drawn - 1] if drawn <= len(curve) else None
        value = curve[place * len(curve) // drawn] if value is None else value
        height = (math.log(value) - low) / extent if 0 < value < math.inf else 1.0
        marks += BLOCKS[round(height * (len(BLOCKS) - 1))]
    return marks + "·" * (width - drawn)
