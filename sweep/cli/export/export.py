"""The command export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import InputError, StorageError
from gpt.system.files import atomic_write_text
from sweep.cli.options import Arm, Storage, as_path, check_output, stored_study
from sweep.cli.train import check_run_dir
from sweep.study.paths import DEFAULT_STORAGE

if TYPE_CHECKING:
    import optuna

    from sweep.study.format import Show

app = typer.Typer()


@app.command(
    epilog="Example: squen-sweep export --study tinystories -o best.toml --arm squentropy\n\n"
    "squen-sweep export runs/final/best --study tinystories --format huggingface -o best-gpt2"
)
def export(
    *,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Run directory whose trained weights are exported, by huggingface and .pt; by "
            "default that of the study's best trial.",
            callback=as_path,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", help="Name of a study that ran, or path of its .toml file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, by default stdout; a folder for huggingface.",
            callback=as_path,
        ),
    ] = None,
    arm: Arm = None,
    trial: Annotated[int | None, typer.Option(help="Number of a trial; by default the best.")] = (
        None
    ),
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of the configuration: toml, json, nanogpt (.py). Of trained weights: "
            "huggingface, nanogpt-checkpoint (.pt). By default from the suffix.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that export did not write.")
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Export the best trial for `train`, for nanoGPT, or its weights for transformers.

    A configuration trains again: by `squen-sweep train`, or nanoGPT's train.py. Trained weights go
    on elsewhere: a folder for Hugging Face's from_pretrained, or a ckpt.pt of nanoGPT's.
    """
    from sweep.cli.console import working
    from sweep.export.configuration import OF_WEIGHTS, export_format

    form = export_format(output, format_name)
    _check_source(form, run, study, of_weights=form in OF_WEIGHTS)
    with working("exporting") as show:
        if form in OF_WEIGHTS:
            if output is None:
                raise InputError(f"--format {form} must have --output, but got none.")
            stored = None if study is None else stored_study(study, storage)[1]
            lines = _export_weights(form, run, stored, arm, trial, output, force)
        else:
            if output is not None:
                _check_file(output, force)
            stored = stored_study(str(study), storage)[1]
            text, origin = _configuration(form, stored, arm, trial, output, show)
            if output is None:
                lines = [text.removesuffix("\n")]
            else:
                _write(output, text)
                lines = [origin, f"written: {output}"]
    typer.echo("\n".join(lines))


def _check_source(form: str, run: Path | None, study: str | None, *, of_weights: bool) -> None:
    """Raise InputError unless it is clear what is exported."""
    if of_weights and run is not None:
        check_run_dir(run)
    elif run is not None:
        raise InputError(
            f"--format {form} must have --study alone, whose trial it writes, but got {run} too; "
            f"pass --format huggingface for its weights."
        )
    elif study is None:
        source = "RUN_DIR or --study" if of_weights else "--study"
        raise InputError(f"export --format {form} must have {source}, but got none.")


def _configuration(
    form: str,
    stored: "optuna.Study",
    arm: str | None,
    trial: int | None,
    output: Path | None,
    show: "Show",
) -> tuple[str, str]:
    """Return a configuration as text, and the line that says where it comes from."""
    from sweep.export.configuration import EXPORTERS, suffix_of
    from sweep.export.trial import export as export_trial
    from sweep.export.trial import export_program, is_of_program

    if is_of_program(stored):
        if form != "toml":
            raise InputError(f"a program's trial is exported as toml, but got {form}.")
        text, origin = export_program(stored, arm, trial)
        return text, origin.line()
    config, origin = export_trial(stored, arm, trial)
    if form == "nanogpt":  # it names a folder of tokens, which may have to be made again
        from gpt.data.dataset import prepare

        prepare(config.data, show)
    file = f"best{suffix_of(form)}" if output is None else str(output)
    return EXPORTERS[form](config, origin, file), origin.line()


def _export_weights(
    form: str,
    run: Path | None,
    stored: "optuna.Study | None",
    arm: str | None,
    trial: int | None,
    output: Path,
    force: bool,
) -> list[str]:
    """Write trained weights; return the lines that say so."""
    from sweep.export.huggingface import write_huggingface
    from sweep.export.model_card import study_answer
    from sweep.export.nanogpt import write_checkpoint
    from sweep.export.trained_run import read_trained_run
    from sweep.export.trial import trained_trial

    lines, answer = [], None
    if stored is not None:
        folder, origin = trained_trial(stored, arm, trial)
        run, answer = run or folder, study_answer(stored, origin)
        lines.append(origin.line())
    assert run is not None
    trained = read_trained_run(run)
    if form == "huggingface":
        write_huggingface(trained, output, answer, force=force)
    else:
        _check_new(output, force)
        write_checkpoint(trained, output)
    return [*lines, f"weights: {run}, after {trained.step:,} steps", f"written: {output}"]


def _check_file(output: Path, force: bool) -> None:
    from sweep.export.configuration import is_export

    check_output(output)
    if output.exists() and not force and not is_export(output):
        raise InputError(
            f"{output} must be new or a file that `squen-sweep export` wrote, but it is "
            f"another; pass another path, or --force to replace it."
        )


def _check_new(output: Path, force: bool) -> None:
    """Raise InputError unless a checkpoint can go there: which program wrote one is not known."""
    check_output(output)
    if output.exists() and not force:
        raise InputError(
            f"{output} must be new, but there is a file; pass another path, or --force to replace "
            f"it."
        )


def _write(path: Path, text: str) -> None:
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise StorageError(f"{path} must be writable, but: {error.strerror}.") from None
