"""The command `verdict`: which settings are better, by how much and how sure."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import BusyError
from sweep.cli.options import (
    HangTimeout,
    Runs,
    Storage,
    StoredStudy,
    Timeout,
    resumable,
    say_how_to_resume,
    stored_study,
    workers_of,
)
from sweep.study.paths import DEFAULT_STORAGE

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from rich.table import Table

    from sweep.tuner.options import RunOptions
    from sweep.verdict.confirm_runs import MakeCallback
    from sweep.verdict.record import Record
    from sweep.verdict.request import VerdictRequest

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
        typer.Option(help="Fresh seeds that judge each arm; by default as in the study: 5."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="Configurations of each arm to screen; by default 3."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    runs: Runs = Path("runs"),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default the sweep's.")
    ] = None,
    workers: Annotated[str, typer.Option(help="Runs at a time, or auto.")] = "auto",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until another run or verdict of the study ends.")
    ] = False,
    timeout: Timeout = None,
    hang_timeout: HangTimeout = "10m",
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Compare the best settings of each arm on fresh seeds; train first what that needs.

    The best configurations of each arm are trained again with fresh seeds, one is chosen per arm,
    and that one is judged with other seeds on stories that the sweep never saw. Rerun to resume,
    or with more --seeds: each further analysis of two arms has a wider interval.
    """
    with resumable():
        from sweep.callbacks.live import make_display
        from sweep.cli.console import show
        from sweep.storage.schema import study_attrs
        from sweep.tuner.limits import Limits, seconds_of
        from sweep.tuner.options import RunOptions
        from sweep.verdict.request import make_request

        time_for_all = seconds_of("--timeout", timeout)
        silence = seconds_of("--hang-timeout", hang_timeout)
        opened, stored = stored_study(study, storage)
        names = None if arms is None else [name.strip() for name in arms.split(",")]
        request = make_request(stored, names, seeds, top)
        options = RunOptions(
            storage=storage,
            runs=runs,
            device=device or study_attrs(stored).device or "auto",
            workers=workers_of(workers),
            limits=Limits(sweep=time_for_all, silence=silence),
            wait=wait,
        )
        quietly = quiet or as_json
        record, report = _answered(
            request, opened, options, lambda: make_display(quietly), quiet=quietly
        )
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    if quiet:
        typer.echo(record["answer"])
        return
    typer.echo()
    show(_table(record))
    typer.echo(f"\n{record['answer']}\n\nreport: {report}")


def _answered(
    request: "VerdictRequest",
    storage: "RDBStorage",
    options: "RunOptions",
    make_callback: "MakeCallback",
    *,
    quiet: bool,
) -> "tuple[Record, Path]":
    """Train the missing runs, judge, and keep the answer in study, dashboard and report."""
    from sweep.analysis.results import confirm_runs_table
    from sweep.cli.console import working
    from sweep.dashboard.notes import publish
    from sweep.format import unseen
    from sweep.report.report import write_report
    from sweep.verdict.confirm_results import without_stories
    from sweep.verdict.confirm_runs import lock_sweep, run_phases
    from sweep.verdict.record import keep, make_record

    study = request.study
    with lock_sweep(request, options, make_callback):
        summary = run_phases(request, storage, options, make_callback)
        if summary.interrupted:
            where = f"{summary.finished} of {summary.total} runs of {summary.study}"
            say_how_to_resume(f"stopped at {where}")
            raise typer.Exit(128 + summary.signal if summary.signal else BusyError.exit_code)
        if missing := without_stories(confirm_runs_table(storage, study)):
            print(
                f"{', '.join(missing)} left no stories: the second interval, over stories, is "
                f"left out",
                file=sys.stderr,
            )
        record = make_record(request, storage)
        keep(study, record)
    out = options.runs / study.study_name / "report.html"
    with nullcontext(unseen) if quiet else working("writing the report") as show:
        publish(study, storage)
        return record, write_report(storage, study, out, show=show)


def _table(record: "Record") -> "Table":
    """Lay out one row per arm: settings, ratio to the reference, interval, answer."""
    from rich.table import Table
    from rich.text import Text

    from sweep.verdict.summary_text import TABLE_COLUMNS, table_rows

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in TABLE_COLUMNS:
        right = column not in (TABLE_COLUMNS[0], TABLE_COLUMNS[-1])
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in table_rows(record):
        table.add_row(*map(Text, row))
    return table
