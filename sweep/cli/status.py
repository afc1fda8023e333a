"""The commands that show what there is: studies, status."""

from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import DEFAULT_STORAGE, Storage, StoredStudy, stored_study

if TYPE_CHECKING:
    pass
app = typer.Typer()


@app.command(epilog="Example: squen-sweep studies")
def studies(*, storage: Storage = DEFAULT_STORAGE) -> None:
    """List the studies that are there to run: shipped, in ./studies, and in the storage."""
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
    console.show(table, "\nRun one, or a .toml of your own: squen-sweep run --study NAME|FILE")
    console.show("What ran is shown by status, report, plot and dashboard.")


@app.command(epilog="Example: squen-sweep status --study tinystories")
def status(
    *,
    study: StoredStudy,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show a study's trials, also while it runs."""
    from sweep.cli import console
    from sweep.report.status_table import status_json, study_status

    _, stored = stored_study(study, storage)
    if as_json:
        typer.echo(status_json(stored))
        return
    console.show(*study_status(stored, console.console().width))
