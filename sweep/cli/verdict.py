"""The command `verdict`: which settings are better, by how much and how sure."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import InputError
from sweep.cli.options import (
    AsJson,
    BackendName,
    DeviceOfSweep,
    HangTimeout,
    RayAddress,
    Runs,
    Sbatch,
    Storage,
    StoredStudy,
    Timeout,
    Workers,
    resumable,
    sbatch_words,
    stop_if_interrupted,
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
    until: Annotated[
        str | None,
        typer.Option(help="settled: add seeds until each answer is better, worse or equivalent."),
    ] = None,
    max_seeds: Annotated[
        int | None, typer.Option(help="With --until: seeds of an arm at most; by default 40.")
    ] = None,
    searches: Annotated[
        int | None,
        typer.Option(
            help="Independent searches of all arms: which is better, tuned so? By default 1."
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="Configurations of each arm to screen; by default 3."),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    runs: Runs = Path("runs"),
    device: DeviceOfSweep = None,
    workers: Workers = "auto",
    backend: BackendName = "local",
    sbatch: Sbatch = "",
    ray_address: RayAddress = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until another run or verdict of the study ends.")
    ] = False,
    timeout: Timeout = None,
    hang_timeout: HangTimeout = "10m",
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Compare the best settings of each arm on fresh seeds; train first what that needs.

    The best configurations of each arm are trained again with fresh seeds, one is chosen per arm,
    and that one is judged with other seeds on stories that the sweep never saw. Rerun to resume,
    or with more --seeds: all numbers of seeds together are wrong in 5% of studies at most, so that
    one may ask at any time. --until settled adds seeds by itself.
    """
    with resumable():
        from sweep.callbacks.live import make_display
        from sweep.cli.console import show
        from sweep.storage.schema import study_attrs
        from sweep.tuner.limits import Limits, seconds_of
        from sweep.tuner.options import RunOptions
        from sweep.verdict.request import make_request
        from sweep.verdict.searches.plan import check_searches

        time_for_all = seconds_of("--timeout", timeout)
        silence = seconds_of("--hang-timeout", hang_timeout)
        opened, stored = stored_study(study, storage)
        names = None if arms is None else [name.strip() for name in arms.split(",")]
        request = make_request(stored, names, seeds, top)
        most = _most_seeds(until, max_seeds, request)
        count = check_searches(request, searches)
        if most is not None and count > 1:
            raise InputError(
                "--until must go without searches, of which more seeds say nothing more; "
                "add --searches 1, or more searches."
            )
        of_study = request.spec.backend.slurm.sbatch if backend == "slurm" else []
        options = RunOptions(
            storage=storage,
            runs=runs,
            device=device or study_attrs(stored).device or "auto",
            workers=workers_of(workers),
            backend=backend,
            sbatch=(*of_study, *sbatch_words(sbatch)),  # the last one wins
            ray_address=ray_address,
            limits=Limits(sweep=time_for_all, silence=silence),
            wait=wait,
        )
        quietly = quiet or as_json
        record, report = _answered(
            request, most, count, opened, options, lambda: make_display(quietly), quiet=quietly
        )
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    if quiet:
        typer.echo(record["answer"])
        return
    typer.echo()
    if record.get("searches"):
        show(_winner_table(record), "")
    show(_table(record))
    typer.echo(f"\n{record['answer']}\n\nreport: {report}")


def _most_seeds(until: str | None, max_seeds: int | None, request: "VerdictRequest") -> int | None:
    """Return the seeds up to which more are added; None: it is left at one analysis."""
    from sweep.study.spec import MOST_SEEDS
    from sweep.verdict.interim.until import DEFAULT_MAX_SEEDS

    if until is None:
        if max_seeds is not None:
            raise InputError("--max-seeds must come with --until settled; --seeds N trains N.")
        return None
    if until != "settled":
        raise InputError(f"--until must be settled, but got {until!r}.")
    most = DEFAULT_MAX_SEEDS if max_seeds is None else max_seeds
    if not request.seeds <= most <= MOST_SEEDS:
        raise InputError(
            f"--max-seeds must be from {request.seeds}, with which it begins, to {MOST_SEEDS}, "
            f"but got {most}."
        )
    return most


def _answered(
    request: "VerdictRequest",
    most: int | None,
    searches: int,
    storage: "RDBStorage",
    options: "RunOptions",
    make_callback: "MakeCallback",
    *,
    quiet: bool,
) -> "tuple[Record, Path]":
    """Train the missing runs, judge, and keep the answer in study, dashboard and report.

    With `most` seeds, more are added until the answer is settled. From two searches on, the others
    follow the first one's verdict.
    """
    from sweep.cli.console import working
    from sweep.dashboard.notes import publish
    from sweep.report.report import write_report
    from sweep.study.format import unseen
    from sweep.verdict.confirm_runs import lock_sweep, seeds_at_once, shared
    from sweep.verdict.interim.until import (
        analysis_in_words,
        is_settled,
        next_seeds,
        starting_seeds,
    )
    from sweep.verdict.record import add_searches, keep, kept
    from sweep.verdict.searches.run import run_searches

    study = request.study
    with lock_sweep(request, options, make_callback):
        if most is not None:
            begin = starting_seeds(kept(study), request.arms, request.seeds, most)
            request = replace(request, seeds=begin)
        left = shared(options)
        record = _analysed(request, storage, left(), make_callback)
        at_once = seeds_at_once(request, options)
        while most is not None and request.seeds < most and not is_settled(record):
            more = next_seeds(request.seeds, most, at_once)
            print(
                analysis_in_words(record, more),
                file=sys.stderr if quiet else sys.stdout,
                flush=True,
            )
            request = replace(request, seeds=more)
            record = _analysed(request, storage, left(), make_callback)
        if searches > 1:
            stopped = run_searches(request, storage, left, make_callback, searches)
            if stopped is not None:
                stop_if_interrupted(stopped, f"runs of {stopped.study}")
            record = add_searches(record, request, storage, searches)
            keep(study, record)
    out = options.runs / study.study_name / "report.html"
    with nullcontext(unseen) if quiet else working("writing the report") as show:
        publish(study, storage)
        return record, write_report(storage, study, out, show=show)


def _analysed(
    request: "VerdictRequest",
    storage: "RDBStorage",
    options: "RunOptions",
    make_callback: "MakeCallback",
) -> "Record":
    """Train the runs that an analysis lacks, judge, and keep the record with the study."""
    from sweep.analysis.phases import confirm_runs_table
    from sweep.verdict.confirm_results import without_stories
    from sweep.verdict.confirm_runs import run_phases
    from sweep.verdict.record import keep, make_record

    summary = run_phases(request, storage, options, make_callback)
    stop_if_interrupted(summary, f"runs of {summary.study}")
    runs = confirm_runs_table(storage, request.study)
    if request.spec.trainer is None and (missing := without_stories(runs)):
        print(
            f"{', '.join(missing)} left no stories: the second interval, over stories, is left out",
            file=sys.stderr,
        )
    record = make_record(request, storage)
    keep(request.study, record)
    return record


def _table(record: "Record") -> "Table":
    """Lay out one row per arm: settings, ratio to the reference, interval, answer."""
    from sweep.verdict.summary_text import table_columns, table_rows

    columns = table_columns(record)
    return _laid_out(columns, table_rows(record), words=(columns[0], columns[-1]))


def _winner_table(record: "Record") -> "Table":
    """Lay out one row per search and arm: its winner and what it is worth on fresh seeds."""
    from sweep.verdict.searches.words import winner_columns, winner_rows

    rows = winner_rows(record["searches"], is_perplexity=record["is_perplexity"])
    return _laid_out(winner_columns(record["metric"]), rows, words=("study", "arm", "its winner"))


def _laid_out(columns: list[str], rows: list[list[str]], words: tuple[str, ...]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
