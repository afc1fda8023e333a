"""The command that checks and mends: doctor."""

from pathlib import Path
from typing import Annotated

import typer

from gpt.errors import DataError
from sweep.cli.options import Runs, Storage
from sweep.study.paths import DEFAULT_STORAGE

app = typer.Typer()


@app.command(epilog="Example: squen-sweep doctor --fix")
def doctor(
    *,
    storage: Storage = DEFAULT_STORAGE,
    runs: Runs = Path("runs"),
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be, after a backup of the database.")
    ] = False,
) -> None:
    """Check a storage and its run directories; exit code 65 while something is wrong."""
    from sweep.tuner.doctor import examine

    if remaining := examine(storage, runs, typer.echo, fix=fix):
        typer.echo(f"{remaining} findings remain")
        raise typer.Exit(DataError.exit_code)
    typer.echo("all is well")
