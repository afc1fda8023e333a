"""Commands that show a stored study: report, plot, dashboard."""

import sys
import webbrowser
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


@app.command(epilog="Example: squen-sweep report --study tinystories --open")
def report(
    *,
    study: StoredStudy,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default runs/STUDY/report.html."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    png: Annotated[
        Path | None, typer.Option(help="Write every figure as a PNG into this folder too.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what the report says as JSON; write no file.")
    ] = False,
) -> None:
    """Write one HTML file with a study's figures, which works offline."""
    from sweep import report as reports
    from sweep.report_parts import read
    from sweep.terminal import working

    if output is not None:
        check_output(output)
    opened, stored = stored_study(study, storage)
    if as_json:
        typer.echo(reports.as_json(read(opened, stored)))
        return
    if output is None:
        output = Path("runs") / stored.study_name / "report.html"  # its folder is made
    with working("writing the report") as show:
        reports.write_report(opened, stored, output, show=show)
        if png is not None:
            reports.write_pictures(read(opened, stored), png, show)
    typer.echo(f"report: {output}")
    if png is not None:
        typer.echo(f"pictures: {png}")
    if open_it and not webbrowser.open(output.resolve().as_uri()):
        print("no browser was found; open the report yourself", file=sys.stderr)


@app.command(epilog="Example: squen-sweep plot curves --study tinystories -o curves.png")
def plot(
    *,
    name: Annotated[str, typer.Argument(help="A figure of the report; `list` names them.")],
    study: StoredStudy,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .html, .png, .svg or .json; by default NAME.html here."
        ),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write one figure of a study; PNG and SVG need squen-sweep[images] and a Chromium."""
    from sweep import figures
    from sweep.report_parts import read
    from sweep.terminal import working

    output = output or Path(f"{name}.html")
    figures.check_format(output)
    check_output(output)
    opened, stored = stored_study(study, storage)
    reading = read(opened, stored)
    if name == "list":
        typer.echo("\n".join(f"{each.name}: {each.title}" for each in figures.figures(reading)))
        return
    with working("drawing") as show:
        chosen = figures.figure(reading, name)
        show(chosen.title.lower())
        figures.save({output: chosen.draw()})
    typer.echo(f"written: {output}")


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
