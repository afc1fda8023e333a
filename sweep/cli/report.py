"""The commands report and plot."""

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from gpt.errors import InputError
from sweep.cli.options import Storage, StoredStudy, as_path, check_output, shown_study
from sweep.study.paths import DEFAULT_STORAGE

app = typer.Typer()


@app.command(epilog="Example: squen-sweep report --study tinystories --open")
def report(
    *,
    study: StoredStudy,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default runs/STUDY/report.html.", callback=as_path),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write one HTML file with a study's figures, which works offline."""
    from sweep.cli.console import working
    from sweep.report import report as reports

    if output is not None:
        check_output(output)
    opened, stored = shown_study(study, storage)
    if output is None:
        output = Path("runs") / stored.study_name / "report.html"  # its folder is made
    with working("writing the report") as show:
        reports.write_report(opened, stored, output, show=show)
    typer.echo(f"report: {output}")
    if open_it and not webbrowser.open(output.resolve().as_uri()):
        print("no browser was found; open the report yourself", file=sys.stderr)


@app.command(epilog="Example: squen-sweep plot curves --study tinystories -o curves.png")
def plot(
    *,
    name: Annotated[str | None, typer.Argument(help="A figure of the report, see --list.")] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", help="Name of a study that ran; for --list the newest will do."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .html, .png, .svg or .json; by default NAME.html here.",
            callback=as_path,
        ),
    ] = None,
    list_them: Annotated[
        bool, typer.Option("--list", help="Print the names of the figures; write no file.")
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write one figure of a study; PNG and SVG need squen-sweep[images] and a Chromium."""
    from sweep.analysis.study_reader import read_study
    from sweep.cli.console import working
    from sweep.visualization import figures

    if list_them:
        reader = read_study(*shown_study(study or _newest(storage), storage))
        typer.echo("\n".join(f"{each.name}: {each.title}" for each in figures.figures(reader)))
        return
    if name is None:
        raise InputError("plot must have the name of a figure, but got none; --list prints them.")
    if study is None:
        raise InputError(
            "plot must have a study, but got none; pass --study NAME, such as those that "
            "`squen-sweep studies` lists."
        )
    output = output or Path(f"{name}.html")
    figures.check_format(output)
    check_output(output)
    reader = read_study(*shown_study(study, storage))
    with working("drawing") as show:
        chosen = figures.figure(reader, name)
        show(chosen.title.lower())
        figures.save_figures({output: chosen.draw()})
    typer.echo(f"written: {output}")


def _newest(storage: str) -> str:
    """Return the name of the sweep that was started last; others have much the same figures."""
    import optuna

    from sweep.storage.reader import open_snapshot
    from sweep.storage.schema import is_confirm_study, is_ours

    opened = open_snapshot(storage)
    names = optuna.get_all_study_names(opened)
    for name in reversed(names):
        study = optuna.load_study(study_name=name, storage=opened)
        if is_ours(study) and not is_confirm_study(study):
            return str(name)
    raise InputError(
        f"storage {storage} must hold a study of `squen-sweep run`, since the figures depend on "
        f"it, but it holds {', '.join(names) or 'none'}."
    )
