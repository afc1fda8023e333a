"""The study that a sweep goes on with, new or stored: checked, then bound to where its runs are."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

from gpt.errors import SquenSweepError
from sweep.backends.local import faster_dtype
from sweep.storage.lock import check_runs, claim_runs
from sweep.storage.rdb import check_study, find_study, open_study
from sweep.study.spec import StudySpec


def settled(spec: StudySpec, storage: str, device: str) -> StudySpec:
    """The study with its dtype: the one it was started with, on whichever machine it goes on."""
    if not spec.leaves_dtype_open:
        return spec
    study = find_study(storage, spec.name)
    stored = study.user_attrs.get("spec", {}) if study else {}
    return spec.with_dtype(stored.get("train", {}).get("dtype") or faster_dtype(device))


def check_before_writing(
    storage: str, spec: StudySpec, facts: dict[str, Any], device: str, folder: Path
) -> None:
    """Refuse what will be refused under the lock, while there is no database and no lock yet.

    Raises:
        InputError: see `sweep.storage.rdb.check_study` and `sweep.storage.lock.check_runs`.
    """
    study = find_study(storage, spec.name)
    if study is not None:
        check_study(study, spec, facts, device)
    check_runs(study, folder)


def claimed(
    storage: RDBStorage, spec: StudySpec, facts: dict[str, Any], device: str, folder: Path
) -> optuna.Study:
    """The study, new or resumed, bound to the folder of its runs.

    Raises:
        InputError: as `check_before_writing`.
    """
    new = spec.name not in optuna.get_all_study_names(storage)
    study = open_study(storage, spec, facts, device)
    try:
        claim_runs(study, folder)
    except SquenSweepError:
        if new:  # nothing of a refused command stays
            optuna.delete_study(study_name=spec.name, storage=storage)
        raise
    return study
