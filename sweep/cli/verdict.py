"""The command `verdict`: which arm is better, by how much and how sure."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import BusyError
from sweep.cli.options import (
    DEFAULT_STORAGE,
    HangTimeout,
    Storage,
    StoredStudy,
    Timeout,
    resumable,
    say_how_to_go_on,
    stored_study,
    workers_of,
)

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from sweep.verdict.confirm_runs import Place
    from sweep.verdict.record import Record
    from sweep.verdict.request import Question

app = typer.Typer()


@app.command(
    epilog="Example: squen-sweep verdict --study tinystories --arms cross_entropy,squentropy "
    "--seeds 5 --top 3"
)
def verdict(
    *,
    study: StoredStudy,
    arms: Annotated[
        str | None,
        typer.Option(help="A,B,...: each is compared with the first; by default all."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Fresh seeds that judge each arm; by default what the study says: 5."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="Configurations of each arm to screen; by default 3."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    runs: Annotated[Path, typer.Option(help="Where run directories go.")] = Path("runs"),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default the sweep's.")
    ] = None,
    workers: Annotated[str, typer.Option(help="Runs at a time, or auto.")] = "auto",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another run of the study, or verdict, to end.")
    ] = False,
    timeout: Timeout = None,
    hang_timeout: HangTimeout = "10m",
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Say which arm is better, by how much and how sure; first train what that still needs.

    The best configurations of each arm are trained again with fresh seeds, one is chosen per arm,
    and that one is judged with other seeds on stories that the sweep never saw. Again continues.
    """
    with resumable():
        from sweep.callbacks.live import make_listener
        from sweep.tuner.limits import seconds_of
        from sweep.verdict.confirm_runs import Place
        from sweep.verdict.request import make_question

        time_for_all = seconds_of("--timeout", timeout)
        silence = seconds_of("--hang-timeout", hang_timeout)
        opened, stored = stored_study(study, storage)
        names = None if arms is None else [name.strip() for name in arms.split(",")]
        question = make_question(stored, names, seeds, top)
        place = Place(
            storage=storage,
            runs=runs,
            device=device or stored.user_attrs["device"],
            workers=workers_of(workers),
            listener=lambda: make_listener(quiet or as_json),
            timeout=time_for_all,
            silence=silence,
            wait=wait,
        )
        record, report = _answered(question, opened, place, quiet=quiet or as_json)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo(f"\n{record['answer']}")
    if not quiet:
        typer.echo(f"\nreport: {report}")


def _answered(
    question: "Question", storage: "RDBStorage", place: "Place", *, quiet: bool
) -> "tuple[Record, Path]":
    """Train what is missing, judge, and keep the answer with the study, dashboard and report."""
    from sweep.cli.console import working
    from sweep.dashboard.notes import publish
    from sweep.format import unseen
    from sweep.report.report import write_report
    from sweep.verdict.confirm_runs import run_phases, search_at_rest
    from sweep.verdict.record import keep, make_record

    study = question.study
    with search_at_rest(question, place):
        summary = run_phases(question, storage, place)
        if summary.interrupted:
            where = f"{summary.finished} of {summary.total} runs of {summary.study}"
            say_how_to_go_on(f"stopped at {where}")
            raise typer.Exit(128 + summary.signal if summary.signal else BusyError.exit_code)
        record = make_record(question, storage)
        keep(study, record)
    out = place.runs / study.study_name / "report.html"
    with nullcontext(unseen) if quiet else working("writing the report") as show:
        publish(study, storage)
        return record, write_report(storage, study, out, show=show)
