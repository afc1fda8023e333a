"""Commands that search: studies, run, status."""

import json
import shlex
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import BusyError, InputError
from sweep.commands.options import (
    DEFAULT_STORAGE,
    HangTimeout,
    Storage,
    StoredStudy,
    StudyFile,
    Timeout,
    resumable,
    say_how_to_go_on,
    stored_study,
    workers_of,
)

if TYPE_CHECKING:
    from sweep.summary import Summary

app = typer.Typer()


@app.command(epilog="Example: squen-sweep studies")
def studies() -> None:
    """List the studies that are there to run."""
    from rich.table import Table

    from sweep import terminal
    from sweep.spec import shipped_studies

    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("study", style="bold", no_wrap=True)
    table.add_column("description")
    for study in shipped_studies():
        table.add_row(study.name, study.description)
    terminal.show(table, "\nRun one, or a .toml of your own: squen-sweep run --study NAME|FILE")


@app.command(epilog="Example: squen-sweep run --study tinystories --trials 40")
def run(
    *,
    study: StudyFile,
    trials: Annotated[int, typer.Option(help="Total of the study; again continues to it.")] = 40,
    storage: Storage = DEFAULT_STORAGE,
    runs: Annotated[Path, typer.Option(help="Where run directories go.")] = Path("runs"),
    data: Annotated[
        str | None,
        typer.Option(help="auto, hub, built-in or a PATH; by default what the study says."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[str, typer.Option(help="Trials at a time, or auto.")] = "auto",
    new_name: Annotated[
        str | None,
        typer.Option("--as", help="Another name: a new study after a changed file or text."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another run of the study to end.")
    ] = False,
    timeout: Timeout = None,
    trial_timeout: Annotated[
        str | None, typer.Option(help="End a trial that takes longer, as pruned.")
    ] = None,
    hang_timeout: HangTimeout = "10m",
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but notices.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every event as a line of JSON.")
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Mirror trials to tensorboard, wandb or mlflow; may be repeated."),
    ] = None,
) -> None:
    """Run a study to its total of trials, from where an earlier call left it; write its report."""
    with resumable():
        from sweep import driver
        from sweep.dashboard_feed import DashboardFeed
        from sweep.executors import resolve_device
        from sweep.live import make_listener
        from sweep.progress import Several
        from sweep.spec import load_study, renamed
        from sweep.status import closing_lines
        from sweep.tracking import make_trackers
        from sweep.watchdog import Limits, seconds_of

        count = workers_of(workers)
        limits = Limits(
            sweep=seconds_of("--timeout", timeout),
            trial=seconds_of("--trial-timeout", trial_timeout),
            silence=seconds_of("--hang-timeout", hang_timeout),
        )
        if runs.exists() and not runs.is_dir():
            raise InputError(f"--runs must be a directory, but {runs} is a file.")
        kind = resolve_device(device).partition(":")[0]
        spec = load_study(study, kind)
        if new_name is not None:
            spec = renamed(spec, new_name)
        text = spec.data if data is None else spec.data.model_copy(update={"source": data})
        display = make_listener(quiet, as_json)
        others = [DashboardFeed(display.message), *make_trackers(track or [], spec.name, runs)]
        summary = driver.run(
            spec,
            text,
            trials=trials,
            storage=storage,
            runs=runs,
            device=device,
            workers=count,
            limits=limits,
            wait=wait,
            listener=Several(display, *others),
        )
    if summary.interrupted:
        say_how_to_go_on(f"stopped at {summary.finished} of {summary.total} trials")
        raise typer.Exit(128 + summary.signal if summary.signal else BusyError.exit_code)
    report = _report_of(summary, runs, storage, quiet or as_json)
    if as_json:
        typer.echo(json.dumps({"event": "summary", **asdict(summary), "report": str(report)}))
    elif not quiet:
        suffix = "" if storage == DEFAULT_STORAGE else f" --storage {shlex.quote(storage)}"
        steps = 4 * spec.max_steps  # a longer run than a trial's
        lines = closing_lines(summary, runs / summary.study, storage, suffix, steps, report)
        typer.echo("\n".join(lines))


@app.command(epilog="Example: squen-sweep status --study tinystories")
def status(
    *,
    study: StoredStudy,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show a study's trials, also while it runs."""
    from sweep import terminal
    from sweep.status import status as parts_of
    from sweep.status import status_json

    _, stored = stored_study(study, storage)
    if as_json:
        typer.echo(status_json(stored))
        return
    terminal.show(*parts_of(stored, terminal.console().width))


def _report_of(summary: "Summary", runs: Path, storage: str, quiet: bool) -> Path:
    """The report of a sweep that has just ended."""
    from sweep.report import write_report
    from sweep.storage import load_study, open_storage
    from sweep.terminal import working

    opened = open_storage(storage)
    out = runs / summary.study / "report.html"
    with nullcontext(lambda text: None) if quiet else working("writing the report") as show:
        return write_report(opened, load_study(opened, summary.study), out, show=show)
