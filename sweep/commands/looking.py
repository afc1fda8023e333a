"""Commands that show a stored study: report, dashboard."""

from pathlib import Path
from typing import Annotated

import typer

from gpt.errors import InputError
from sweep.commands.options import (
    DEFAULT_STORAGE,
    Storage,
    StoredStudy,
    check_output,
    stored_study,
)

app = typer.Typer()


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
        check_output(output)
    opened, stored = stored_study(study, storage)
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
