"""The database beside Optuna's own columns: user attributes of studies and trials, evaluations.

This file alone spells their names. No value is an absolute path: a project folder that was moved or
copied is read where it lies. Add an attribute by adding a field.

    studies, trials, ...   Optuna's tables, with the user attributes below
    evaluations            one row for each Evaluation of a trial: trial_id (of Optuna's table
                           trials), step, and the other fields of gpt.events.Evaluation

Of databases that an earlier version wrote, `LEGACY` columns and attributes are read, never written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import sqlalchemy as sa
from optuna.study import StudySummary

from gpt.events import Evaluation

_COLUMN_TYPES: dict[object, sa.types.TypeEngine[Any]] = {
    int: sa.BigInteger(),
    float: sa.Float(53),
    float | None: sa.Float(53),
}

metadata = sa.MetaData()
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True),
    *(
        sa.Column(field.name, _COLUMN_TYPES[field.type], primary_key=field.name == "step")
        for field in fields(Evaluation)
    ),
)

# Optuna's own, as far as our rows are joined with them.
optuna_studies = sa.table("studies", sa.column("study_id"), sa.column("study_name"))
optuna_trials = sa.table(
    "trials", sa.column("trial_id"), sa.column("number"), sa.column("study_id")
)


@dataclass(frozen=True, kw_only=True)
class StudyAttrs:
    """User attributes of a study; None where they are not written (yet)."""

    spec: dict[str, Any] | None = None  # StudySpec as JSON, resolved for its device
    spec_digest: str | None = None  # StudySpec.digest
    data: dict[str, Any] | None = None  # facts of the text, see sweep.study.dataset.data_facts
    device: str | None = None  # "cpu" or "cuda"
    identity: str | None = None  # random; also in the file .study of the folder of its runs
    runs: str | None = None  # that folder, relative to the database's (or the current) folder
    n_trials: int | None = None  # total that was asked for
    wall_seconds: float = 0.0  # of all calls of `run` together
    verdict: dict[str, Any] | None = None  # the last record, see sweep.verdict.record
    interim_analyses: list[dict[str, Any]] | None = None  # all, see sweep.verdict.interim
    of: str | None = None  # of confirm runs: the identity of the sweep that they belong to


@dataclass(frozen=True, kw_only=True)
class TrialAttrs:
    """User attributes of a trial; None where they are not written (yet)."""

    arm: str | None = None  # None: another program added it
    origin: str | None = None  # "baseline:<name>", "sobol", "sampler", "enqueued", "trial:<number>"
    outcome: str | None = None  # of a finished trial: one of sweep.analysis.results.OUTCOMES
    reason: str | None = None  # for which it is not complete
    n_params: int | None = None  # weights of the model
    threads: int | None = None  # of the CPU with which it trained: sums depend on it
    micro_batch: int | None = None  # batch_size with which it went on after it ran out of memory
    shadow: int | None = None  # step at which the pruner would have stopped it
    of_trial: int | None = None  # of a confirm run: the sweep's trial that has its settings
    run_dir: str | None = None  # LEGACY: an absolute path


class HasAttrs(Protocol):
    """A study or a trial, live or frozen."""

    @property
    def user_attrs(self) -> dict[str, Any]:
        """User attributes, by name."""

    def set_user_attr(self, key: str, value: Any) -> None:
        """Write one."""


def study_attrs(study: HasAttrs) -> StudyAttrs:
    """Read the attributes of a study; one that another program made has none of them."""
    return StudyAttrs(**_known(study.user_attrs, _STUDY))


def summary_attrs(summary: StudySummary) -> StudyAttrs:
    """Read the attributes of a study from its summary."""
    return StudyAttrs(**_known(summary.user_attrs, _STUDY))


def trial_attrs(trial: HasAttrs) -> TrialAttrs:
    """Read the attributes of a trial, live or frozen."""
    return TrialAttrs(**_known(trial.user_attrs, _TRIAL))


def set_study_attrs(study: HasAttrs, **values: Any) -> None:
    """Write attributes of a study, one after the other in this order."""
    _set(study, _STUDY, values)


def set_trial_attrs(trial: HasAttrs, **values: Any) -> None:
    """Write attributes of a trial that is not finished yet."""
    _set(trial, _TRIAL, values)


def new_trial_attrs(**values: Any) -> dict[str, Any]:
    """User attributes of a trial that is to be created with them."""
    _check(values, _TRIAL)
    return values


def is_confirm_study(study: HasAttrs) -> bool:
    """Return True if a study holds the confirm runs of a sweep."""
    return study_attrs(study).of is not None


_STUDY = frozenset(field.name for field in fields(StudyAttrs))
_TRIAL = frozenset(field.name for field in fields(TrialAttrs))


def _known(attributes: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name in names}


def _set(owner: HasAttrs, names: frozenset[str], values: Mapping[str, Any]) -> None:
    _check(values, names)
    for name, value in values.items():
        owner.set_user_attr(name, value)


def _check(values: Mapping[str, Any], names: frozenset[str]) -> None:
    if unknown := set(values) - names:
        raise TypeError(f"attributes must be fields of the schema, but got {sorted(unknown)}")
