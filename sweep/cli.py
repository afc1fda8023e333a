"""The command line: reads options, calls the module that does the work, shows the outcome.

Add a command by adding one function with @app.command. torch, pandas, plotly and Optuna are
imported inside commands, so that --help takes a fifth of a second.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gpt.errors import BusyError, DataError, DiskError, InputError

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

    from sweep.summary import Summary

USAGE_ERROR: Any = typer.BadParameter.__base__  # typer exports only this subclass of it

app = typer.Typer(
    name="squen-sweep",
    help="Hyperparameter sweeps for GPT pre-training that answer which loss is better, fairly.",
    epilog="Start with: squen-sweep run --study tinystories --trials 40\n\n"
    "Exit codes: 0 done, 1 training failed, 2 usage, 65 damaged data, 74 disk, 75 try again later, "
    "129 / 130 / 143 stopped by a signal (resumable).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DEFAULT_STORAGE = "runs/sweep.db"  # the file of sweep.storage's default URL

StudyFile = Annotated[str, typer.Option("--study", help="A shipped study, or the path of a .toml.")]
StoredStudy = Annotated[str, typer.Option("--study", help="A study that was run, or its .toml.")]
Storage = Annotated[str, typer.Option(help="Database: a path or a SQLAlchemy URL.")]
Arm = Annotated[str | None, typer.Option(help="Only this choice of what the study compares.")]


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
    timeout: Annotated[
        str | None, typer.Option(help="Stop at checkpoints after 90s, 15m, 8h; resumable.")
    ] = None,
    trial_timeout: Annotated[
        str | None, typer.Option(help="End a trial that takes longer, as pruned.")
    ] = None,
    hang_timeout: Annotated[
        str, typer.Option(help="Restart a trial that says nothing for so long, or off.")
    ] = "10m",
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but notices.")] = False,
) -> None:
    """Run a study to its total of trials, from where an earlier call left it; write its report."""
    with _resumable():
        from sweep import driver
        from sweep.executors import resolve_device
        from sweep.live import make_listener
        from sweep.spec import load_study, renamed
        from sweep.status import closing_lines
        from sweep.watchdog import Limits, seconds_of

        count = _workers(workers)
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
            listener=make_listener(quiet),
        )
    if summary.interrupted:
        _say_how_to_go_on(f"stopped at {summary.finished} of {summary.total} trials")
        raise typer.Exit(128 + summary.signal if summary.signal else BusyError.exit_code)
    report = _report_of(summary, runs, storage, quiet)
    if not quiet:
        suffix = "" if storage == DEFAULT_STORAGE else f" --storage {shlex.quote(storage)}"
        steps = 4 * spec.max_steps  # a longer run than a trial's
        lines = closing_lines(summary, runs / summary.study, storage, suffix, steps, report)
        typer.echo("\n".join(lines))


@app.command(epilog="Example: squen-sweep status --study tinystories")
def status(study: StoredStudy, storage: Storage = DEFAULT_STORAGE) -> None:
    """Show a study's trials, also while it runs."""
    from sweep import terminal
    from sweep.status import status as parts_of

    _, stored = _stored_study(study, storage)
    terminal.show(*parts_of(stored, terminal.console().width))


@app.command(epilog="Example: squen-sweep report --study tinystories -o report.html")
def report(
    *,
    study: StoredStudy,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default runs/STUDY/report.html."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write one HTML file with a study's figures, which works offline."""
    from sweep.report import write_report

    if output is not None:
        _check_output(output)
    opened, stored = _stored_study(study, storage)
    if output is None:
        output = Path("runs") / stored.study_name / "report.html"  # its folder is made
    typer.echo(f"report: {write_report(opened, stored, output)}")


@app.command(epilog="Example: squen-sweep dashboard --port 8080")
def dashboard(
    *,
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(help="The dashboard has no password.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen at; another one needs --no-password as well.")
    ] = "127.0.0.1",
    no_password: Annotated[
        bool,
        typer.Option("--no-password", help="Let everyone who reaches --host see and delete all."),
    ] = False,
) -> None:
    """Serve Optuna Dashboard on the database until Ctrl-C, for this machine alone."""
    from sweep.dashboard import serve

    if not 1 <= port <= 65535:
        raise InputError(f"--port must be from 1 to 65535, but got {port}.")
    serve(storage, host=host, port=port, anyone=no_password)


@app.command(epilog="Example: squen-sweep export --study tinystories -o best.toml --arm squentropy")
def export(
    *,
    study: StoredStudy,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="By default stdout.")
    ] = None,
    arm: Arm = None,
    trial: Annotated[int | None, typer.Option(help="This trial, not the best.")] = None,
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="toml, json or nanogpt; by default from the suffix."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write the best trial's configuration, for `squen-sweep train` or nanoGPT's train.py."""
    from sweep import export as exports

    if output is not None:
        _check_output(output)
    form = exports.format_of(output, format_name)
    _, stored = _stored_study(study, storage)
    config, origin = exports.export(stored, arm, trial)
    if output is None:
        text = exports.FORMATS[form](config, origin, f"best{exports.suffix_of(form)}")
        typer.echo(text, nl=False)
        return
    _write(output, exports.FORMATS[form](config, origin, str(output)))
    typer.echo(origin.line())
    typer.echo(f"written: {output}")


@app.command(epilog="Example: squen-sweep train best.toml --steps 2000")
def train(
    *,
    config: Annotated[Path, typer.Argument(help="A .toml or .json from `squen-sweep export`.")],
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps instead of the file's max_steps.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's directory; by default runs/final/ and the file's name."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Other text: auto, hub, built-in or a PATH.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Another device: cpu, cuda, cuda:N.")] = None,
) -> None:
    """Train a configuration to its end; again continues from the last checkpoint."""
    run_dir = out or Path("runs") / "final" / config.stem
    with _resumable():
        from sweep import final_training as final

        run_config = final.prepared(
            config, run_dir, steps=steps, data=data, device=device, show=typer.echo
        )
        if final.is_done(run_dir):
            typer.echo(f"{run_dir} is complete: {run_config.max_steps} steps.")
        else:
            try:
                stopped_by = final.continue_run(run_dir, run_config.max_steps)
            except final.Ended as error:
                print(f"error: {run_dir} ended early: {error}", file=sys.stderr)
                raise typer.Exit(1) from None
            if stopped_by is not None:
                _say_how_to_go_on(f"stopped at a checkpoint in {run_dir}")
                raise typer.Exit(128 + stopped_by)
            typer.echo(f"done: {run_dir}")
    typer.echo(f'next: squen-sweep sample {shlex.quote(str(run_dir))} --prompt "Once upon a time"')


@app.command(epilog='Example: squen-sweep sample runs/final/best --prompt "Once upon a time"')
def sample(
    *,
    run_dir: Annotated[Path, typer.Argument(help="A directory of `train`, or a trial's.")],
    prompt: Annotated[str, typer.Option(help="How the stories begin.")] = "Once upon a time",
    num_samples: Annotated[int, typer.Option(help="How many stories.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of a story at most.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest tokens; 0: all.")] = 50,
    seed: Annotated[int, typer.Option(help="The same seed, the same stories.")] = 0,
    link: Annotated[
        bool, typer.Option("--link", help="The loss's own probabilities instead of softmax.")
    ] = False,
) -> None:
    """Print stories that a trained model tells."""
    _at_least("--num-samples", num_samples, 1)
    _at_least("--max-new-tokens", max_new_tokens, 1)
    _at_least("--temperature", temperature, 0)
    _at_least("--top-k", top_k, 0)
    if not 0 <= seed < 2**63:  # torch's generators take no more
        raise InputError(f"--seed must be at least 0 and below 2**63, but got {seed}.")
    from gpt.sample import sample as tell

    stories = tell(
        run_dir,
        prompt,
        max_new_tokens,
        temperature,
        top_k or None,
        seed,
        num_samples,
        link=link,
    )
    typer.echo("\n---\n".join(stories))


@app.command(epilog="Example: squen-sweep doctor --fix")
def doctor(
    *,
    storage: Storage = DEFAULT_STORAGE,
    runs: Annotated[Path, typer.Option(help="Where run directories are.")] = Path("runs"),
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be, after a backup of the database.")
    ] = False,
) -> None:
    """Check a storage and its run directories; exit code 65 while something is wrong."""
    from sweep.doctor import examine

    if remaining := examine(storage, runs, typer.echo, fix=fix):
        typer.echo(f"{remaining} findings remain")
        raise typer.Exit(DataError.exit_code)
    typer.echo("all is well")


def main() -> None:
    """Run the command line; what the user can mend is one line on stderr and its exit code."""
    try:
        sys.exit(app(standalone_mode=False))
    except InputError as error:
        _refuse(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except USAGE_ERROR as error:
        if len(sys.argv) == 1:  # no command: the error is the help
            error.show()
            sys.exit(2)
        _refuse(f"{error.format_message().rstrip('.')}; see {shlex.join(_command())} --help.")
    except Exception as error:
        if (explanation := _of_storage(error)) is None:
            raise
        _refuse(str(explanation), explanation.exit_code)


def _refuse(message: str, code: int = 2) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _of_storage(error: Exception) -> InputError | None:
    """What to say of a database that failed in the middle of a command; None of a bug."""
    if "sqlalchemy" not in sys.modules:
        return None
    from sweep.storage import sqlite_path, storage_url
    from sweep.storage_errors import explained

    given = next((b for a, b in pairwise(sys.argv) if a == "--storage"), DEFAULT_STORAGE)
    return explained(error, given, sqlite_path(storage_url(given)))


def _command() -> list[str]:
    """What was called, without its options."""
    names = {
        command.name or getattr(command.callback, "__name__", "")
        for command in app.registered_commands
    }
    return ["squen-sweep", *(word for word in sys.argv[1:2] if word in names)]


def _report_of(summary: "Summary", runs: Path, storage: str, quiet: bool) -> Path | None:
    """The report of a sweep that has just ended, if a trial is complete."""
    from sweep.report import write_report
    from sweep.storage import load_study, open_storage

    if not summary.best:
        return None
    if not quiet:
        typer.echo("writing the report ...")
    opened = open_storage(storage)
    out = runs / summary.study / "report.html"
    return write_report(opened, load_study(opened, summary.study), out)


def _workers(text: str) -> int | None:
    """None for "auto"."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--workers must be auto or at least 1, but got {text!r}.")
    return int(text)


def _at_least(option: str, value: float, low: int) -> None:
    if not value >= low:  # "not": NaN is refused as well
        raise InputError(f"{option} must be at least {low}, but got {value}.")


def _stored_study(study: str, storage: str) -> "tuple[RDBStorage, optuna.Study]":
    """A study to read, by its name or by the path of its file, and its storage."""
    from sweep.storage import load_study, open_storage

    opened = open_storage(storage, create=False)
    return opened, load_study(opened, _name_of(study))


def _name_of(study: str) -> str:
    if not study.endswith(".toml"):
        return study
    from sweep.spec import load_study

    return load_study(study, "cpu").name


def _check_output(path: Path) -> None:
    """Raise InputError unless a file can be written at `path`."""
    if path.is_dir():
        raise InputError(f"{path} must be a file to write, but it is a directory.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} must be a directory, but there is none; make it first.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path} must be writable, but it is not; pass another path.")


def _write(path: Path, text: str) -> None:
    from gpt.disk import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise DiskError(f"{path} must be writable, but: {error.strerror}.") from None


@contextmanager
def _resumable() -> Iterator[None]:
    """Around a command that the same command continues: says so when Ctrl-C ends it."""
    try:
        yield
    except KeyboardInterrupt:
        _say_how_to_go_on("interrupted")
        raise typer.Exit(130) from None


def _say_how_to_go_on(what: str) -> None:
    command = shlex.join(["squen-sweep", *sys.argv[1:]])
    print(f"{what}; run the same command again to continue: {command}", file=sys.stderr)


if __name__ == "__main__":
    main()
