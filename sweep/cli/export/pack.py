"""The commands pack and verify."""

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import Storage, StoredStudy, as_path, check_output, stored_study
from sweep.study.paths import DEFAULT_STORAGE

app = typer.Typer()


@app.command(epilog="Example: squen-sweep pack --study tinystories -o tinystories.zip")
def pack(
    *,
    study: StoredStudy,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default STUDY.zip here.", callback=as_path),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write one file with a study's evidence: database, events, report, configurations, hashes.

    It may be written while the sweep runs. It holds no weights and no text that was trained on.
    """
    from sweep.cli.console import working
    from sweep.export.evidence.pack import check_replaceable, write_pack

    opened, stored = stored_study(study, storage)
    output = output or Path(f"{stored.study_name}.zip")
    check_output(output)
    check_replaceable(output)
    with working("packing") as show:
        packed = write_pack(opened, stored, output, show=show)
    typer.echo(f"written: {output}, {packed.files} files, {packed.size / 1e6:.1f} MB")
    typer.echo(f"SHA-256: {packed.sha256}")


@app.command(epilog="Example: squen-sweep verify tinystories.zip")
def verify(
    *,
    path: Annotated[
        Path, typer.Argument(metavar="pack", help="A file of `squen-sweep pack`.", callback=as_path)
    ],
) -> None:
    """Check every hash of a pack, and its report against its database; names what has changed."""
    from sweep.cli.console import working
    from sweep.export.evidence.verify import verify_pack

    with working("verifying") as show:
        found = verify_pack(path, show=show)
    typer.echo(f"{path} is as it was packed: {found.files} files, SHA-256 {found.sha256}")
    typer.echo(f"packed: {found.packed}, with {found.versions}")
    typer.echo(
        f"report: made again from the database of study {found.study}, {found.figures} figures, "
        f"the tables and the answer are the same"
    )
    typer.echo(f"verdict: {found.answer or 'none yet'}")
