"""Everything of a study that a report or a figure needs, read once; and the answer it gives."""

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
from sweep.format import number, perplexity
from sweep.storage.rdb import storage_url
from sweep.study.paths import DEFAULT_STORAGE

DASH = "–"  # where there is no value


@dataclass(frozen=True)
class Stored:
    """Everything of a study that the report reads, read once."""

    study: optuna.Study
    url: str  # of its storage, without a password
    trials: pd.DataFrame  # results.trials_table, with columns of the last evaluation
    evaluations: pd.DataFrame
    confirm_runs: pd.DataFrame  # results.confirm_runs_table
    arms: list[str]
    parameters: dict[str, BaseDistribution]  # searched, without the one whose choices are the arms

    @property
    def spec(self) -> dict[str, Any]:
        """The study file, resolved for the device."""
        return dict(self.study.user_attrs["spec"])

    @property
    def data(self) -> dict[str, Any]:
        """Facts of the prepared text."""
        return dict(self.study.user_attrs["data"])

    @property
    def verdict(self) -> dict[str, Any] | None:
        """What `squen-sweep verdict` found, as sweep.verdict.record keeps it."""
        return self.study.user_attrs.get("verdict")

    @property
    def progress(self) -> tuple[int, int]:
        """Finished trials, and how many there are to be."""
        finished = int((~self.trials["outcome"].isin(results.UNFINISHED)).sum())
        return finished, self.study.user_attrs.get("n_trials", len(self.trials))

    @property
    def complete(self) -> pd.DataFrame:
        """The rows of complete trials, the lowest perplexity first."""
        complete = self.trials[self.trials["outcome"] == "complete"]
        return complete.sort_values(["perplexity", "number"])


def read(storage: RDBStorage, study: optuna.Study) -> Stored:
    """Read all that a report shows of a study."""
    evaluations = results.evaluations_table(storage, study.study_name)
    measured = [name for name in results.YARDSTICKS[1:] if name in evaluations.columns]
    last = results.last_evaluations(evaluations)[["tokens", "elapsed_seconds", *measured]]
    space = results.search_space(study)
    space.pop(results.compared_parameter(study) or "", None)
    return Stored(
        study=study,
        url=sa.make_url(storage.url).render_as_string(hide_password=True),
        trials=results.trials_table(study).join(last, on="number"),
        evaluations=evaluations,
        confirm_runs=results.confirm_runs_table(storage, study),
        arms=results.arms(study),
        parameters=space,
    )


# The answer


@dataclass(frozen=True)
class Answer:
    """What a report says first."""

    text: str
    more: str = ""  # what else belongs to it
    caveat: str = ""  # why that is not sure yet
    confirm: str | None = None  # the command that makes it so; None where none does


def answer(stored: Stored) -> Answer:
    """The verdict if there is one, else what the search alone says."""
    if stored.verdict:
        return _judged(stored.verdict, stored.data["notice"])
    if len(stored.arms) < 2:  # nothing is compared, so nothing can be confirmed
        return Answer(_found(stored))
    return Answer(_found(stored), caveat=CAVEAT, confirm=confirm_command(stored))


def _judged(verdict: dict[str, Any], notice: str | None) -> Answer:
    """The sentences that answer, then the others; the notice stands by itself wherever they do."""
    first = verdict.get("headline") or [verdict["answer"]]
    more = verdict["answer"]
    for known in [*first, f"Note: {(notice or '').rstrip('.')}."]:
        more = more.replace(known, "")
    return Answer(" ".join(first), more=" ".join(more.split()))


CAVEAT = (
    "This is the best of a search with one seed. The lowest of many noisy results is lower than "
    "the same settings would reach on average, so a small difference says nothing until it holds "
    "with other seeds."
)


def _found(stored: Stored) -> str:
    """The best of each arm, and what is still missing, in sentences."""
    best = best_of_arms(stored)
    without = [arm for arm in stored.arms if arm not in {entry.arm for entry in best}]
    sentences = [*_ranking(stored, best, bool(without))]
    sentences += [f"Of {named(stored, arm)} no trial is complete yet." for arm in without]
    finished, total = stored.progress
    if finished < total:
        sentences.append(f"The search is not finished: {finished} of {total} trials.")
    return " ".join(sentences)


def _ranking(stored: Stored, best: list["Best"], alone: bool) -> Iterator[str]:
    if not best:
        return
    first, *others = best
    if not others:
        name = named(stored, first.arm) if alone else "The best trial"
        yield f"{name} reached a validation perplexity of {perplexity(first.perplexity)}."
        return
    lowest = perplexity(first.perplexity)
    yield f"{named(stored, first.arm)} reached the lowest validation perplexity, {lowest}."
    for other in others:
        yield (
            f"{named(stored, other.arm)} reached {perplexity(other.perplexity)}, "
            f"{other.ratio:.3f} times as much."
        )


def named(stored: Stored, arm: str) -> str:
    """An arm in a sentence: its own name if it is a loss, else "n_layer 4"."""
    compared = stored.spec.get("compare")
    if not compared:
        return "this study"
    return arm if compared == "loss" else f"{compared} {arm}"


@dataclass(frozen=True)
class Confirmed:
    """What stands for an arm in a verdict: the mean of fresh seeds on held-back stories."""

    number: int  # the trial whose settings they are
    perplexity: float
    seeds: int
    settings: list[tuple[str, str]]


@dataclass(frozen=True)
class Best:
    """The best trial of one arm."""

    arm: str
    number: int
    perplexity: float
    ratio: float  # to the lowest of all arms
    bits_per_byte: float
    n_complete: int  # of how many it is the best
    settings: list[tuple[str, str]]
    baselines: list[tuple[str, int, float]]  # name, trial, perplexity
    confirmed: Confirmed | None  # where there is a verdict on this arm


def best_of_arms(stored: Stored) -> list[Best]:
    """The best trial of each arm that has a complete one; the lowest perplexity first."""
    complete = stored.complete
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
                (name, shown(row[name])) for name in stored.parameters if not pd.isna(row[name])
            ],
            baselines=_baselines(complete[complete["arm"] == row["arm"]]),
            confirmed=_confirmed(stored, row["arm"]),
        )
        for row in rows_of(winners)
    ]


def _confirmed(stored: Stored, arm: str) -> Confirmed | None:
    for one in (stored.verdict or {}).get("confirmed", []):
        if one["arm"] == arm:
            settings = [(name, shown(value)) for name, value in one["params"].items()]
            return Confirmed(one["trial"], one["perplexity"], len(one["perplexities"]), settings)
    return None


def _baselines(complete: pd.DataFrame) -> list[tuple[str, int, float]]:
    of_baselines = complete[complete["origin"].str.startswith("baseline:", na=False)]
    return [
        (row["origin"].removeprefix("baseline:"), row["number"], row["perplexity"])
        for row in rows_of(of_baselines.sort_values("number"))
    ]


def confirm_command(stored: Stored) -> str:
    """What to run for an answer that holds with other seeds."""
    return f"squen-sweep verdict {study_options(stored)}"


def study_options(stored: Stored) -> str:
    """The options that name a study to any command."""
    default = stored.url == storage_url(DEFAULT_STORAGE)
    storage = "" if default else f" --storage {shlex.quote(stored.url)}"
    return f"--study {stored.study.study_name}{storage}"


def run_dir_of(stored: Stored, trial_number: int) -> Path:
    """Where a trial trained."""
    return results.run_dir(stored.study, stored.study.get_trials(deepcopy=False)[trial_number])


def shown(value: Any) -> str:
    """A value in few characters; a dash where there is none."""
    return DASH if pd.isna(value) else number(value)


def rows_of(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Rows of a table, with Python values."""
    return table.to_dict("records")
