"""User attributes of studies and trials in Optuna's tables.

This file alone spells their names. No value is an absolute path: a project folder that was moved or
copied is read where it lies. Add an attribute by adding a field. The table of evaluations, beside
Optuna's, is in sweep.storage.tables.

Of databases that an earlier version wrote, `LEGACY` columns and attributes are read, never written.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args, get_origin

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage


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
    extensions: list[dict[str, Any]] | None = None  # all, see sweep.storage.growth.takeover
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
    taken_over: str | None = None  # "<study>:<number>" that it had before an extension
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
    return StudyAttrs(**_of_ours(study.user_attrs))


def attrs_of_all(storage: "BaseStorage") -> dict[str, tuple[int, StudyAttrs]]:
    """Read id and attributes of every study by its name, the oldest first.

    Optuna's summaries of studies read every trial of each, too.
    """
    backend = getattr(storage, "_backend", storage)  # of a cache
    if hasattr(backend, "engine"):
        from sweep.storage.tables import user_attrs_of_studies

        found = user_attrs_of_studies(cast("RDBStorage", backend))
    else:
        studies = sorted(storage.get_all_studies(), key=lambda one: one._study_id)
        found = {one.study_name: (one._study_id, one.user_attrs) for one in studies}
    return {
        name: (study_id, StudyAttrs(**_of_ours(attrs))) for name, (study_id, attrs) in found.items()
    }


def is_ours(study: HasAttrs) -> bool:
    """Return True if `squen-sweep` made a study, False if Optuna or another program did."""
    return study_attrs(study).spec is not None


def trial_attrs(trial: HasAttrs) -> TrialAttrs:
    """Read the attributes of a trial, live or frozen."""
    return TrialAttrs(**_known(trial.user_attrs, _TRIAL))


def trial_attr(trial: HasAttrs, name: str) -> Any:
    """Read one attribute of a trial, in a tenth of the time of all: there may be thousands."""
    value = trial.user_attrs.get(name)
    return value if isinstance(value, _TRIAL[name]) else None


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


def _classes(annotation: Any) -> tuple[type, ...]:
    """Return the classes that values of a field have: float | None -> (float, int)."""
    named = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    classes = [get_origin(one) or one for one in named if one is not NoneType]
    return (*classes, int) if float in classes else tuple(classes)


_STUDY = {field.name: _classes(field.type) for field in fields(StudyAttrs)}
_TRIAL = {field.name: _classes(field.type) for field in fields(TrialAttrs)}


def _of_ours(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Select our attributes of a study; "spec" may be another program's word, too."""
    found = _known(attributes, _STUDY)
    if "spec_digest" not in found:
        found.pop("spec", None)
    return found


def _known(attributes: Mapping[str, Any], names: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Select attributes of these names and classes: a "data" that is no table is not ours."""
    return {
        name: value
        for name, value in attributes.items()
        if name in names and isinstance(value, names[name])
    }


def _set(owner: HasAttrs, names: Collection[str], values: Mapping[str, Any]) -> None:
    _check(values, names)
    for name, value in values.items():
        owner.set_user_attr(name, value)


def _check(values: Mapping[str, Any], names: Collection[str]) -> None:
    if unknown := set(values) - set(names):
        raise TypeError(f"attributes must be fields of the schema, but got {sorted(unknown)}")
