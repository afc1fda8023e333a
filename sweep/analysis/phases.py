"""The runs of a verdict, screening and confirm runs, as a table.

They are trials of two studies beside the sweep's own, which hold its identity.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweep.analysis.results import evaluations_table, last_evaluations, run_dir
from sweep.storage.location import runs_folder
from sweep.storage.schema import StudyAttrs, attrs_of_all, study_attrs, trial_attrs

if TYPE_CHECKING:
    import pandas as pd
    from optuna.storages import RDBStorage

SCREENING, CONFIRM = "screening", "confirm"  # what `squen-sweep verdict` runs after a sweep


def confirm_runs_table(
    storage: "RDBStorage", study: optuna.Study, phases: Sequence[str] = (SCREENING, CONFIRM)
) -> "pd.DataFrame":
    """Return one row per finished run of `squen-sweep verdict` after this sweep.

    Args:
        storage: Which holds the study.
        study: The sweep's.
        phases: Whose runs are wanted.

    Returns:
        phase          string   "screening" (a few configurations of each arm, on the sweep's own
                                validation stories) or "confirm" (the one that was chosen, on
                                stories that the sweep never saw)
        number         int64    of the run, within its phase
        arm            string
        of_trial       int64    the sweep's trial whose configuration it has
        seed           int64    of initialisation and data order; runs of one seed are a pair
        outcome        string   one of OUTCOMES
        run_dir        string   of its training
        <metric>       float64  the last evaluation: perplexity, cross_entropy in nats per token,
                                and every other field of gpt.events.Evaluation; NaN where the run
                                is not complete
        By phase and number.
    """
    import pandas as pd

    studies = attrs_of_all(storage)
    tables = [_runs_of_phase(storage, study, phase, studies) for phase in phases]
    return pd.concat(tables, ignore_index=True)


def phase_name(study: str, phase: str) -> str:
    """Return the usual name of the study that holds the runs of a phase."""
    return f"{study}.{phase}"


def name_of_phase(storage: "RDBStorage", study: optuna.Study, phase: str) -> str:
    """Return the name of the study that holds the runs of a phase, or is to hold them.

    It is found by the identity of the sweep, which stays when either of the two is renamed.
    """
    return _name_of_phase(study, phase, attrs_of_all(storage))


def _name_of_phase(
    study: optuna.Study, phase: str, studies: Mapping[str, tuple[int, StudyAttrs]]
) -> str:
    usual, identity = phase_name(study.study_name, phase), study_attrs(study).identity
    for name, (_, attrs) in studies.items():  # copies come later
        began_as = str((attrs.spec or {}).get("name"))
        if attrs.of is not None and attrs.of == identity and began_as.endswith(f".{phase}"):
            return name
        if attrs.of is None and name == usual:  # not bound yet
            return usual
    if usual in studies:  # of a sweep that was deleted
        return phase_name(f"{study.study_name}.{(identity or '')[:8]}", phase)
    return usual


def searches_of(study: optuna.Study) -> list[optuna.Study]:
    """Return the further searches of a sweep's arms, which a verdict ran, in their order."""
    identity, storage = study_attrs(study).identity, study._storage
    found = [
        (int(match[1]), name)
        for name, (_, attrs) in attrs_of_all(storage).items()
        if attrs.of is not None and attrs.of == identity
        if (match := re.search(r"\.search-(\d+)$", str((attrs.spec or {}).get("name"))))
    ]
    return [optuna.load_study(study_name=name, storage=storage) for _, name in sorted(found)]


def _runs_of_phase(
    storage: "RDBStorage",
    study: optuna.Study,
    phase: str,
    studies: Mapping[str, tuple[int, StudyAttrs]],
) -> "pd.DataFrame":
    import pandas as pd

    name = _name_of_phase(study, phase, studies)
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    rows: list[dict[str, Any]] = []
    if name in studies:
        confirm = optuna.load_study(study_name=name, storage=storage)
        folder = runs_folder(confirm)
        rows = [
            _confirm_row(confirm, folder, run, phase) for run in confirm.get_trials(False, ended)
        ]
    table = pd.DataFrame(rows, columns=list(_CONFIRM_DTYPES)).astype(_CONFIRM_DTYPES)
    last = last_evaluations(evaluations_table(storage, name)).astype("float64")
    table = table.join(last, on="number")
    table.loc[table["outcome"] != "complete", last.columns.to_list()] = math.nan
    return table


def _confirm_row(study: optuna.Study, folder: Path, run: FrozenTrial, phase: str) -> dict[str, Any]:
    attrs = trial_attrs(run)
    named = {"arm": attrs.arm, "of_trial": attrs.of_trial, "outcome": attrs.outcome}
    named["run_dir"] = str(run_dir(study, run, folder))
    return {"phase": phase, "number": run.number, "seed": run.params["seed"], **named}


_CONFIRM_DTYPES = {
    "phase": "string",
    "number": "int64",
    "arm": "string",
    "of_trial": "int64",
    "seed": "int64",
    "outcome": "string",
    "run_dir": "string",
}
