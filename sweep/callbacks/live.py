"""The display of a running sweep in a terminal: a part that is redrawn in place, lines above it.

The tuner's calls only note what happened; a thread of rich draws from the notes REFRESH times a
second, since training shares the cores. Notes are replaced, never changed in place: the thread then
needs no lock.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from sweep.analysis.results import UNFINISHED
from sweep.analysis.time_left import Pace, pruner_of, seconds_left, stored_paces
from sweep.callbacks.json import JsonProgress
from sweep.callbacks.plain import PlainProgress, QuietProgress, finished_line
from sweep.study.format import (
    BAR_WIDTH,
    best_line,
    duration,
    is_terminal,
    settings,
    share_of,
    sparkline,
)
from sweep.study.metric import PERPLEXITY, Metric
from sweep.tuner.callback import (
    Callback,
    Counts,
    Evaluated,
    Header,
    Message,
    Notice,
    Opened,
    SweepEvent,
    TrialFinished,
    TrialStarted,
)

if TYPE_CHECKING:
    from gpt.events import Evaluation

REFRESH = 2  # redraws a second; one takes 2 to 5 ms, so they cost one core 1 %
WIDE = 100  # columns; a narrower terminal has no room for a curve in each trial's row
TALL = 30  # lines; a lower terminal has no room for a framed notice
ECHO = 2  # columns left free: a ^C at the edge would begin a line, and what is redrawn stay behind
NARROW_SETTINGS = 3  # parameters in each row of a narrow terminal


@dataclass(frozen=True)
class _Running:
    """A trial in a slot, as last heard of."""

    arm: str
    settings: dict[str, str]
    max_steps: int | None  # None: not known
    latest: "Evaluation | None" = None
    curve: tuple[float, ...] = ()  # perplexities so far
    heard: float = 0.0  # the clock at the latest evaluation
    started: float = 0.0  # the clock when it started in this call

    @property
    def fraction(self) -> float:
        """Fraction of the trial's steps that are done, in [0, 1]."""
        if self.latest is None or self.max_steps is None:
            return 0.0
        return min(1.0, self.latest.step / self.max_steps)

    def pace(self, outcome: str, now: float) -> Pace:
        """Its pace; one that an earlier call began counts the seconds of that, too."""
        took = now - self.started
        if self.latest is not None and self.latest.elapsed_seconds > took:  # a program's may be NaN
            took = self.latest.elapsed_seconds
        fraction = 1.0 if outcome == "complete" else self.fraction
        return Pace(self.arm, outcome, fraction, took)

    def seconds_left(self, now: float) -> float | None:
        """From the trial's own seconds per step; None before its first evaluation with a step."""
        if self.latest is None or self.latest.step == 0 or self.max_steps is None:
            return None
        if math.isnan(self.latest.elapsed_seconds):
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
    pruner: dict[str, Any] = field(default_factory=dict)  # table of the study file
    slots: int = 1  # the most trials that have run at a time
    ended: tuple[Pace, ...] = ()  # trials of earlier calls, without their time, and of this one
    metric: Metric = PERPLEXITY

    @property
    def under_way(self) -> float:
        """Running trials, each by the fraction of it that is done."""
        return sum(trial.fraction for trial in self.running.values())

    def seconds_left(self, now: float) -> float | None:
        """At the pace of this call's trials; None before half a trial."""
        running = [trial.pace("running", trial.heard or now) for trial in self.running.values()]
        waiting = self.total - self.finished - len(running)
        left = seconds_left((*self.ended, *running), max(0, waiting), self.slots, self.pruner)
        heard = [trial.heard for trial in self.running.values() if trial.heard]
        since = now - fmean(heard) if heard else 0.0  # it runs down between two evaluations
        return None if left is None else max(0.0, left - since)


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
            case Opened(study, metric=metric):
                earlier = [one for one in stored_paces(study) if one.outcome not in UNFINISHED]
                ended = tuple(replace(one, seconds=None) for one in earlier)  # they may have paused
                self._sweep = replace(sweep, metric=metric, ended=ended, pruner=pruner_of(study))
            case Header(facts):
                self._print_header(facts)
            case Notice(text):  # it stays at the top of what is redrawn, and never scrolls away
                if self._console.height < TALL:  # where there is room for its beginning alone
                    self._print(f"NOTICE: {text}", "bold yellow")  # in full, before the trials
                self._sweep = replace(sweep, notices=(*sweep.notices, text))
            case Message(text):
                self._show_message(text)
            case TrialStarted(trial=trial, arm=arm, params=params, max_steps=max_steps):
                shown = settings(params, arm)
                self._note_running(trial, _Running(arm, shown, max_steps, started=self._clock()))
                slots = max(sweep.slots, len(self._sweep.running))
                self._sweep = replace(self._sweep, slots=slots)
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
        ended = sweep.ended
        if known := sweep.running.get(event.trial):
            ended = (*ended, known.pace(outcome, self._clock()))
        self._sweep = replace(
            sweep, running=running, outcomes=(*sweep.outcomes, outcome), ended=ended
        )
        style = "" if outcome == "complete" else "dim" if outcome == "pruned" else "yellow"
        self._print(finished_line(event, sweep.metric), style)

    def draw(self) -> RenderableType:
        """Return the redrawn part as it is now."""
        sweep, now = self._sweep, self._clock()
        console = self._console
        parts: list[RenderableType] = [_notice(text, console) for text in sweep.notices]
        if sweep.busy:
            parts.append(_busy(sweep.busy, self._spinner))
        if sweep.total:
            parts.append(_overall(sweep, now))
        if sweep.running:
            parts.append(_trials(sweep.running, now, console, sweep.metric))
        return Constrain(Group(*parts, *_footer(sweep)), console.width - ECHO)

    def _note_running(self, number: int, trial: _Running) -> None:
        self._sweep = replace(self._sweep, running=self._sweep.running | {number: trial})

    def _print(self, text: str, style: str) -> None:
        self._console.print(Text(text, style))


def _notice(text: str, console: Console) -> RenderableType:
    """A framed notice; in a low terminal one line of it."""
    if console.height < TALL:
        return Text(f"NOTICE: {text}", "bold yellow", no_wrap=True, overflow="ellipsis")
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


def _trials(running: dict[int, _Running], now: float, console: Console, metric: Metric) -> Table:
    """One row per running trial, with as many settings as there is room for."""
    wide = console.width >= WIDE
    names = list(dict.fromkeys(name for trial in running.values() for name in trial.settings))
    for count in range(len(names) if wide else min(len(names), NARROW_SETTINGS), -1, -1):
        table = _trials_table(running, now, names[:count], wide, metric)
        if console.measure(table).maximum <= console.width - ECHO:
            break
    return table


def _trials_table(
    running: dict[int, _Running], now: float, names: list[str], wide: bool, metric: Metric
) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for column in ("trial", "arm", *names, "step", *(["curve"] if wide else [])):
        table.add_column(column, no_wrap=True)
    for column in (metric.name, "tokens/s", "left"):
        table.add_column(column, no_wrap=True, justify="right")
    for number, trial in running.items():
        curve = [sparkline(trial.curve, trial.fraction)] if wide else []
        chosen = [trial.settings.get(name, "-") for name in names]
        step, *measured = _measured(trial, now, metric)
        table.add_row(str(number), trial.arm, *chosen, step, *curve, *measured)
    return table


def _measured(trial: _Running, now: float, metric: Metric) -> tuple[str, str, str, str]:
    """Step, metric, tokens per second and time left."""
    steps = trial.max_steps or "?"
    if trial.latest is None:
        return f"0/{steps}", "-", "-", "-"
    speed = trial.latest.tokens_per_second
    return (
        f"{trial.latest.step}/{steps}",
        metric.shown(trial.latest.perplexity),
        "-" if math.isnan(speed) else f"{speed:,.0f}",
        duration(trial.seconds_left(now)),
    )


def _footer(sweep: _Sweep) -> list[RenderableType]:
    """The best per arm, and the trials by outcome."""
    lines: list[RenderableType] = []
    if sweep.best:
        lines.append(Text(f"best: {best_line(sweep.best, sweep.metric.shown)}", "green"))
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
