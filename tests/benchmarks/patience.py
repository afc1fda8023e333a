"""How patient may a pruner be? Others on the recorded curves of sweeps that had none.

    python -m tests.benchmarks.patience NAME=DATABASE...

Each DATABASE holds a study `tinystories` of 40 complete trials, run with `kind = "none"` in its
table `pruner`; NAME is that of its text. A pruner stops what is not among the best of its arm's
complete trials, after a share of the steps: how many it stops, the steps that it saves, and how
many of the best three of each arm it loses. As `squen-sweep prune --what-if` with other pruners.
"""

import sys
from functools import partial
from typing import Any

import optuna
from optuna.pruners import BasePruner, PercentilePruner

from sweep.study.toml_file import read_study_file
from sweep.verdict import pruner_audit
from sweep.verdict.pruner_audit import Grid
from tests.benchmarks import measuring

PERCENTILES = (50.0, 40.0, 33.0, 25.0)  # 50 is the median
PATIENCE = (0.2, 0.3, 0.4, 0.5)
TOP = 3


def pruner(percentile: float, patience: float, grid: Grid) -> BasePruner:
    """Stops what is not among the best `percentile` after that share of the steps."""
    return PercentilePruner(percentile, grid.startup_trials, round(patience * grid.max_steps))


def audit(database: str) -> dict[str, Any]:
    """What each pruner would have done, both arms together."""
    spec = read_study_file("tinystories", "cpu")
    study = optuna.load_study(study_name=spec.name, storage=f"sqlite:///{database}")
    table = pruner_audit.what_if_table(study, spec, TOP)
    return {
        name: {
            "stopped": int(rows["stopped"].sum()),
            "steps_saved": round(float(rows["steps_saved"].mean()), 3),
            "lost_of_best_3_of_each_arm": int(rows["winners_lost"].sum()),
            "arms_that_lost_their_best": int(rows["best_lost"].sum()),
        }
        for name, rows in table.groupby("pruner", sort=False)
    }


def main() -> None:
    """Replay and write the results."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner_audit.CANDIDATES = {
        f"best {percentile:g} %, none before {patience:g} of the steps": partial(
            pruner, percentile, patience
        )
        for percentile in PERCENTILES
        for patience in PATIENCE
    }
    databases = dict(argument.split("=", 1) for argument in sys.argv[1:])
    figures = {text: audit(database) for text, database in databases.items()}
    measuring.write("patience", figures, "NAME=DATABASE...")


if __name__ == "__main__":
    main()
