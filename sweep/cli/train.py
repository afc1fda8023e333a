"""The commands train and sample, for what a search found."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from gpt.errors import InputError
from sweep.cli.options import Column, Runs, as_path, as_source, resumable, say_how_to_resume

MAX_TEMPERATURE = 1000.0  # all tokens are as likely long before

app = typer.Typer()


@app.command(
    epilog="Example: squen-sweep train best.toml --scale n_layer=12,n_embd=512,steps=20000"
)
def train(
    *,
    config: Annotated[
        Path,
        typer.Argument(help="A .toml or .json file of `squen-sweep export`.", callback=as_path),
    ],
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps; by default the file's max_steps.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Another size, A=N,B=N of n_layer, n_embd, n_head, steps, batch_size: what was "
            "tuned is adapted to it."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; by default final/NAME in --runs.", callback=as_path),
    ] = None,
    runs: Runs = Path("runs"),
    data: Annotated[
        str | None,
        typer.Option(
            help="Other text: auto, hub, hub:NAME, built-in or a path.", callback=as_source
        ),
    ] = None,
    column: Column = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:N or mps; by default the file's.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(help="CUDA devices that share each batch; with --device cpu, processes."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many evaluations without a lower perplexity."),
    ] = None,
    sample_interval: Annotated[
        int | None, typer.Option(help="Optimiser steps between two stories that are shown.")
    ] = None,
) -> None:
    """Train a configuration to its last step. Rerun to resume from the last checkpoint.

    The last checkpoint is kept, and that of the lowest perplexity.
    """
    run_dir = out or runs / "final" / config.stem
    asked = {"patience": patience, "sample_interval": sample_interval}
    changes = {name: value for name, value in asked.items() if value is not None}
    for name, value in changes.items():
        _at_least(f"--{name.replace('_', '-')}", value, 1)
    with resumable():
        from sweep.trainers import final_training as final
        from sweep.trainers.long_run.prediction import find_prediction

        run_config = final.prepare_run(
            config,
            run_dir,
            steps=steps,
            scale=scale,
            data=data,
            column=column,
            device=device,
            gpus=gpus,
            changes=changes,
            show=typer.echo,
        )
        prediction = find_prediction(runs, run_config)
        if prediction is not None:
            typer.echo(f"predicted by `squen-sweep transfer`: {prediction.line()}")
        if final.is_done(run_dir):
            steps = final.evaluations_of(run_dir)[-1].step  # with --patience fewer than max_steps
            typer.echo(f"{run_dir} is complete: {steps} steps.")
        else:
            try:
                stopped_by = final.continue_run(run_dir, run_config.max_steps, gpus or 1)
            except final.TrainingFailedError as error:
                print(f"error: {run_dir} ended early: {error}", file=sys.stderr)
                raise typer.Exit(1) from None
            if stopped_by is not None:
                say_how_to_resume(f"stopped at a checkpoint in {run_dir}")
                raise typer.Exit(128 + stopped_by)
            typer.echo(f"done: {run_dir}")
        typer.echo(final.final_metrics(run_dir))
        if prediction is not None:
            typer.echo(prediction.outcome(final.evaluations_of(run_dir)[-1].cross_entropy))
    typer.echo(f'next: squen-sweep sample {shlex.quote(str(run_dir))} --prompt "Once upon a time"')


@app.command(epilog='Example: squen-sweep sample runs/final/best --prompt "Once upon a time"')
def sample(
    *,
    run_dir: Annotated[
        Path,
        typer.Argument(help="Run directory of `train` or of a trial.", callback=as_path),
    ],
    prompt: Annotated[str, typer.Option(help="Beginning of the stories.")] = "Once upon a time",
    num_samples: Annotated[int, typer.Option(help="Number of stories.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Maximum length of a story in tokens.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest tokens; 0 for all.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    link: Annotated[
        bool, typer.Option("--link", help="Use the loss's link function in place of softmax.")
    ] = False,
    best: Annotated[
        bool, typer.Option("--best", help="Use the checkpoint with the lowest perplexity.")
    ] = False,
) -> None:
    """Print stories sampled from a trained model."""
    _at_least("--num-samples", num_samples, 1)
    _at_least("--max-new-tokens", max_new_tokens, 1)
    _at_least("--temperature", temperature, 0)
    if temperature > MAX_TEMPERATURE:
        raise InputError(
            f"--temperature must be at most {MAX_TEMPERATURE:g}, but got {temperature:g}."
        )
    _at_least("--top-k", top_k, 0)
    if not 0 <= seed < 2**63:  # torch's generators take no more
        raise InputError(f"--seed must be at least 0 and below 2**63, but got {seed}.")
    check_run_dir(run_dir)
    from gpt.sample import sample as sample_stories

    stories = sample_stories(
        run_dir,
        prompt,
        max_new_tokens,
        temperature,
        top_k or None,
        seed,
        num_samples,
        link=link,
        best=best,
    )
    typer.echo("\n---\n".join(stories))


def _at_least(option: str, value: float, low: int) -> None:
    if not value >= low:  # "not": NaN is refused as well
        raise InputError(f"{option} must be at least {low}, but got {value}.")


def check_run_dir(path: Path) -> None:
    """Raise InputError unless `path` is a run directory; name the one that was probably meant."""
    if (path / "config.json").is_file():
        return
    around = [folder for folder in path.parents if (folder / "config.json").is_file()]
    runs = [config.parent for config in path.glob("*/config.json")]
    if around:
        way = f"it is inside of one; pass {around[0]}"
    elif runs:
        runs.sort(key=lambda run: (len(run.name), run.name))  # trial 9 before 10
        way = f"it is the folder of {len(runs)} of them; pass one, such as {runs[0]}"
    elif path.exists():
        way = "it has no config.json; pass one of `squen-sweep train`, or a trial's"
    else:
        way = (
            "there is no such folder; pass one of `squen-sweep train` or a trial's, or train the "
            "trial again: squen-sweep export --trial NUMBER -o trial.toml, then train trial.toml"
        )
    raise InputError(f"{path} must be a run directory, but {way}.")
