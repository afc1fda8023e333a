"""The display of a running sweep in a terminal: a part that is redrawn in place, lines above it.

The tuner's calls only note what happened; a thread of rich draws from the notes REFRESH times a
second, since training shares the cores. Notes are replaced, never changed in place: the thread then
needs no lock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from sweep.callbacks.json import JsonProgress
from sweep.callbacks.plain import PlainProgress, QuietProgress, finished_line
from sweep.format import (
    BAR_WIDTH,
    best_line,
    duration,
    is_terminal,
    perplexity,
    settings,
    share_of,
    sparkline,
)
from sweep.tuner.callback import (
    Callback,
    Counts,
    Evaluated,
    Header,
    Message,
    Notice,
    SweepEvent,
    TrialFinished,
    TrialStarted,
)

if TYPE_CHECKING:
    from gpt.events import Evaluation

REFRESH = 2  # redraws a second; one takes 2 to 5 ms, so they cost one core 1 %
WIDE = 100  # columns; a narrower terminal has no room for a curve in each trial's row
NARROW_SETTINGS = 3  # parameters in each row of a narrow terminal


@dataclass(frozen=True)
class _Running:
    """A trial in a slot, as last heard of."""

    arm: str
    settings: dict[str, str]
    max_steps: int
    latest: "Evaluation | None" = None
    curve: tuple[float, ...] = ()  # perplexities so far
    heard: float = 0.0  # the clock at the latest evaluation

    @property
    def fraction(self) -> float:
        """Fraction of the trial's steps that are done, in [0, 1]."""
        return self.latest.step / self.max_steps if self.latest else 0.0

    def seconds_left(self, now: float) -> float | None:
        """From the trial's own seconds per step; None before its first evaluation with a step."""
        if self.latest is None or self.latest.step == 0:
            return None
        per_step = self.latest.elapsed_seconds / self.latest.step
        return max(0.0, (self.max_steps - self.latest.step) * per_step - (now - self.heard))


@dataclass(frozen=True)
class _Sweep:
    """State of the sweep that the live display draws."""

    notices: tuple[str, ...] = ()
    running: dict[int, _Running] = field(default_factory=dict)
    outcomes: tuple[str, ...] = ()  # of the trials that finished in this call
    finished: int = 0  # in the whole study, earlier calls included
    total: int = 0
    best: dict[str, tuple[int, float]] = field(default_factory=dict)
    busy: str | None = None  # what is under way before the first trial
    started: float | None = None  # the clock when the first trial of this call started

    @property
    def under_way(self) -> float:
        """Running trials, each by the fraction of it that is done."""
        return sum(trial.fraction for trial in self.running.values())

    def seconds_left(self, now: float) -> float | None:
        """At the pace of this call's trials; None before half a trial."""
        done = len(self.outcomes) + self.under_way
        if self.started is None or done < 0.5:
            return None
        left = max(0.0, self.total - self.finished - self.under_way)
        return left * (now - self.started) / done


class LiveProgress(Callback):
    """Redraws a panel of running trials in place; finished trials and messages scroll above it."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console()
        self._clock = clock
        self._sweep = _Sweep()
        self._spinner = Spinner("dots", style="dim")
        self._live = Live(
            get_renderable=self.draw, console=self._console, refresh_per_second=REFRESH
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._sweep = replace(self._sweep, running={})  # the last drawing stays on the screen
        self._live.stop()

    def on(self, event: SweepEvent) -> None:
        """Print the event above the part that is redrawn, or note it for the next drawing."""
        sweep = self._sweep
        match event:
            case Header(facts):
                self._print_header(facts)
            case Notice(text):  # it stays at the top of what is redrawn, and never scrolls away
                self._sweep = replace(sweep, notices=(*sweep.notices, text))
            case Message(text):
                self._show_message(text)
            case TrialStarted(trial=trial, arm=arm, params=params, max_steps=max_steps):
                started = self._clock() if sweep.started is None else sweep.started
                self._sweep = replace(sweep, started=started)
                self._note_running(trial, _Running(arm, settings(params, arm), max_steps))
            case Evaluated(trial, evaluation):
                if running := sweep.running.get(trial):
                    curve = (*running.curve, evaluation.perplexity)
                    now = self._clock()
                    running = replace(running, latest=evaluation, curve=curve, heard=now)
                    self._note_running(trial, running)
            case TrialFinished():
                self._show_finished(event)
            case Counts(finished, total, best):
                self._sweep = replace(
                    sweep, finished=finished, total=total, best=dict(best), busy=None
                )

    def _print_header(self, facts: dict[str, str]) -> None:
        table = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            table.add_row(Text(name, "bold"), Text(value))
        self._console.print(Panel(table, title="squen-sweep", title_align="left", expand=False))

    def _show_message(self, text: str) -> None:
        """Print the line; before the first counts, also show it with a spinner.

        A text with a percentage moves a bar instead: the next one follows in two seconds.
        """
        if share_of(text) is None:
            self._print(text, "dim")
        if not self._sweep.total:
            self._sweep = replace(self._sweep, busy=text)

    def _show_finished(self, event: TrialFinished) -> None:
        sweep, outcome = self._sweep, event.outcome
        running = {n: trial for n, trial in sweep.running.items() if n != event.trial}
        self._sweep = replace(sweep, running=running, outcomes=(*sweep.outcomes, outcome))
        style = "" if outcome == "complete" else "dim" if outcome == "pruned" else "yellow"
        self._print(finished_line(event), style)

    def draw(self) -> RenderableType:
        """Return the redrawn part as it is now."""
        sweep, now = self._sweep, self._clock()
        parts: list[RenderableType] = [_notice_panel(text) for text in sweep.notices]
        if sweep.busy:
            parts.append(_busy(sweep.busy, self._spinner))
        if sweep.total:
            parts.append(_overall(sweep, now))
        if sweep.running:
            parts.append(_trials(sweep.running, now, self._console.width))
        return Group(*parts, *_footer(sweep))

    def _note_running(self, number: int, trial: _Running) -> None:
        self._sweep = replace(self._sweep, running=self._sweep.running | {number: trial})

    def _print(self, text: str, style: str) -> None:
        self._console.print(Text(text, style))


def _notice_panel(text: str) -> Panel:
    return Panel(Text(text, "bold"), title="NOTICE", border_style="bold yellow", style="yellow")


def _busy(text: str, spinner: Spinner) -> RenderableType:
    """A spinner; a bar and the text where the text says how much is done."""
    if (share := share_of(text)) is None:
        return spinner
    row = Table.grid(padding=(0, 2))
    row.add_row(ProgressBar(total=1.0, completed=share, width=2 * BAR_WIDTH), Text(text, "dim"))
    return row


def _overall(sweep: _Sweep, now: float) -> Table:
    row = Table.grid(padding=(0, 2))
    done = sweep.finished + sweep.under_way
    left = sweep.seconds_left(now) if sweep.running else None
    row.add_row(
        Text(f"{sweep.finished}/{sweep.total} trials", "bold"),
        ProgressBar(total=sweep.total, completed=done, width=2 * BAR_WIDTH),
        Text(f"{duration(left)} left" if left is not None else ""),
    )
    return row


def _trials(running: dict[int, _Running], now: float, width: int) -> Table:
    """One row per running trial."""
    wide = width >= WIDE
    names = list(dict.fromkeys(name for trial in running.values() for name in trial.settings))
    names = names if wide else names[:NARROW_SETTINGS]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for column in ("trial", "arm", *names, "step", *(["curve"] if wide else [])):
        table.add_column(column, no_wrap=True)
    for column in ("perplexity", "tokens/s", "left"):
        table.add_column(column, no_wrap=True, justify="right")
    for number, trial in running.items():
        curve = [sparkline(trial.curve, trial.fraction)] if wide else []
        chosen = [trial.settings.get(name, "-") for name in names]
        step, *measured = _measured(trial, now)
        table.add_row(str(number), trial.arm, *chosen, step, *curve, *measured)
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


def _footer(sweep: _Sweep) -> list[RenderableType]:
    """The best per arm, and the trials by outcome."""
    lines: list[RenderableType] = []
    if sweep.best:
        lines.append(Text(f"best: {best_line(sweep.best)}", "green"))
    earlier = sweep.finished - len(sweep.outcomes)  # by calls before this one
    counted = [f"{earlier} earlier"] if earlier > 0 else []
    for outcome in sorted(set(sweep.outcomes)):
        counted.append(f"{sweep.outcomes.count(outcome)} {outcome}")
    if counted:
        lines.append(Text(", ".join(counted), "dim"))
    return lines


def make_display(quiet: bool, json_lines: bool = False) -> Callback:
    """Return the display for this stdout: live in a terminal, else plain lines; or as asked for."""
    if json_lines:
        return JsonProgress()
    if quiet:
        return QuietProgress()
    if not is_terminal():
        return PlainProgress()
    return LiveProgress()
