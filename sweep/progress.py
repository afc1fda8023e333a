"""What a sweep shows while it runs. Knows nothing of how trials are chosen, trained or stored.

The driver calls a Listener from its own loop, so every method only notes what happened;
LiveProgress draws from those notes REFRESH times a second, since training shares the cores.
Add a display by adding a class with Listener's methods and a choice in make_listener.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, Self

from sweep.terminal import best_line, duration, is_terminal, perplexity, settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.panel import Panel
    from rich.table import Table

    from gpt.evaluate import Evaluation

REFRESH = 2  # redraws a second; one takes about 5 ms, so they cost a core 1 %
BAR_WIDTH = 16  # characters


class Listener(Protocol):
    """Told by the driver what happens in a sweep; a context manager around all of it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def header(self, facts: dict[str, str]) -> None:
        """Shows study, data, device, slots and storage, once at the start."""

    def notice(self, text: str) -> None:
        """Shows what must not be missed, such as results that are not on the usual data."""

    def message(self, text: str) -> None:
        """Shows one line, such as "tokenising ..."."""

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """A trial has a slot and trains."""

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """A running trial was evaluated."""

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """A trial has its outcome and leaves its slot."""

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Trials finished in the whole study, of how many; per arm the best (trial, perplexity)."""


def make_listener(quiet: bool) -> Listener:
    """The listener for this terminal: live, plain lines where stdout is none, or quiet."""
    if quiet:
        return QuietProgress()
    return LiveProgress() if is_terminal() else PlainProgress()


class QuietProgress:
    """Shows notices on stderr, and nothing else."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def header(self, facts: dict[str, str]) -> None:
        """Shows nothing."""

    def notice(self, text: str) -> None:
        """Prints it on stderr: quiet means no progress, not that a warning may be missed."""
        print(f"NOTICE: {text}", file=sys.stderr, flush=True)

    def message(self, text: str) -> None:
        """Shows nothing."""

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Shows nothing."""

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Shows nothing."""

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Shows nothing."""

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Shows nothing."""


class PlainProgress:
    """Prints one plain line per event on stdout, at once and without colour: for logs and pipes."""

    def __init__(self) -> None:
        self._max_steps: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def header(self, facts: dict[str, str]) -> None:
        """Prints one line per fact."""
        for name, value in facts.items():
            self._line(f"{name}: {value}")

    def notice(self, text: str) -> None:
        """Prints the notice between two rules."""
        rule = "=" * 80
        self._line(f"{rule}\nNOTICE: {text}\n{rule}")

    def message(self, text: str) -> None:
        """Prints the line."""
        self._line(text)

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Prints the trial's arm and parameters."""
        self._max_steps[number] = max_steps
        chosen = ", ".join(f"{name} {value}" for name, value in settings(params, arm).items())
        self._line(f"trial {number} started: {arm}, {chosen}, {max_steps} steps")

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Prints step, perplexity and speed."""
        self._line(
            f"trial {number} step {evaluation.step}/{self._max_steps.get(number, '?')}: "
            f"perplexity {perplexity(evaluation.perplexity)}, "
            f"{evaluation.tokens_per_second:,.0f} tokens/s"
        )

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Prints the outcome."""
        self._line(_finished_line(number, arm, outcome, perplexity, reason))

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Prints how far the study is and the best per arm."""
        self._line(
            f"{finished}/{total} trials finished" + (f"; best: {best_line(best)}" if best else "")
        )

    @staticmethod
    def _line(text: str) -> None:
        print(text, flush=True)


@dataclass
class _Running:
    """A trial in a slot, as last heard of."""

    arm: str
    settings: dict[str, str]
    max_steps: int
    latest: "Evaluation | None" = None
    heard: float = 0.0  # the clock at the latest evaluation

    @property
    def fraction(self) -> float:
        """How much of the trial is done, in [0, 1]."""
        return self.latest.step / self.max_steps if self.latest else 0.0

    def seconds_left(self, now: float) -> float | None:
        """From the trial's own seconds per step; None before its first evaluation with a step."""
        if self.latest is None or self.latest.step == 0:
            return None
        per_step = self.latest.elapsed_seconds / self.latest.step
        return max(0.0, (self.max_steps - self.latest.step) * per_step - (now - self.heard))


@dataclass
class _Sweep:
    """All that the live display knows of the sweep."""

    notices: list[str] = field(default_factory=list)
    running: dict[int, _Running] = field(default_factory=dict)
    outcomes: Counter[str] = field(
        default_factory=Counter
    )  # of the trials that finished in this call
    finished: int = 0  # in the whole study, earlier calls included
    total: int = 0
    best: dict[str, tuple[int, float]] = field(default_factory=dict)
    started: float | None = None  # the clock when the first trial of this call started

    def seconds_left(self, now: float) -> float | None:
        """From this call's trials, running ones by their fraction; None before half a trial."""
        under_way = sum(trial.fraction for trial in self.running.values())
        done = self.outcomes.total() + under_way
        if self.started is None or done < 0.5:
            return None
        return max(0.0, self.total - self.finished - under_way) * (now - self.started) / done


class LiveProgress:
    """Redraws a panel of running trials in place; finished trials and messages scroll above it."""

    def __init__(
        self, console: "Console | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console or Console()
        self._clock = clock
        self._lock = Lock()  # rich draws from a thread of its own
        self._sweep = _Sweep()
        self._live = Live(
            get_renderable=self.draw, console=self._console, refresh_per_second=REFRESH
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._sweep.running.clear()
        self._live.stop()

    def header(self, facts: dict[str, str]) -> None:
        """Prints the facts in a panel, above the part that is redrawn."""
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            table.add_row(Text(name, "bold"), Text(value))
        self._console.print(Panel(table, title="squen-sweep", title_align="left", expand=False))

    def notice(self, text: str) -> None:
        """Pins the notice to the top of the part that is redrawn, so that it never scrolls away."""
        with self._lock:
            self._sweep.notices.append(text)

    def message(self, text: str) -> None:
        """Prints the line above the part that is redrawn."""
        self._print(text, "dim")

    def trial_started(self, number: int, arm: str, params: dict[str, Any], max_steps: int) -> None:
        """Adds a row."""
        with self._lock:
            self._sweep.started = self._sweep.started or self._clock()
            self._sweep.running[number] = _Running(arm, settings(params, arm), max_steps)

    def evaluation(self, number: int, evaluation: "Evaluation") -> None:
        """Notes the trial's latest step."""
        with self._lock:
            if trial := self._sweep.running.get(number):
                trial.latest, trial.heard = evaluation, self._clock()

    def trial_finished(
        self, number: int, arm: str, outcome: str, perplexity: float | None, reason: str | None
    ) -> None:
        """Removes the row and prints the outcome above."""
        with self._lock:
            self._sweep.running.pop(number, None)
            self._sweep.outcomes[outcome] += 1
        style = "" if outcome == "complete" else "dim" if outcome == "pruned" else "yellow"
        self._print(_finished_line(number, arm, outcome, perplexity, reason), style)

    def counts(self, finished: int, total: int, best: dict[str, tuple[int, float]]) -> None:
        """Notes how far the study is."""
        with self._lock:
            self._sweep.finished, self._sweep.total, self._sweep.best = finished, total, dict(best)

    def draw(self) -> "RenderableType":
        """What the redrawn part shows now."""
        from rich.console import Group

        with self._lock:
            now = self._clock()
            parts: list[RenderableType] = [_notice_panel(text) for text in self._sweep.notices]
            if self._sweep.total:
                parts.append(_overall(self._sweep, now))
            if self._sweep.running:
                parts.append(_trials(self._sweep.running, now, self._console.width))
            parts.extend(_footer(self._sweep))
        return Group(*parts)

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style))


def _finished_line(
    number: int, arm: str, outcome: str, value: float | None, reason: str | None
) -> str:
    shown = "" if value is None else f": perplexity {perplexity(value)}"
    return f"trial {number} {outcome} ({arm}){shown}" + (f" - {reason}" if reason else "")


def _notice_panel(text: str) -> "Panel":
    from rich.panel import Panel
    from rich.text import Text

    return Panel(Text(text, "bold"), title="NOTICE", border_style="bold yellow", style="yellow")


def _overall(sweep: _Sweep, now: float) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2))
    left = sweep.seconds_left(now) if sweep.running else None
    row.add_row(
        Text(f"{sweep.finished}/{sweep.total} trials", "bold"),
        ProgressBar(total=sweep.total, completed=sweep.finished, width=2 * BAR_WIDTH),
        Text(f"{duration(left)} left" if left is not None else ""),
    )
    return row


def _trials(running: dict[int, _Running], now: float, width: int) -> "Table":
    """One row per running trial; the bar only where the terminal has room for it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    names = list(dict.fromkeys(name for trial in running.values() for name in trial.settings))
    wide = width >= 100
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("trial", "arm", *names, "step", *([""] if wide else [])):
        table.add_column(column, no_wrap=True)
    for column in ("perplexity", "tokens/s", "left"):
        table.add_column(column, no_wrap=True, justify="right")
    for number, trial in running.items():
        bar = [ProgressBar(total=1.0, completed=trial.fraction, width=BAR_WIDTH)] if wide else []
        chosen = [trial.settings.get(name, "-") for name in names]
        step, *measured = _measured(trial, now)
        table.add_row(str(number), trial.arm, *chosen, step, *bar, *measured)
    return table


def _measured(trial: _Running, now: float) -> tuple[str, str, str, str]:
    """Step, perplexity, tokens per second and time left."""
    if trial.latest is None:
        return f"0/{trial.max_steps}", "-", "-", "-"
    return (
        f"{trial.latest.step}/{trial.max_steps}",
        perplexity(trial.latest.perplexity),
        f"{trial.latest.tokens_per_second:,.0f}",
        duration(trial.seconds_left(now)),
    )


def _footer(sweep: _Sweep) -> "list[RenderableType]":
    """The best per arm, and the trials by outcome."""
    from rich.text import Text

    lines: list[RenderableType] = []
    if sweep.best:
        lines.append(Text(f"best: {best_line(sweep.best)}", "green"))
    earlier = sweep.finished - sweep.outcomes.total()
    counted = [f"{count} {outcome}" for outcome, count in sorted(sweep.outcomes.items())]
    if counted:
        lines.append(
            Text(", ".join(([f"{earlier} earlier"] if earlier > 0 else []) + counted), "dim")
        )
    return lines
