"""The command run."""

import json
import shlex
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import BusyError, InputError
from sweep.cli.options import (
    HangTimeout,
    Runs,
    Storage,
    StudyFile,
    Timeout,
    as_source,
    resumable,
    say_how_to_resume,
    workers_of,
)
from sweep.study.paths import DEFAULT_STORAGE

if TYPE_CHECKING:
    from sweep.study.spec import StudySpec
    from sweep.tuner.callback import Callback
    from sweep.tuner.limits import Limits
    from sweep.tuner.summary import Summary

app = typer.Typer()

Trials = Annotated[int, typer.Option(help="Total number of trials; rerun to continue.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Text: auto, hub, hub:NAME, built-in or a path; by default the study's.",
        callback=as_source,
    ),
]
Column = Annotated[
    str | None, typer.Option(help="Column of the text; by default text, or the only one.")
]
Hardware = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[str, typer.Option(help="Number of trials at a time, or auto.")]
NewName = Annotated[
    str | None,
    typer.Option("--as", help="Another name, for a new study after a change of file or text."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until no other process runs the study.")]
TrialTimeout = Annotated[str | None, typer.Option(help="Prune a trial that takes longer.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show only notices.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")]
Track = Annotated[
    list[str] | None,
    typer.Option(help="Mirror trials to tensorboard, wandb or mlflow; repeatable."),
]


@app.command(epilog="Example: squen-sweep run --study tinystories --trials 40")
def run(
    *,
    study: StudyFile,
    trials: Trials = 40,
    storage: Storage = DEFAULT_STORAGE,
    runs: Runs = Path("runs"),
    data: Data = None,
    column: Column = None,
    device: Hardware = "auto",
    workers: Workers = "auto",
    new_name: NewName = None,
    wait: Wait = False,
    timeout: Timeout = None,
    trial_timeout: TrialTimeout = None,
    hang_timeout: HangTimeout = "10m",
    quiet: Quiet = False,
    as_json: AsJson = False,
    track: Track = None,
) -> None:
    """Run a study up to its total of trials and write its report. Rerun to resume."""
    with resumable():
        from sweep.backends.fork_client import warm_up

        warm_up("gpt.train")  # while this process imports, which takes as long

        from sweep.tuner import tuner
        from sweep.tuner.options import RunOptions

        options = RunOptions(
            storage=storage,
            runs=runs,
            device=device,
            workers=workers_of(workers),
            limits=_limits(timeout, trial_timeout, hang_timeout),
            wait=wait,
        )
        spec = _spec(study, new_name, device, runs)
        text = spec.data if data is None else spec.data.with_source(data)
        text = text if column is None else text.model_copy(update={"column": column})
        callback = _callback(spec.name, runs, track or [], quiet, as_json)
        summary = tuner.run(spec, text, options, callback, trials=trials)
    if summary.interrupted:
        say_how_to_resume(f"stopped at {summary.finished} of {summary.total} trials")
        raise typer.Exit(128 + summary.signal if summary.signal else BusyError.exit_code)
    report = _report_of(summary, runs, storage, quiet or as_json)
    if as_json:
        typer.echo(json.dumps({"event": "summary", **asdict(summary), "report": str(report)}))
    elif not quiet:
        _say_what_is_next(summary, spec, runs, storage, report)


def _limits(sweep: str | None, trial: str | None, silence: str) -> "Limits":
    """Read the time limits."""
    from sweep.tuner.limits import Limits, seconds_of

    return Limits(
        sweep=seconds_of("--timeout", sweep),
        trial=seconds_of("--trial-timeout", trial),
        silence=seconds_of("--hang-timeout", silence),
    )


def _spec(study: str, new_name: str | None, device: str, runs: Path) -> "StudySpec":
    """Read the study for the kind of device that is there, under its new name if it has one."""
    from sweep.backends.local import resolve_device
    from sweep.study.toml_file import read_study_file, renamed

    if runs.exists() and not runs.is_dir():
        raise InputError(f"--runs must be a directory, but {runs} is a file.")
    spec = read_study_file(study, resolve_device(device).partition(":")[0])
    return spec if new_name is None else renamed(spec, new_name)


def _callback(
    study: str, runs: Path, trackers: list[str], quiet: bool, as_json: bool
) -> "Callback":
    """Return the terminal, the dashboard and the trackers as one callback."""
    from sweep.callbacks.live import make_display
    from sweep.callbacks.trackers import make_trackers
    from sweep.dashboard.notes import DashboardNotes
    from sweep.tuner.callback import CallbackList, Message

    display = make_display(quiet, as_json)
    dashboard = DashboardNotes(lambda text: display.on(Message(text)))
    return CallbackList(display, dashboard, *make_trackers(trackers, study, runs))


def _say_what_is_next(
    summary: "Summary", spec: "StudySpec", runs: Path, storage: str, report: Path
) -> None:
    from sweep.report.status_table import closing_lines

    suffix = "" if storage == DEFAULT_STORAGE else f" --storage {shlex.quote(storage)}"
    steps = 4 * spec.max_steps  # a longer run than a trial's
    lines = closing_lines(summary, runs / summary.study, storage, suffix, steps, report)
    typer.echo("\n".join(lines))


def _report_of(summary: "Summary", runs: Path, storage: str, quiet: bool) -> Path:
    """Write the report of a sweep that has just ended."""
    from sweep.cli.console import working
    from sweep.format import unseen
    from sweep.report.report import write_report
    from sweep.storage.rdb import load_study, open_storage

    opened = open_storage(storage)
    out = runs / summary.study / "report.html"
    with nullcontext(unseen) if quiet else working("writing the report") as show:
        return write_report(opened, load_study(opened, summary.study), out, show=show)
