"""Tables and progress bars on a terminal.

In a pipe a table is as wide as its rows need and has no colour: nothing wraps, nothing is cut.
"""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
from sweep.study.format import Show, share_of

PIPE_WIDTH = 1000  # columns; wider than any row, since a pipe has no edge to wrap at


def console() -> "Console":
    """Return a rich console on stdout, plain and PIPE_WIDTH wide if stdout is no terminal."""
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


@contextmanager
def working(text: str) -> "Iterator[Show]":
    """Show a bar on stderr while something takes seconds; yield the Show that updates it.

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
