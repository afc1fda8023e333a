"""The command dashboard."""

from typing import Annotated

import typer

from gpt.errors import InputError
from sweep.cli.options import Storage
from sweep.study.paths import DEFAULT_STORAGE

app = typer.Typer()


@app.command(epilog="Example: squen-sweep dashboard --port 8080")
def dashboard(
    *,
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(help="Port to listen at, from 1 to 65535.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen at; another one needs --allow-remote as well.")
    ] = "127.0.0.1",
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote",
            help="Let everyone who reaches --host see and delete all: there is no password.",
        ),
    ] = False,
) -> None:
    """Serve Optuna Dashboard on the database until Ctrl-C, for this machine alone."""
    from sweep.dashboard.server import serve

    if not 1 <= port <= 65535:
        raise InputError(f"--port must be from 1 to 65535, but got {port}.")
    serve(storage, host=host, port=port, allow_remote=allow_remote)
