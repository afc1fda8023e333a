"""How sure a model was and how often it was right: the bins that a run leaves when it is done."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from sweep.analysis.results import arm_of

if TYPE_CHECKING:
    import pandas as pd

FILE = "calibration.json"  # in a run directory, by gpt.train


def calibration_table(study: optuna.Study, numbers: Sequence[int]) -> "pd.DataFrame":
    """The calibration bins of these trials, from their run directories.

    Returns:
        number      int64
        arm         string
        count       int64    targets in the bin; bins hold equally many, within one
        confidence  float64  mean probability of the most likely token, in [0, 1]
        accuracy    float64  share of targets that were that token, in [0, 1]
        A trial whose file is gone, or was never written, has no rows. By number and confidence.
    """
    import pandas as pd

    trials = study.get_trials(deepcopy=False)
    rows = [
        {"number": number, "arm": arm_of(trials[number])} | found
        for number in numbers
        for found in _read(Path(trials[number].user_attrs.get("run_dir", "")) / FILE)
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


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []
