"""Calibration of a model: confidence and accuracy, in the bins that a run leaves at its end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from gpt.errors import InputError
from gpt.events import CALIBRATION_FILE
from sweep.analysis.results import arm_of, run_dir
from sweep.storage.location import runs_folder

if TYPE_CHECKING:
    import pandas as pd


def calibration_table(study: optuna.Study, numbers: Sequence[int]) -> "pd.DataFrame":
    """Read the calibration bins of these trials from their run directories.

    Returns:
        number      int64
        arm         string
        count       int64    targets in the bin; bins hold equally many, within one
        confidence  float64  mean probability of the most likely token, in [0, 1]
        accuracy    float64  share of targets that were that token, in [0, 1]
        A trial whose file is missing has no rows. By number and confidence.
    """
    import pandas as pd

    trials, folder = study.get_trials(deepcopy=False), runs_folder(study)
    rows = [
        {"number": number, "arm": arm_of(trials[number])} | found
        for number in numbers
        for found in _bins(study, trials[number], folder)
    ]
    dtypes = {
        "number": "int64",
        "arm": "string",
        "count": "int64",
        "confidence": "float64",
        "accuracy": "float64",
    }
    table = pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)
    return table.sort_values(["number", "confidence"]).reset_index(drop=True)


def _bins(study: optuna.Study, trial: FrozenTrial, folder: Path) -> list[dict[str, Any]]:
    try:
        path = run_dir(study, trial, folder) / CALIBRATION_FILE
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (InputError, OSError, ValueError):
        return []
