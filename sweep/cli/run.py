"""The command run."""

import json
import shlex
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import InputError, TrialsFailedError
from sweep.cli.options import (
    BackendName,
    Column,
    HangTimeout,
    RayAddress,
    Runs,
    Sbatch,
    Storage,
    StudyFile,
    Timeout,
    as_source,
    resumable,
    sbatch_words,
    stop_if_interrupted,
    workers_of,
)
from sweep.study.paths import DEFAULT_STORAGE

if TYPE_CHECKING:
    from sweep.study.spec import StudySpec
    from sweep.tuner.callback import Callback
    from sweep.tuner.limits import Limits
    from sweep.tuner.options import RunOptions
    from sweep.tuner.summary import Summary

app = typer.Typer()

Trials = Annotated[
    int | None,
    typer.Option(help="Total number of trials, 40 unless extended; rerun to continue."),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Text: auto, hub, hub:NAME, built-in or a path; by default the study's.",
        callback=as_source,
    ),
]
Hardware = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[str, typer.Option(help="Number of trials at a time, or auto.")]
NewName = Annotated[
    str | None,
    typer.Option("--as", help="Another name, for a new study after a change of file or text."),
]
Extend = Annotated[
    bool,
    typer.Option("--extend", help="Take earlier trials over after choices or ranges were added."),
]
TakenFrom = Annotated[
    str | None, typer.Option("--from", help="Study whose trials a new one takes over; with --as.")
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
    trials: Trials = None,
    storage: Storage = DEFAULT_STORAGE,
    runs: Runs = Path("runs"),
    data: Data = None,
    column: Column = None,
    device: Hardware = "auto",
    workers: Workers = "auto",
    backend: BackendName = "local",
    sbatch: Sbatch = "",
    ray_address: RayAddress = None,
    new_name: NewName = None,
    extend: Extend = False,
    taken_from: TakenFrom = None,
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
        if backend == "local" and not _has_program(study):
            from sweep.backends.fork_client import warm_up

            warm_up("gpt.train")  # while this process imports, which takes as long

        from sweep.tuner.options import RunOptions
        from sweep.tuner.run import run as run_study

        options = RunOptions(
            storage=storage,
            runs=runs,
            device=device,
            workers=workers_of(workers),
            backend=backend,
            sbatch=(*_sbatch_of(study, backend), *sbatch_words(sbatch)),  # the last one wins
            ray_address=ray_address,
            limits=_limits(timeout, trial_timeout, hang_timeout),
            wait=wait,
            extend=extend,
            taken_from=taken_from,
        )
        spec = _spec(study, new_name, options)
        if spec.trainer is not None and (data is not None or column is not None):
            raise InputError("--data must not be given: a program reads its own; see [trainer].")
        text = spec.data if data is None else spec.data.with_source(data)
        text = text if column is None else text.model_copy(update={"column": column})
        callback = _callback(spec.name, runs, track or [], quiet, as_json)
        summary = run_study(spec, text, options, callback, trials=trials)
    stop_if_interrupted(summary, "trials")
    report = _report_of(summary, runs, storage, quiet or as_json)
    if as_json:
        typer.echo(json.dumps({"event": "summary", **asdict(summary), "report": str(report)}))
    elif not quiet:
        _say_what_is_next(summary, spec, runs, storage, report)
    if set(summary.outcomes) == {"failed"}:
        raise typer.Exit(TrialsFailedError.exit_code)


def _has_program(study: str) -> bool:
    """Return True if a study file has a program of its own; whatever is wrong, others say."""
    from sweep.study.toml_file import find_study_file, read_tables

    with suppress(InputError):
        return "trainer" in read_tables(find_study_file(study))
    return False


def _sbatch_of(study: str, backend: str) -> list[str]:
    """Return the arguments of sbatch that a study file has, where its trials are jobs."""
    from sweep.study.toml_file import sbatch_of

    return sbatch_of(study) if backend == "slurm" else []


def _limits(sweep: str | None, trial: str | None, silence: str) -> "Limits":
    """Read the time limits."""
    from sweep.tuner.limits import Limits, seconds_of

    return Limits(
        sweep=seconds_of("--timeout", sweep),
        trial=seconds_of("--trial-timeout", trial),
        silence=seconds_of("--hang-timeout", silence),
    )


def _spec(study: str, new_name: str | None, options: "RunOptions") -> "StudySpec":
    """Read the study for the kind of device that is there, under its new name if it has one."""
    from sweep.study.toml_file import read_resources, read_study_file, renamed

    if options.runs.exists() and not options.runs.is_dir():
        raise InputError(f"--runs must be a directory, but {options.runs} is a file.")
    backend = options.make_backend(read_resources(study))
    spec = read_study_file(study, backend.kind())
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

    def say(text: str) -> None:
        display.on(Message(text))

    mirrors = make_trackers(trackers, study, runs, say)
    return CallbackList(display, DashboardNotes(say), *mirrors)


def _say_what_is_next(
    summary: "Summary", spec: "StudySpec", runs: Path, storage: str, report: Path
) -> None:
    from sweep.report.status_table import closing_lines

    suffix = "" if storage == DEFAULT_STORAGE else f" --storage {shlex.quote(storage)}"
    steps = None if spec.trainer else 4 * (spec.max_steps or 0)  # a longer run than a trial's
    lines = closing_lines(summary, runs / summary.study, storage, suffix, steps, report)
    typer.echo("\n".join(lines))


def _report_of(summary: "Summary", runs: Path, storage: str, quiet: bool) -> Path:
    """Write the report of a sweep that has just ended."""
    from sweep.cli.console import working
    from sweep.report.report import write_report
    from sweep.storage.rdb import open_storage
    from sweep.storage.reader import load_study
    from sweep.study.format import unseen

    opened = open_storage(storage)
    out = runs / summary.study / "report.html"
    with nullcontext(unseen) if quiet else working("writing the report") as show:
        return write_report(opened, load_study(opened, summary.study), out, show=show)
