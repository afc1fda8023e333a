"""Status of a study for the terminal: trials, counts, best per arm, notice."""

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from gpt.errors import InputError
from sweep.analysis.phases import searches_of
from sweep.analysis.results import (
    UNFINISHED,
    best_by_arm,
    best_trials,
    compared_parameter,
    longest,
    metric_of_study,
    missing_runs,
    module_of_trials,
    param_column,
    run_dir,
    search_space,
    trial_rows,
)
from sweep.analysis.time_left import pruner_of, seconds_left, stored_paces
from sweep.backends.local import LocalProcess
from sweep.storage.location import runs_folder
from sweep.storage.schema import StudyAttrs, is_ours, study_attrs
from sweep.study import format as fmt

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from sweep.study.metric import Metric
    from sweep.tuner.summary import Summary


def study_status(study: optuna.Study, width: int) -> "list[RenderableType]":
    """Render the status of a study, running or not, in `width` columns."""
    from rich.text import Text

    rows, ours = trial_rows(study), is_ours(study)
    attrs = study_attrs(study) if ours else StudyAttrs()
    parts: list[RenderableType] = [Text(line, "bold") for line in _facts(study, attrs)]
    if notice := (attrs.data or {}).get("notice"):
        parts.append(Text(f"NOTICE: {notice}", "bold yellow"))
    newest = _newest(rows)
    if len(newest) < len(rows):
        parts.append(Text(f"{len(newest):,} of {len(rows):,} trials, the newest; --json has all"))
    parts.append(_table(study, newest, width) if rows else Text("no trials yet"))
    counts = [f"{count} {outcome}" for outcome, count in _outcomes(rows).items()]
    left = [f"about {fmt.duration(seconds)} left"] if (seconds := _seconds_left(study)) else []
    total = attrs.n_trials or (len(rows) if rows and not ours else "?")
    finished = f"{_finished(rows)}/{total} trials finished"
    parts.append(Text(", ".join([finished, *counts, *left])))
    if best := _best_line(study, ours):
        parts.append(Text(best, "green"))
    if ours and (ends := _range_ends(study)):
        parts.append(Text(f"at an end of what was searched: {ends}", "yellow"))
    if ours and (searches := _searches(study)):
        counts = [f"{one['study']} {one['finished']}/{one['total']}" for one in searches]
        parts.append(Text(f"further searches: {', '.join(counts)}"))
    if ours and (missing := missing_runs(study)):
        parts.append(Text(_without_folders(study, missing), "yellow"))
    return parts


def _newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select the newest MOST_ROWS trials; those that are unfinished come first into it."""
    ordered = sorted(rows, key=lambda row: (row["outcome"] in UNFINISHED, row["number"]))
    return sorted(ordered[-MOST_ROWS:], key=lambda row: int(row["number"]))


def status_json(study: optuna.Study) -> str:
    """Return the status as JSON: facts, counts, the best per arm, missing runs and every trial.

    Of a study of another program the best trials, several where it has several objectives.
    """
    rows, ours = trial_rows(study), is_ours(study)
    attrs = study_attrs(study) if ours else StudyAttrs()
    found: dict[str, Any] = {
        "study": study.study_name,
        "device": attrs.device,
        "data": attrs.data,
        "finished": _finished(rows),
        "total": attrs.n_trials or (None if ours else len(rows)),
        "outcomes": _outcomes(rows),
    }
    if ours:
        best, name = best_by_arm(study).items(), metric_of_study(study).name
        found["best"] = {arm: {"trial": n, name: value} for arm, (n, value) in best}
        found["missing_runs"] = missing_runs(study)
        found["searches"] = _searches(study)
    else:
        found["directions"] = [direction.name.lower() for direction in study.directions]
        found["best"] = [{"trial": t.number, "values": t.values} for t in best_trials(study)]
    space = dict.fromkeys(search_space(study))
    own = None if ours else ("arm", "origin", "perplexity", "cross_entropy", "n_params", "reason")
    found["trials"] = [_record(row, space, own) for row in rows]
    if ours:  # the figure in the column `perplexity`, by its name
        found["trials"] = [_named(row, name) for row in found["trials"]]
    return json.dumps(fmt.json_values(found), indent=1, ensure_ascii=False)


def _record(
    row: dict[str, Any], space: dict[str, None], left_out: tuple[str, ...] | None
) -> dict[str, Any]:
    """Return a trial for JSON: ours flat, as a row of the table of trials; another's as it is."""
    if left_out is not None:
        return {name: value for name, value in row.items() if name not in left_out}
    flat = {name: value for name, value in row.items() if name not in ("params", "values")}
    return {
        **flat,
        **{param_column(name): value for name, value in (space | row["params"]).items()},
    }


def _named(row: dict[str, Any], metric: str) -> dict[str, Any]:
    """Give the figure in the column `perplexity` its name, in its place."""
    others = {key: value for key, value in row.items() if key != metric or key == "perplexity"}
    return {metric if key == "perplexity" else key: value for key, value in others.items()}


def _outcomes(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Count outcomes, the most frequent first."""
    return dict(Counter(row["outcome"] for row in rows).most_common())


def _finished(rows: list[dict[str, Any]]) -> int:
    return sum(row["outcome"] not in UNFINISHED for row in rows)


def _searches(study: optuna.Study) -> list[dict[str, Any]]:
    """Count the trials of the further searches that a verdict runs."""
    return [
        {
            "study": one.study_name,
            "finished": _finished(trial_rows(one)),
            "total": study_attrs(one).n_trials,
        }
        for one in searches_of(study)
    ]


def _best_line(study: optuna.Study, ours: bool) -> str:
    """Name the best trial of each arm; in another program's study those that none beats."""
    if ours:
        best = best_by_arm(study)
        return f"best: {fmt.best_line(best, metric_of_study(study).shown)}" if best else ""
    found = best_trials(study)
    goals = ", ".join(direction.name.lower() for direction in study.directions)
    if not found:
        return ""
    if len(study.directions) == 1:
        return f"best ({goals}): {fmt.number(found[0].values[0])} (trial {found[0].number})"
    numbers = fmt.trials_line([trial.number for trial in found])
    return f"best ({goals}): {numbers}, no trial is better in every value"


def _range_ends(study: optuna.Study) -> str:
    """Name the settings of the best trial of each arm that lie at an end of their range."""
    from sweep.study.range_ends import ends_of_trial  # late: it imports pydantic

    trials, spec = study.get_trials(deepcopy=False), study_attrs(study).spec
    found = {
        arm: ends_of_trial(spec, trials[number].params)
        for arm, (number, _) in best_by_arm(study).items()
    }
    alone = len(found) == 1
    return "; ".join(ends if alone else f"{arm} {ends}" for arm, ends in found.items() if ends)


def closing_lines(
    summary: "Summary", folder: Path, storage: str, suffix: str, steps: int | None, report: Path
) -> list[str]:
    """Summarise a finished sweep: counts, paths, and the next commands.

    Args:
        summary: Of a sweep that was not interrupted.
        folder: Its run directories.
        storage: As the user gave it.
        suffix: The options by which the commands find that storage.
        steps: Of the final training that is suggested; None: a program's, which starts otherwise.
        report: The report that was written.
    """
    counted = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items())
    ended = f"{summary.study} is complete"
    if summary.already_complete:
        ended = f"{summary.study} is already complete"
    took = "" if summary.already_complete else f" in {fmt.duration(summary.seconds)}"
    return [
        f"{ended}: {summary.finished}/{summary.total} trials ({counted}){took}",
        f"best: {fmt.best_line(summary.best, summary.metric.shown)}"
        if summary.best
        else "no trial is complete",
        f"runs: {folder}, storage: {storage}",
        f"report: {report}",
        "next:",
        *(f"  squen-sweep {words}" for words in _next_commands(summary, folder, suffix, steps)),
    ]


def _next_commands(summary: "Summary", folder: Path, suffix: str, steps: int | None) -> list[str]:
    """List what to do after a sweep, the most worth first: only what can be done now."""
    named = f"--study {shlex.quote(summary.study)}{suffix}"
    if not summary.best:  # nothing to judge, to export or to draw: why is what matters
        return [f"status {named}"]
    runs = folder.parent  # a verdict's runs belong beside the search's
    beside = "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"
    judged = len(summary.arms) > 1 and len(summary.best) == len(summary.arms)
    return [
        *([f"verdict {named}{beside}"] if judged else []),
        f"report {named} --open",
        f"export {named} -o best.toml",
        *([f"train best.toml --steps {steps}"] if steps else []),
        f"dashboard{suffix}",
    ]


def _facts(study: optuna.Study, attrs: StudyAttrs) -> list[str]:
    """List study, data and, if known, the lowest possible perplexity, one line each."""
    if attrs.spec is None:
        return [f"study {study.study_name}, which another program made"]
    data = attrs.data or {}
    facts = [f"study {study.study_name} on {attrs.device or 'no device yet'}"]
    if data.get("kind") == "program":
        facts.append(f"program: {data['name']}")
    elif data:
        facts.append(
            f"data: {data['name']}, {data['train_tokens']:,} training tokens, {data['tokenizer']}"
        )
        if data.get("floor_perplexity") is not None:
            floor = fmt.perplexity(data["floor_perplexity"])
            facts.append(f"the grammar itself has perplexity {floor} on these validation stories")
    return facts


def _without_folders(study: optuna.Study, missing: list[int]) -> str:
    """Name the trials whose run directory is gone, and what works without it."""
    folder = fmt.relative(runs_folder(study))
    return (
        f"no run directory in {folder} of {fmt.trials_line(missing)}: figures and export are from "
        f"the database; sample and a trial that is to go on need it"
    )


def _table(study: optuna.Study, trials: list[dict[str, Any]], width: int) -> "Table":
    """Make one row per trial, without origin and reason if there is no room for them."""
    from rich.table import Table
    from rich.text import Text

    wide, ours = width >= WIDE_TERMINAL, is_ours(study)
    space = search_space(study)
    names = [name for name in space if name != compared_parameter(study)]
    formats = {
        name: fmt.column_format(
            [trial["params"].get(name) for trial in trials], log=fmt.on_log_scale(space[name])
        )
        for name in names
    }
    curves = _curves(study) if wide and ours else {}
    words = ["arm", *(["origin"] if wide else []), "outcome"] if ours else ["outcome"]
    metric = metric_of_study(study) if ours else None
    figures = [metric.name] if metric else _objectives(study)
    rows = [
        _row(trial, words, _values(trial, metric, len(figures)), formats, wide and ours, curves)
        for trial in trials
    ]
    numbers = ["step", *(["curve"] if curves else []), *figures]
    numbers += [fmt.SHORT_NAMES.get(name, name) for name in names]
    columns = ["trial", *words, *numbers]
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), header_style="bold")
    for place, room in enumerate(_widths(columns, len(words), rows, width)):
        column = columns[place]
        is_word = 1 <= place <= len(words)
        table.add_column(
            Text(column),
            width=None if wide else room,
            no_wrap=wide or is_word,  # numbers' headers may fold, numbers have room
            overflow="ellipsis" if is_word else "fold",
            justify="right" if place > len(words) else "left",
        )
    if wide and ours:
        table.add_column("reason")  # the only one that may wrap
    for row, trial in zip(rows, trials, strict=True):
        table.add_row(*map(Text, row), style=STYLES.get(trial["outcome"], "yellow"))
    return table


def _objectives(study: optuna.Study) -> list[str]:
    """Name the objectives of another program's study."""
    if study.metric_names:
        return list(study.metric_names)
    count = len(study.directions)
    return ["value"] if count == 1 else [f"value {index}" for index in range(count)]


def _widths(columns: list[str], words: int, rows: list[list[str]], width: int) -> list[int]:
    """Fit column widths to `width`: shorten text first, then fold headers, never numbers.

    Args:
        columns: The trial's number, then columns of text, then numbers.
        words: How many columns have text.
        rows: Cells of at least these columns.
        width: Of the terminal.
    """
    cells = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    full = [max(len(column), cell) for column, cell in zip(columns, cells, strict=True)]
    text = range(1, 1 + words)
    wanted = sum(full[place] for place in text)
    folded = [max(min(len(c), LETTERS), cell) for c, cell in zip(columns, cells, strict=True)]
    for widths in (full, folded):
        room = width - len(columns) - sum(widths) + sum(widths[place] for place in text)
        if room >= LETTERS * words:
            break
    shared = {n: max(LETTERS, min(full[n], room * full[n] // wanted)) for n in text}
    return [shared.get(place, width) for place, width in enumerate(widths)]


def _curves(study: optuna.Study) -> dict[int, str]:
    """Draw the curve of each running trial, as `run` does."""
    spec = study_attrs(study).spec or {}
    max_steps = spec.get("train", {}).get("max_steps")
    if program := spec.get("trainer"):
        max_steps = program["max_steps"] or longest(study)
    return {
        trial.number: fmt.sparkline(
            [value for _, value in sorted(trial.intermediate_values.items())],
            min(1.0, (trial.last_step or 0) / max_steps),
        )
        for trial in _running(study)
        if max_steps
    }


def _running(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]


def _run_dirs(study: optuna.Study) -> list[Path]:
    """List the run directories of the running trials; one that was just asked has none yet."""
    found = []
    for trial in _running(study):
        with suppress(InputError):
            found.append(run_dir(study, trial))
    return found


def _seconds_left(study: optuna.Study) -> float | None:
    """Estimate the seconds left; None if no process trains here, or it would be a guess."""
    slots = len(LocalProcess.find(dict.fromkeys(_run_dirs(study), module_of_trials(study))))
    if not slots:
        return None
    started = [pace for pace in stored_paces(study) if pace.outcome != "waiting"]
    total = study_attrs(study).n_trials or len(started)
    waiting = max(0, total - len(started))
    return seconds_left(started, waiting, slots, pruner_of(study))


def _row(
    trial: dict[str, Any],
    words: list[str],
    values: list[str],
    formats: dict[str, Callable[[Any], str]],
    with_reason: bool,
    curves: dict[int, str],
) -> list[str]:
    known = ["-" if trial[key] is None else str(trial[key]) for key in ("number", *words)]
    known.append("-" if trial["last_step"] is None else str(trial["last_step"]))
    known += [curves.get(trial["number"], "")] if curves else []
    params = trial["params"]
    chosen = [write(params[name]) if name in params else "-" for name, write in formats.items()]
    return [*known, *values, *chosen, *([trial["reason"] or ""] if with_reason else [])]


def _values(trial: dict[str, Any], metric: "Metric | None", count: int) -> list[str]:
    """Return what a trial measured: the metric of ours, or each value of another program's."""
    last = trial["perplexity"]
    if metric is not None:
        return [metric.shown(None if math.isnan(last) else last)]
    reported = None if math.isnan(last) else [last]
    return [fmt.number(value) for value in trial["values"] or reported or ["-"] * count]


WIDE_TERMINAL = 100  # columns
MOST_ROWS = 1000  # of the table, which takes a millisecond a row
LETTERS = 5  # of a name at least: enough to distinguish arms and outcomes
STYLES = {"complete": "", "running": "cyan", "waiting": "cyan", "pruned": "dim"}
