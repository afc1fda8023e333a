"""The commands studies and status."""

from typing import Annotated

import typer

from sweep.cli.options import Storage, StoredStudy, study_now
from sweep.study.paths import DEFAULT_STORAGE

app = typer.Typer()


@app.command(epilog="Example: squen-sweep studies")
def studies(*, storage: Storage = DEFAULT_STORAGE) -> None:
    """List the studies to run: shipped ones, files in ./studies, and those in the storage."""
    from rich.table import Table
    from rich.text import Text

    from sweep.cli import console
    from sweep.storage.catalogue import catalogue

    table = Table(box=None, padding=(0, 2), pad_edge=False)
    table.add_column("study", style="bold", no_wrap=True)
    table.add_column("trials", no_wrap=True, justify="right")
    table.add_column("description")
    for study in catalogue(storage):
        table.add_row(Text(study.name), study.progress or "-", Text(study.description))
    console.show(table, "\nRun one, or a .toml file of your own: squen-sweep run --study NAME|FILE")
    console.show("See what ran with status, report, plot and dashboard.")


@app.command(epilog="Example: squen-sweep status --study tinystories")
def status(
    *,
    study: StoredStudy,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the trials of a study, also while it runs."""
    from sweep.cli import console
    from sweep.report.status_table import status_json, study_status

    stored = study_now(study, storage)
    if as_json:
        typer.echo(status_json(stored))
        return
    console.show(*study_status(stored, console.console().width))
