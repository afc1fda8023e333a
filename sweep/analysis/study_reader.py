"""A study as a report or a figure needs it, read once, and the answer that it gives."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage

from sweep.analysis import results
from sweep.format import number, perplexity, relative
from sweep.storage.rdb import sqlite_path, storage_url
from sweep.storage.schema import study_attrs
from sweep.study.paths import DEFAULT_STORAGE

DASH = "–"  # in place of a missing value


@dataclass(frozen=True)
class StudyReader:
    """Snapshot of a study: its tables, arms and searched parameters."""

    study: optuna.Study
    storage: str  # as --storage takes it from the current folder, without a password
    trials: pd.DataFrame  # results.trials_table, with columns of the last evaluation
    evaluations: pd.DataFrame
    confirm_runs: pd.DataFrame  # results.confirm_runs_table
    arms: list[str]
    parameters: dict[str, BaseDistribution]  # searched, without the one whose choices are the arms

    @property
    def spec(self) -> dict[str, Any]:
        """The study file, resolved for the device."""
        return dict(study_attrs(self.study).spec or {})

    @property
    def data(self) -> dict[str, Any]:
        """Facts of the prepared text: source, tokens, fingerprint."""
        return dict(study_attrs(self.study).data or {})

    @property
    def verdict(self) -> dict[str, Any] | None:
        """Record of `squen-sweep verdict`, see sweep.verdict.record; None before it."""
        return study_attrs(self.study).verdict

    @property
    def progress(self) -> tuple[int, int]:
        """Numbers of finished and of requested trials."""
        finished = int((~self.trials["outcome"].isin(results.UNFINISHED)).sum())
        return finished, study_attrs(self.study).n_trials or len(self.trials)

    @property
    def complete(self) -> pd.DataFrame:
        """Rows of complete trials, the lowest perplexity first."""
        complete = self.trials[
            (self.trials["outcome"] == "complete") & (self.trials["arm"] != results.OUTSIDE)
        ]
        return complete.sort_values(["perplexity", "number"])


def read_study(storage: RDBStorage, study: optuna.Study) -> StudyReader:
    """Read what a report shows of a study."""
    evaluations = results.evaluations_table(storage, study.study_name)
    measured = [name for name in results.METRICS[1:] if name in evaluations.columns]
    last = results.last_evaluations(evaluations)[["tokens", "elapsed_seconds", *measured]]
    space = results.search_space(study)
    space.pop(results.compared_parameter(study) or "", None)
    return StudyReader(
        study=study,
        storage=_storage_option(str(storage.url)),
        trials=results.trials_table(study).join(last, on="number"),
        evaluations=evaluations,
        confirm_runs=results.confirm_runs_table(storage, study),
        arms=results.arms(study),
        parameters=space,
    )


def _storage_option(url: str) -> str:
    path = sqlite_path(url)
    return relative(path) if path else sa.make_url(url).render_as_string(hide_password=True)


# The answer


@dataclass(frozen=True)
class ReportAnswer:
    """The first words of a report."""

    text: str
    more: str = ""  # sentences that belong to it
    caveat: str = ""  # why that is not sure yet
    confirm: str | None = None  # the command that makes it sure, if there is one


def answer(reader: StudyReader) -> ReportAnswer:
    """Return the verdict if there is one, else the result of the search alone."""
    if reader.verdict:
        return _judged(reader.verdict, reader.data["notice"])
    if len(reader.arms) < 2:  # nothing is compared, so nothing can be confirmed
        return ReportAnswer(_found(reader))
    return ReportAnswer(_found(reader), caveat=CAVEAT, confirm=confirm_command(reader))


def _judged(verdict: dict[str, Any], notice: str | None) -> ReportAnswer:
    """Return the headline, then the other sentences without the notice, which is shown apart."""
    first = verdict.get("headline") or [verdict["answer"]]
    more = verdict["answer"]
    for known in [*first, f"Note: {(notice or '').rstrip('.')}."]:
        more = more.replace(known, "")
    return ReportAnswer(" ".join(first), more=" ".join(more.split()))


CAVEAT = (
    "This is the best of a search with one seed. The lowest of many noisy results is lower than "
    "the same settings would reach on average, so a small difference says nothing until it holds "
    "with other seeds."
)


def _found(reader: StudyReader) -> str:
    """Name the best of each arm, and what is still missing, in sentences."""
    best = best_of_arms(reader)
    without = [arm for arm in reader.arms if arm not in {entry.arm for entry in best}]
    sentences = [*_ranking(reader, best, bool(without))]
    sentences += [f"Of {named(reader, arm)} no trial is complete yet." for arm in without]
    finished, total = reader.progress
    if finished < total:
        sentences.append(f"The search is not finished: {finished} of {total} trials.")
    return " ".join(sentences)


def _ranking(reader: StudyReader, best: list["Best"], alone: bool) -> Iterator[str]:
    if not best:
        return
    first, *others = best
    if not others:
        name = named(reader, first.arm) if alone else "The best trial"
        yield f"{name} reached a validation perplexity of {perplexity(first.perplexity)}."
        return
    lowest = perplexity(first.perplexity)
    yield f"{named(reader, first.arm)} reached the lowest validation perplexity, {lowest}."
    for other in others:
        yield (
            f"{named(reader, other.arm)} reached {perplexity(other.perplexity)}, "
            f"{other.ratio:.3f} times as much."
        )


def named(reader: StudyReader, arm: str) -> str:
    """Name an arm in a sentence: its own name if it is a loss, else "n_layer 4"."""
    compared = reader.spec.get("compare")
    if not compared:
        return "this study"
    return arm if compared == "loss" else f"{compared} {arm}"


@dataclass(frozen=True)
class Confirmation:
    """An arm's result in a verdict: the mean of fresh seeds on held-back stories."""

    number: int  # the trial whose settings they are
    perplexity: float
    seeds: int
    settings: list[tuple[str, str]]


@dataclass(frozen=True)
class Best:
    """Best trial of one arm."""

    arm: str
    number: int
    perplexity: float
    ratio: float  # to the lowest of all arms
    bits_per_byte: float
    n_complete: int  # of how many it is the best
    settings: list[tuple[str, str]]
    baselines: list[tuple[str, int, float]]  # name, trial, perplexity
    confirmed: Confirmation | None  # if there is a verdict on this arm


def best_of_arms(reader: StudyReader) -> list[Best]:
    """List the best trial of each arm that has a complete one, the lowest perplexity first."""
    complete = reader.complete
    winners = complete.drop_duplicates("arm")
    return [
        Best(
            arm=row["arm"],
            number=row["number"],
            perplexity=row["perplexity"],
            ratio=row["perplexity"] / complete["perplexity"].iloc[0],
            bits_per_byte=row["bits_per_byte"],
            n_complete=int((complete["arm"] == row["arm"]).sum()),
            settings=[
                (name, shown(row[name])) for name in reader.parameters if not pd.isna(row[name])
            ],
            baselines=_baselines(complete[complete["arm"] == row["arm"]]),
            confirmed=_confirmed(reader, row["arm"]),
        )
        for row in rows_of(winners)
    ]


def _confirmed(reader: StudyReader, arm: str) -> Confirmation | None:
    for one in (reader.verdict or {}).get("confirmed", []):
        if one["arm"] == arm:
            settings = [(name, shown(value)) for name, value in one["params"].items()]
            return Confirmation(one["trial"], one["perplexity"], len(one["perplexities"]), settings)
    return None


def _baselines(complete: pd.DataFrame) -> list[tuple[str, int, float]]:
    of_baselines = complete[complete["origin"].str.startswith("baseline:", na=False)]
    return [
        (row["origin"].removeprefix("baseline:"), row["number"], row["perplexity"])
        for row in rows_of(of_baselines.sort_values("number"))
    ]


def confirm_command(reader: StudyReader) -> str:
    """Return the command for an answer that holds with other seeds."""
    return f"squen-sweep verdict {study_options(reader)}"


def study_options(reader: StudyReader) -> str:
    """Return the options that name a study to any command in the current folder."""
    default = reader.storage == _storage_option(storage_url(DEFAULT_STORAGE))
    storage = "" if default else f" --storage {shlex.quote(reader.storage)}"
    return f"--study {reader.study.study_name}{storage}"


def run_dir_of(reader: StudyReader, trial_number: int) -> Path:
    """Return the run directory of a trial."""
    return results.run_dir(reader.study, reader.study.get_trials(deepcopy=False)[trial_number])


def shown(value: Any) -> str:
    """Format a value in few characters, or a dash if it is missing."""
    return DASH if pd.isna(value) else number(value)


def rows_of(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table, with Python values."""
    return table.to_dict("records")
