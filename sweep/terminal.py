"""Numbers, settings and tables as a terminal shows them. Knows nothing of studies or training.

A table in a pipe is as wide as its rows need and has no colour: nothing wraps, nothing is cut.
"""

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

SHORT_NAMES = {"learning_rate": "lr"}  # the one parameter whose field name everybody shortens
PIPE_WIDTH = 1000  # columns; wider than any row, since a pipe has no edge to wrap at


def is_terminal() -> bool:
    """Whether stdout can redraw lines: a terminal, and not a dumb one."""
    from rich.console import Console

    console = Console()
    return sys.stdout.isatty() and not console.is_dumb_terminal


def console() -> "Console":
    """A rich console on stdout; plain and PIPE_WIDTH wide when stdout is no terminal."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console()
    return Console(width=PIPE_WIDTH, color_system=None, force_terminal=False)


def show(*renderables: "RenderableType") -> None:
    """Print tables, panels or rich markup on stdout; in a pipe without trailing spaces."""
    target = console()
    if target.is_terminal:
        target.print(*renderables, sep="\n")
        return
    with target.capture() as capture:
        target.print(*renderables, sep="\n")
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), flush=True)


class Show(Protocol):
    """Told what is under way, and which share of the whole is done before it, if that is known."""

    def __call__(self, what: str, done: float | None = None) -> None:
        """`done` is in [0, 1]."""


def unseen(what: str, done: float | None = None) -> None:
    """A Show that shows nothing."""


@contextmanager
def working(text: str) -> "Iterator[Show]":
    """A bar on stderr while something takes seconds; yields what moves it and changes its text.

    The bar runs to and fro until a share is known. Where stderr is no terminal, nothing is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    words = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(24), TimeElapsedColumn(), words)  # the words last: their length varies
    target = Console(stderr=True)
    with Progress(*columns, console=target, transient=True, disable=not target.is_terminal) as bar:
        task = bar.add_task(text, total=None)

        def show(what: str, done: float | None = None) -> None:
            known = share_of(what) if done is None else done
            total = None if known is None else 1.0
            bar.update(task, description=f"{text}: {what}", completed=known or 0, total=total)

        yield show


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


def settings(params: dict[str, Any], arm: str) -> dict[str, str]:
    """Parameters as short names and short values, without the one that is the arm itself."""
    return {
        SHORT_NAMES.get(name, name): number(value) for name, value in params.items() if value != arm
    }


def best_line(best: dict[str, tuple[int, float]]) -> str:
    """The best per arm as one line: "cross_entropy 53.70 (trial 7), squentropy 63.10 (trial 9)"."""
    found = (f"{arm} {perplexity(value)} (trial {trial})" for arm, (trial, value) in best.items())
    return ", ".join(found)
