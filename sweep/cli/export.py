"""The command export."""

from pathlib import Path
from typing import Annotated

import typer

from gpt.errors import InputError, StorageError
from sweep.cli.options import (
    Arm,
    Storage,
    StoredStudy,
    as_path,
    check_output,
    stored_study,
)
from sweep.study.paths import DEFAULT_STORAGE

app = typer.Typer()


@app.command(epilog="Example: squen-sweep export --study tinystories -o best.toml --arm squentropy")
def export(
    *,
    study: StoredStudy,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; by default stdout.", callback=as_path),
    ] = None,
    arm: Arm = None,
    trial: Annotated[int | None, typer.Option(help="Number of a trial; by default the best.")] = (
        None
    ),
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="toml, json or nanogpt; by default from the suffix."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that export did not write.")
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Export the best trial's configuration for `squen-sweep train` or nanoGPT's train.py."""
    from sweep import export as exports
    from sweep.cli.console import working

    if output is not None:
        check_output(output)
        if output.exists() and not force and not exports.is_export(output):
            raise InputError(
                f"{output} must be new or a file that `squen-sweep export` wrote, but it is "
                f"another; pass another path, or --force to replace it."
            )
    form = exports.export_format(output, format_name)
    with working("exporting") as show:
        _, stored = stored_study(study, storage)
        config, origin = exports.export(stored, arm, trial)
        if form == "nanogpt":  # it names a folder of tokens, which may have to be made again
            from gpt.data.dataset import prepare

            prepare(config.data, show)
    if output is None:
        text = exports.EXPORTERS[form](config, origin, f"best{exports.suffix_of(form)}")
        typer.echo(text, nl=False)
        return
    _write(output, exports.EXPORTERS[form](config, origin, str(output)))
    typer.echo(origin.line())
    typer.echo(f"written: {output}")


def _write(path: Path, text: str) -> None:
    from gpt.system.files import atomic_write_text

    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise StorageError(f"{path} must be writable, but: {error.strerror}.") from None
