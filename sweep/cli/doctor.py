"""The command doctor."""

from pathlib import Path

import typer

from gpt.errors import DataError
from sweep.cli.options import Runs, Storage
from sweep.study.paths import DEFAULT_STORAGE

app = typer.Typer()


@app.command(epilog="Example: squen-sweep doctor --storage runs/sweep.db")
def doctor(
    *,
    storage: Storage = DEFAULT_STORAGE,
    runs: Runs = Path("runs"),
) -> None:
    """Check a storage and its run directories; exit code 65 if something is wrong."""
    from sweep.tuner.doctor import examine

    if found := examine(storage, runs, typer.echo):
        typer.echo(f"{found} {'finding' if found == 1 else 'findings'}")
        raise typer.Exit(DataError.exit_code)
    typer.echo("nothing is wrong")
