"""The command transfer: does the ranking of a sweep hold at larger sizes?"""

import json
import math
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.options import (
    Arm,
    AsJson,
    DeviceOfSweep,
    Runs,
    Storage,
    StoredStudy,
    Timeout,
    Workers,
    resumable,
    stop_if_interrupted,
    stored_study,
    workers_of,
)
from sweep.study.paths import DEFAULT_STORAGE

if TYPE_CHECKING:
    from rich.table import Table

    from sweep.export.transfer import Transfer, TransferCheck

app = typer.Typer()


@app.command(
    epilog="Example: squen-sweep transfer --study tinystories "
    "--scale n_layer=4,n_embd=256,steps=3000"
)
def transfer(
    *,
    study: StoredStudy,
    scale: Annotated[
        str,
        typer.Option(help="Of the long run: n_layer, n_embd, n_head, steps, batch_size, A=N,B=N."),
    ],
    arm: Arm = None,
    top: Annotated[int, typer.Option(help="Best configurations that train again.")] = 3,
    sizes: Annotated[int, typer.Option(help="1 or 2 sizes on the way to the long run.")] = 2,
    storage: Storage = DEFAULT_STORAGE,
    runs: Runs = Path("runs"),
    device: DeviceOfSweep = None,
    workers: Workers = "auto",
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Check before a long run that the sweep's ranking holds as models grow; predict its loss.

    The best configurations of an arm and two further ones train at the sweep's size and at sizes
    on the way to the long run, scaled as `train --scale` will scale it. Rerun to resume.
    """
    with resumable():
        from sweep.callbacks.live import make_display
        from sweep.cli.console import show
        from sweep.export import transfer as check_of
        from sweep.storage.schema import study_attrs
        from sweep.trainers.long_run.scale import check_memory, read_scale
        from sweep.tuner.limits import Limits, seconds_of
        from sweep.tuner.options import RunOptions

        wanted = read_scale(scale)
        limits = Limits(sweep=seconds_of("--timeout", timeout))
        opened, stored = stored_study(study, storage)
        planned = check_of.plan_transfer(stored, wanted, arm, top, sizes)
        options = RunOptions(
            storage=storage,
            runs=runs,
            device=device or study_attrs(stored).device or "auto",
            workers=workers_of(workers),
            limits=limits,
        )
        number = planned.trials[0].number
        place = "cpu" if options.device == "auto" else options.device
        memory = check_memory(planned.final[number].model_copy(update={"device": place}))
        if not as_json:
            typer.echo(
                f"long run: trial {number} ({planned.arm}) with {check_of.parameters(planned):,} "
                f"parameters, {memory}\nthis check: "
                f"{planned.relative_cost:.0%} of its compute, "
                f"{'; '.join(check_of.in_words(size) for size in planned.sizes)}"
            )
        summary = check_of.run_transfer(planned, opened, options, lambda: make_display(as_json))
        stop_if_interrupted(summary, "runs of a size")
        check = check_of.judge_transfer(planned, opened)
        kept = check_of.keep_check(planned, check, runs)
    if as_json:
        typer.echo(json.dumps(_figures(planned, check), indent=2))
        return
    typer.echo()
    show(_table(planned, check))
    typer.echo()
    for trial, prediction in check.predictions.items():
        typer.echo(f"predicted for trial {trial}: {prediction.line()}")
    place = "" if storage == DEFAULT_STORAGE else f" --storage {shlex.quote(storage)}"
    folder = "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"
    typer.echo(
        f"\n{check_of.answer_in_words(planned, check)}\n\npredictions: {kept}\nnext:\n"
        f"  squen-sweep export --study {shlex.quote(study)}{place} --trial {number} -o best.toml\n"
        f"  squen-sweep train best.toml --scale {shlex.quote(scale)}{folder}"
    )


def _table(planned: "Transfer", check: "TransferCheck") -> "Table":
    """Lay out one row per size: the perplexity of each configuration, and the correlation."""
    from rich.table import Table

    from sweep.export.transfer import in_words
    from sweep.study.format import perplexity

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("size")
    table.add_column("of its compute", justify="right")
    for trial in planned.trials:
        table.add_column(f"trial {trial.number}", justify="right")
    table.add_column("rank correlation", justify="right")
    shown = ["", *(f"{value:.2f}" for value in check.correlations)]
    for size, nats, correlation in zip(planned.sizes, check.nats, shown, strict=True):
        values = [perplexity(math.exp(nats[trial.number])) for trial in planned.trials]
        table.add_row(in_words(size), f"{size.compute:.1%}", *values, correlation)
    return table


def _figures(planned: "Transfer", check: "TransferCheck") -> dict[str, Any]:
    from sweep.export.transfer import answer_in_words

    return {
        "study": planned.study.study_name,
        "arm": planned.arm,
        "trials": [trial.number for trial in planned.trials],
        "sizes": [
            {"scale": dict(size.scale), "compute": size.compute, "nats": nats}
            for size, nats in zip(planned.sizes, check.nats, strict=True)
        ],
        "noise": check.noise,
        "correlations": check.correlations,
        "predictions": {number: asdict(value) for number, value in check.predictions.items()},
        "doubts": check.doubts,
        "answer": answer_in_words(planned, check),
    }
