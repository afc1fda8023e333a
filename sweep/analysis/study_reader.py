"""A study as a report or a figure needs it, read once, and the answer that it gives."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage

from sweep.analysis import phases, results
from sweep.storage.location import sqlite_path, storage_url
from sweep.storage.schema import StudyAttrs, study_attrs
from sweep.study.format import change, column_format, on_log_scale, relative
from sweep.study.metric import Metric, metric_of
from sweep.study.paths import DEFAULT_STORAGE
from sweep.study.range_ends import ends_of_trial

DASH = "–"  # in place of a missing value
MOST_SHOWN = 1000  # trials of a page one by one: with 10,000 a browser takes minutes to draw them


@dataclass(frozen=True)
class StudyReader:
    """Snapshot of a study: its tables, arms and searched parameters."""

    study: optuna.Study
    storage: str  # as --storage takes it from the current folder, without a password
    trials: pd.DataFrame  # results.trials_table, with columns of the last evaluation
    evaluations: pd.DataFrame  # as in `trials`, the column `perplexity` is the study's metric
    confirm_runs: pd.DataFrame  # phases.confirm_runs_table, likewise
    arms: list[str]
    # By its column in `trials`; without the one whose choices are the arms.
    parameters: dict[str, BaseDistribution]

    @cached_property
    def attrs(self) -> StudyAttrs:
        """Attributes of the study as they were when it was read."""
        return study_attrs(self.study)

    @property
    def spec(self) -> dict[str, Any]:
        """The study file, resolved for the device."""
        return dict(self.attrs.spec or {})

    @property
    def data(self) -> dict[str, Any]:
        """Facts of the prepared text: source, tokens, fingerprint."""
        return dict(self.attrs.data or {})

    @property
    def is_program(self) -> bool:
        """True where a program of the user's trains, without stories and tokens of ours."""
        return self.spec.get("trainer") is not None

    @property
    def metric(self) -> Metric:
        """The figure in the column `perplexity`."""
        return metric_of(self.spec)

    @property
    def lowest(self) -> float | None:
        """Value that nothing can be below, if it is known; a program's is exp of any number."""
        return 0.0 if self.is_program else self.data.get("floor_perplexity")

    @property
    def verdict(self) -> dict[str, Any] | None:
        """Record of `squen-sweep verdict`, see sweep.verdict.record; None before it."""
        return self.attrs.verdict

    @cached_property
    def formats(self) -> dict[str, Callable[[Any], str]]:
        """One way of writing each parameter, so that its values compare at a glance."""
        return {
            name: column_format(self.trials[name], log=on_log_scale(space))
            for name, space in self.parameters.items()
        }

    @property
    def progress(self) -> tuple[int, int]:
        """Numbers of finished and of requested trials."""
        finished = int((~self.trials["outcome"].isin(results.UNFINISHED)).sum())
        return finished, self.attrs.n_trials or len(self.trials)

    @cached_property
    def complete(self) -> pd.DataFrame:
        """Rows of complete trials, the best first."""
        complete = self.trials[
            (self.trials["outcome"] == "complete") & (self.trials["arm"] != results.OUTSIDE)
        ]
        return results.ranked(complete, self.metric)


def read_study(storage: RDBStorage, study: optuna.Study) -> StudyReader:
    """Read what a report shows of a study.

    Raises:
        InputError: another program made the study.
    """
    results.require_ours(study)
    evaluations = results.evaluations_table(storage, study.study_name)
    measured = [name for name in results.METRICS[1:] if name in evaluations.columns]
    last = results.last_evaluations(evaluations)[["tokens", "elapsed_seconds", *measured]]
    runs, ranked = phases.confirm_runs_table(storage, study), results.ranked_column(study)
    space = results.search_space(study)
    space.pop(results.compared_parameter(study) or "", None)
    return StudyReader(
        study=study,
        storage=_storage_option(str(storage.url)),
        trials=results.trials_table(study).join(last, on="number"),
        evaluations=evaluations.assign(perplexity=evaluations[ranked]),
        confirm_runs=runs.assign(perplexity=runs[ranked]),
        arms=results.arms(study),
        parameters={results.param_column(name): one for name, one in space.items()},
    )


def shown(reader: StudyReader) -> StudyReader:
    """Return the study with those trials alone that a page shows one by one: MOST_SHOWN at most.

    Of more they are baselines, the best of each arm (a quarter in all), and others drawn at random,
    the same each time. What sums trials up is made of all of them.
    """
    trials = reader.trials
    if len(trials) <= MOST_SHOWN:
        return reader
    best = reader.complete.groupby("arm").head(MOST_SHOWN // (4 * len(reader.arms))).index
    first = trials.index.isin(best) | trials["origin"].str.startswith("baseline:", na=False)
    others = trials[~first].sample(max(0, MOST_SHOWN - int(first.sum())), random_state=0).index
    few = trials[first | trials.index.isin(others)]
    of_them = reader.evaluations["trial_number"].isin(few["number"])
    return replace(reader, trials=few, evaluations=reader.evaluations[of_them])


def shown_of(reader: StudyReader) -> str:
    """Return a sentence on the trials that a page leaves out; empty where it leaves out none."""
    few, all_of_them = len(shown(reader).trials), len(reader.trials)
    if few == all_of_them:
        return ""
    return (
        f"Shown one by one are {few:,} of {all_of_them:,} trials: baselines, the best of each arm, "
        f"and others drawn at random."
    )


def _storage_option(url: str) -> str:
    path = sqlite_path(url)
    return relative(path) if path else sa.make_url(url).render_as_string(hide_password=True)


def heading(reader: StudyReader) -> tuple[str, str | None]:
    """Return the title of a study and, where it trained on other text, what that leaves open.

    A study's question is about the text that its file names; on the built-in stories it stays open.
    """
    question, name = reader.spec.get("question"), reader.study.study_name
    if reader.data.get("kind") != "built-in":
        return question or name, None
    arms = [] if len(reader.arms) < 2 else reader.arms
    title = f"{' or '.join(arms) or name}, on {ON_BUILT_IN}"
    open_question = f"These stories do not answer what the study asks: “{question}”"
    return title, open_question if question else None


ON_BUILT_IN = "the built-in stories"


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
    caveat = CAVEAT
    if reader.metric.maximize:
        caveat = caveat.replace("lowest", "highest").replace("lower", "higher")
    command = f"squen-sweep verdict {study_options(reader)}"
    return ReportAnswer(_found(reader), caveat=caveat, confirm=command)


def _judged(verdict: dict[str, Any], notice: str | None) -> ReportAnswer:
    """Return the headline, then the other sentences without the notice, which is shown apart."""
    first = verdict.get("headline") or [verdict["answer"]]
    more = verdict["answer"]
    for known in [*first, f"Note: {(notice or '').rstrip('.')}."]:
        more = more.replace(known, "")
    return ReportAnswer(" ".join(first), more=" ".join(more.split()))


CAVEAT = (
    "This is the best of a search with one seed. The best of many noisy results is better than "
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


def _ranking(reader: StudyReader, entries: list["Best"], alone: bool) -> Iterator[str]:
    if not entries:
        return
    (first, *others), metric = entries, reader.metric
    if not others:
        name = named(reader, first.arm) if alone else "The best trial"
        yield f"{name} reached a validation {metric.name} of {metric.shown(first.perplexity)}."
        return
    best = metric.shown(first.perplexity)
    superlative = "highest" if metric.maximize else "lowest"
    yield (
        f"{named(reader, first.arm)} reached the {superlative} validation {metric.name}, {best}."
    )
    for other in others:
        against = f", {change(other.ratio)}" if other.ratio > 0 else ""
        yield f"{named(reader, other.arm)} reached {metric.shown(other.perplexity)}{against}."


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
    ratio: float  # to the best of all arms; NaN where it means nothing
    bits_per_byte: float
    n_complete: int  # of how many it is the best
    settings: list[tuple[str, str]]
    baselines: list[tuple[str, int, float]]  # name, trial, perplexity
    range_ends: str  # settings at an end of what was searched, in words
    confirmed: Confirmation | None  # if there is a verdict on this arm


def best_of_arms(reader: StudyReader) -> list[Best]:
    """List the best trial of each arm that has a complete one, the best first."""
    complete = reader.complete
    winners = complete.drop_duplicates("arm")
    return [
        Best(
            arm=row["arm"],
            number=row["number"],
            perplexity=row["perplexity"],
            ratio=_ratio(row["perplexity"], complete["perplexity"].iloc[0]),
            bits_per_byte=row["bits_per_byte"],
            n_complete=int((complete["arm"] == row["arm"]).sum()),
            settings=written_settings(reader, row),
            baselines=_baselines(complete[complete["arm"] == row["arm"]]),
            range_ends=_range_ends(reader, row["number"]),
            confirmed=_confirmed(reader, row["arm"]),
        )
        for row in rows_of(winners)
    ]


def _range_ends(reader: StudyReader, number: int) -> str:
    trial = reader.study.get_trials(deepcopy=False)[number]
    return ends_of_trial(reader.spec, trial.params)


def _ratio(value: float, best: float) -> float:
    return value / best if min(value, best) > 0 else math.nan


def _confirmed(reader: StudyReader, arm: str) -> Confirmation | None:
    for one in (reader.verdict or {}).get("confirmed", []):
        if one["arm"] == arm:
            params = {results.param_column(name): value for name, value in one["params"].items()}
            settings = written_settings(reader, params)
            return Confirmation(one["trial"], one["perplexity"], len(one["perplexities"]), settings)
    return None


def _baselines(complete: pd.DataFrame) -> list[tuple[str, int, float]]:
    of_baselines = complete[complete["origin"].str.startswith("baseline:", na=False)]
    return [
        (row["origin"].removeprefix("baseline:"), row["number"], row["perplexity"])
        for row in rows_of(of_baselines.sort_values("number"))
    ]


def study_options(reader: StudyReader) -> str:
    """Return the options that name a study to any command in the current folder."""
    default = reader.storage == _storage_option(storage_url(DEFAULT_STORAGE))
    storage = "" if default else f" --storage {shlex.quote(reader.storage)}"
    return f"--study {shlex.quote(reader.study.study_name)}{storage}"


def run_dir_of(reader: StudyReader, trial_number: int) -> Path:
    """Return the run directory of a trial."""
    return results.run_dir(reader.study, reader.study.get_trials(deepcopy=False)[trial_number])


def written_settings(reader: StudyReader, values: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Write the searched parameters that `values` has by column, each as in every other trial."""
    return [
        (name, write(values[name]))
        for name, write in reader.formats.items()
        if not pd.isna(values.get(name))
    ]


def rows_of(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table, with Python values."""
    return table.to_dict("records")
