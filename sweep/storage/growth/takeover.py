"""Trials that an extended study takes over: in its place, or as a new study beside the old one.

Optuna refuses other choices for a parameter that trials have, so the stored distributions are
written anew, with Optuna's tables as they are. Each change is one transaction, and run directories
are made ready before it: a kill at any moment leaves the study as it was or as it is to be.

    trials finished, waiting, enqueued   taken over as they are, under their numbers
    trials running                       in place: go on; in a new study: start again
    trials of another program            stay what they are; none counts for an arm
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from gpt.errors import InputError, StorageError
from gpt.system.files import atomic_write_text
from sweep.storage.growth.extension import Extension, extensions
from sweep.storage.location import MARKER, runs_folder
from sweep.storage.reader import load_study
from sweep.storage.schema import is_confirm_study, study_attrs, trial_attrs
from sweep.storage.tables import OF_STUDIES, OF_TRIALS, evaluations
from sweep.study.spec import StudySpec

STAGED = ".taken-over"  # in the folder of a new study's runs: those that are not in place yet

# The one system attribute that a new study needs. What else Optuna keeps for the dashboard is left
# out: notes name trials by ids that are the old study's.
_METRIC_NAMES = "study:metric_names"


def study_to_extend(
    storage: RDBStorage | None,
    study: optuna.Study | None,
    name: str,
    extend: bool,
    taken_from: str | None,
) -> optuna.Study | None:
    """Return the study that a call goes on with, or whose trials it takes over; None: none.

    Args:
        storage: None: there is none yet.
        study: The stored study of this name; None: it is new.
        name: Of the study that is to run.
        extend: Its file may extend the stored study.
        taken_from: Name of another study, whose trials a new one takes over.

    Raises:
        InputError: there is nothing to extend, or the new name is taken.
    """
    if extend and (study is None or study_attrs(study).spec is None):
        raise InputError(
            f"--extend must have a study to extend, but {name!r} has not been run with this "
            f"--storage; leave --extend out to start it."
        )
    if taken_from is None:
        return study
    if taken_from == name:
        raise InputError(
            f"--from must be another study than {name!r}; give the new one a name with "
            f"--as NEW_NAME, or extend this one in its place with --extend."
        )
    if study is None:
        if storage is None:
            raise InputError(f"--from must be a stored study, but there is no {taken_from!r} yet.")
        old = load_study(storage, taken_from)
        if study_attrs(old).spec is None or is_confirm_study(old):
            raise InputError(
                f"--from must be a sweep of `squen-sweep run`, but got {taken_from!r}."
            )
        return old
    if taken_from not in {one.study for one in extensions(study)}:
        raise InputError(
            f"--as must be a new name where --from takes trials over, but study {name!r} is there "
            f"already; pass another name."
        )
    return study


def extend_study(
    storage: RDBStorage,
    study: optuna.Study,
    spec: StudySpec,
    attributes: Mapping[str, Any],
    keys: list[str],
) -> Extension:
    """Extend a study in its place, in one transaction; load the study again afterwards.

    Args:
        storage: Of the study.
        study: As it is stored.
        spec: What it is to be.
        attributes: Of the study, that follow from `spec`.
        keys: By which they differ, see sweep.storage.growth.extension.
    """
    trials = study.get_trials(deepcopy=False)
    extension = Extension(study.study_name, keys, _counted(trials))
    history = [*(study_attrs(study).extensions or []), vars(extension)]
    with storage.engine.begin() as connection:
        tables = _tables(connection)
        ids = {trial._trial_id: trial._trial_id for trial in trials}
        changed = {**attributes, "extensions": history}
        _set_attributes(connection, tables, "study", study._study_id, changed)
        _rewrite(connection, tables, study._study_id, spec)
        _mark(connection, tables, study.study_name, trials, ids)
    return extension


def fork_study(
    storage: RDBStorage,
    old: optuna.Study,
    spec: StudySpec,
    attributes: Mapping[str, Any],
    keys: list[str],
) -> Extension:
    """Store a new study that has the trials of an old one, in one transaction.

    Args:
        storage: Of both.
        old: It stays as it is.
        spec: The new study, under its own name.
        attributes: Of the new study, in place of the old one's: what follows from `spec`, its
            identity, and its folder of runs.
        keys: By which the two differ, see sweep.storage.growth.extension.
    """
    trials = old.get_trials(deepcopy=False)
    extension = Extension(old.study_name, keys, _counted(trials))
    history = [*(study_attrs(old).extensions or []), vars(extension)]
    with storage.engine.begin() as connection:
        tables = _tables(connection)
        new_id = _copied_study(connection, tables, old._study_id, spec.name)
        own = {**attributes, "extensions": history, "verdict": None}
        _set_attributes(connection, tables, "study", new_id, own)
        ids = _copied_trials(connection, tables, old._study_id, trials, new_id)
        _rewrite(connection, tables, new_id, spec)
        _mark(connection, tables, old.study_name, trials, ids)
    return extension


def _counted(trials: Iterable[FrozenTrial]) -> dict[str, int]:
    arms = (trial_attrs(trial).arm for trial in trials)
    return dict(Counter(arm for arm in arms if arm is not None))


# --- run directories -----------------------------------------------------------------------------


def stage_runs(old: optuna.Study, folder: Path, identity: str) -> None:
    """Copy the run directories of a study to where `settle_runs` finds them.

    Checkpoints of the GPT, which nobody changes, become links to the same files where the disk can
    do that; a program may write to its own. Symbolic links stay links, those within a run directory
    to the copy. A trial that counts as running may have a process that writes: it starts again.

    Args:
        old: The study that has them.
        folder: Of the new study's runs.
        identity: Of the new study.

    Raises:
        StorageError: a file cannot be read, or its copy cannot be written.
    """
    of_program = (study_attrs(old).spec or {}).get("trainer")
    copy = shutil.copy2 if of_program else _link_or_copy
    staged = folder / STAGED
    shutil.rmtree(staged, ignore_errors=True)  # of a call that was killed before it was stored
    staged.mkdir(parents=True)
    for trial in old.get_trials(deepcopy=False):
        source = runs_folder(old) / str(trial.number)
        if trial.state != TrialState.RUNNING and source.is_dir():
            try:
                shutil.copytree(
                    source, staged / source.name, True, ignore=_not_copied, copy_function=copy
                )
            except shutil.Error as error:  # of several files: the first says it
                path, _, why = error.args[0][0]
                raise StorageError(
                    f"{path} must be copied to {staged}, but: {why}; "
                    f"fix that and run the same command again."
                ) from error
            _lead_to_copy(source.resolve(), staged / source.name)
    atomic_write_text(staged / MARKER, identity)  # on the disk before the study is stored


def _not_copied(folder: str, names: list[str]) -> set[str]:
    """Name what is hidden, and sockets, FIFOs and devices, which would be read without an end."""
    paths = [Path(folder, name) for name in names]
    kept = (path.is_symlink() or path.is_file() or path.is_dir() for path in paths)
    pairs = zip(names, kept, strict=True)
    return {name for name, keep in pairs if name.startswith(".") or not keep}


def _lead_to_copy(source: Path, copy: Path) -> None:
    """Make absolute links into a run directory lead to the same place in its copy."""
    for path in copy.rglob("*"):
        if path.is_symlink() and (target := path.readlink()).is_relative_to(source):
            path.unlink()
            path.symlink_to(os.path.relpath(copy / target.relative_to(source), path.parent))


def settle_runs(study: optuna.Study | None, folder: Path) -> None:
    """Move what `stage_runs` left to its place, or remove it if its study was never stored.

    Args:
        study: The new study; None: there is none.
        folder: Of its runs.
    """
    staged = folder / STAGED
    if not staged.is_dir():
        return
    identity = None if study is None else study_attrs(study).identity
    if (staged / MARKER).is_file() and (staged / MARKER).read_text() == identity:
        for path in sorted(staged.iterdir(), key=lambda path: path.name == MARKER):  # it last
            path.rename(folder / path.name)
    shutil.rmtree(staged)


def _link_or_copy(source: str, target: str) -> str:
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without links
            pass
        else:
            return target
    return str(shutil.copy2(source, target))


# --- rows ----------------------------------------------------------------------------------------


def _tables(connection: sa.Connection) -> dict[str, sa.Table]:
    """Return Optuna's tables as this database has them, and ours."""
    metadata = sa.MetaData()
    metadata.reflect(connection, only=[*OF_STUDIES, "trials", *OF_TRIALS])
    return dict(metadata.tables)


def _copied_study(
    connection: sa.Connection, tables: Mapping[str, sa.Table], old: int, name: str
) -> int:
    inserted = connection.execute(tables["studies"].insert().values(study_name=name))
    new = _key(inserted)
    for table in (tables[one] for one in OF_STUDIES[1:]):
        rows = _rows(connection, table, table.c.study_id == old)
        kept = [
            row
            for row in rows
            if table.name != "study_system_attributes" or row["key"] == _METRIC_NAMES
        ]
        _insert(connection, table, [row | {"study_id": new} for row in kept])
    return new


def _copied_trials(
    connection: sa.Connection,
    tables: Mapping[str, sa.Table],
    old_id: int,
    trials: Iterable[FrozenTrial],
    new_id: int,
) -> dict[int, int]:
    """Copy trials with all their rows, and return the new id of each old one."""
    ids: dict[int, int] = {}
    table = tables["trials"]
    for trial in trials:
        (row,) = _rows(connection, table, table.c.trial_id == trial._trial_id)
        ours = trial_attrs(trial).arm is not None
        if trial.state == TrialState.RUNNING:  # of another program: nobody will finish the copy
            row["state"] = (TrialState.WAITING if ours else TrialState.FAIL).name
        inserted = connection.execute(table.insert().values(**row, study_id=new_id))
        ids[trial._trial_id] = _key(inserted)
    for owned in [*(tables[name] for name in OF_TRIALS), evaluations]:
        rows = _rows(connection, owned, _of_study(owned, table, old_id))
        _insert(connection, owned, [row | {"trial_id": ids[row["trial_id"]]} for row in rows])
    return ids


def _of_study(owned: sa.Table, trials: sa.Table, study_id: int) -> sa.ColumnElement[bool]:
    """Return the condition that a row belongs to a trial of a study."""
    ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    return owned.c.trial_id.in_(ids)


def _rows(
    connection: sa.Connection, table: sa.Table, where: sa.ColumnElement[bool]
) -> list[dict[str, Any]]:
    """Return rows without the key that the database counts up by itself."""
    if table.name == evaluations.name:
        left_out: set[str] = set()  # its key is the trial's, and the step
    else:
        left_out = {column.name for column in table.primary_key.columns}
    if table.name == "trials":
        left_out.add("study_id")
    rows = connection.execute(sa.select(table).where(where)).mappings()
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def _key(inserted: sa.CursorResult[Any]) -> int:
    """Return the key that the database gave to an inserted row."""
    assert inserted.inserted_primary_key is not None
    return int(inserted.inserted_primary_key[0])


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _set_attributes(
    connection: sa.Connection,
    tables: Mapping[str, sa.Table],
    owner: str,
    owner_id: int,
    values: Mapping[str, Any],
) -> None:
    """Replace user attributes of a study or a trial; None removes one."""
    table = tables[f"{owner}_user_attributes"]
    column = table.c[f"{owner}_id"]
    connection.execute(table.delete().where(column == owner_id, table.c.key.in_(list(values))))
    rows = [
        {column.name: owner_id, "key": key, "value_json": json.dumps(value)}
        for key, value in values.items()
        if value is not None
    ]
    _insert(connection, table, rows)


def _mark(
    connection: sa.Connection,
    tables: Mapping[str, sa.Table],
    study: str,
    trials: Iterable[FrozenTrial],
    ids: Mapping[int, int],
) -> None:
    """Mark the trials of our arms as taken over."""
    ours = [trial for trial in trials if trial_attrs(trial).arm is not None]
    for trial in ours:
        value = {"taken_over": f"{study}:{trial.number}"}
        _set_attributes(connection, tables, "trial", ids[trial._trial_id], value)


def _rewrite(
    connection: sa.Connection, tables: Mapping[str, sa.Table], study_id: int, spec: StudySpec
) -> None:
    """Give the parameters of a study's trials the distributions that they have in `spec`."""
    state = tables["trial_system_attributes"]  # of CMA-ES: in units of the ranges as they were
    connection.execute(
        state.delete().where(
            _of_study(state, tables["trials"], study_id), state.c.key.like("cma:%")
        )
    )
    table = tables["trial_params"]
    where = _of_study(table, tables["trials"], study_id)
    rows = connection.execute(sa.select(table).where(where)).mappings().all()
    space = {name: parameter.distribution() for name, parameter in spec.search.items()}
    for row in rows:
        new = space.get(row["param_name"])
        value = None if new is None else _moved_value(row, new)
        if new is None or value is None:
            continue
        changed = {"param_value": value, "distribution_json": distribution_to_json(new)}
        connection.execute(
            table.update().where(table.c.param_id == row["param_id"]).values(**changed)
        )


def _moved_value(row: sa.RowMapping, new: BaseDistribution) -> float | None:
    """Return a parameter's value as the new distribution stores it; None where it has none."""
    old = json_to_distribution(row["distribution_json"])
    if not isinstance(old, CategoricalDistribution):
        return float(row["param_value"]) if type(old) is type(new) else None
    value = old.to_external_repr(row["param_value"])
    if not isinstance(new, CategoricalDistribution) or value not in new.choices:
        return None
    return float(new.to_internal_repr(value))
