"""Commands that use what a search found: export, train, sample."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from gpt.errors import InputError
from sweep.cli.options import (
    resumable,
    say_how_to_go_on,
)

MAX_TEMPERATURE = 1000.0  # all tokens are as likely long before

app = typer.Typer()


@app.command(epilog="Example: squen-sweep train best.toml --steps 2000")
def train(
    *,
    config: Annotated[Path, typer.Argument(help="A .toml or .json from `squen-sweep export`.")],
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps instead of the file's max_steps.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's directory; by default runs/final/ and the file's name."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Other text: auto, hub, built-in or a PATH.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Another device: cpu, cuda, cuda:N.")] = None,
) -> None:
    """Train a configuration to its end; again continues from the last checkpoint."""
    run_dir = out or Path("runs") / "final" / config.stem
    with resumable():
        from sweep.trainers import final_training as final

        run_config = final.prepared(
            config, run_dir, steps=steps, data=data, device=device, show=typer.echo
        )
        if final.is_done(run_dir):
            typer.echo(f"{run_dir} is complete: {run_config.max_steps} steps.")
        else:
            try:
                stopped_by = final.continue_run(run_dir, run_config.max_steps)
            except final.TrainingFailedError as error:
                print(f"error: {run_dir} ended early: {error}", file=sys.stderr)
                raise typer.Exit(1) from None
            if stopped_by is not None:
                say_how_to_go_on(f"stopped at a checkpoint in {run_dir}")
                raise typer.Exit(128 + stopped_by)
            typer.echo(f"done: {run_dir}")
    typer.echo(f'next: squen-sweep sample {shlex.quote(str(run_dir))} --prompt "Once upon a time"')


@app.command(epilog='Example: squen-sweep sample runs/final/best --prompt "Once upon a time"')
def sample(
    *,
    run_dir: Annotated[Path, typer.Argument(help="A directory of `train`, or a trial's.")],
    prompt: Annotated[str, typer.Option(help="How the stories begin.")] = "Once upon a time",
    num_samples: Annotated[int, typer.Option(help="How many stories.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of a story at most.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest tokens; 0: all.")] = 50,
    seed: Annotated[int, typer.Option(help="The same seed, the same stories.")] = 0,
    link: Annotated[
        bool, typer.Option("--link", help="The loss's own probabilities instead of softmax.")
    ] = False,
) -> None:
    """Print stories that a trained model tells."""
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
    from gpt.sample import sample as tell

    stories = tell(
        run_dir,
        prompt,
        max_new_tokens,
        temperature,
        top_k or None,
        seed,
        num_samples,
        link=link,
    )
    typer.echo("\n---\n".join(stories))


def _at_least(option: str, value: float, low: int) -> None:
    if not value >= low:  # "not": NaN is refused as well
        raise InputError(f"{option} must be at least {low}, but got {value}.")
