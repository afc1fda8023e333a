"""Time and size of the report of a study of 1,000 trials with 100 evaluations each.

python tests/benchmarks/report_of_many.py > tests/benchmarks/report_of_many.json
"""

import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from optuna.trial import TrialState, create_trial

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from stored_studies import STUDY, StoredStudy, evaluation

from sweep.report.report import write_report
from sweep.storage.schema import evaluations

TRIALS = 1000
EVALUATIONS = 100
DROPOUT = "[search.dropout]\nlow = 0.0\nhigh = 0.3\n[search.loss]"


def fill(stored: StoredStudy) -> None:
    """Falling curves of two arms; every third trial was pruned half way."""
    trials, rows = [], []
    for number in range(TRIALS):
        arm = ("cross_entropy", "squentropy")[number % 2]
        pruned = number % 3 == 2
        last = EVALUATIONS // 2 if pruned else EVALUATIONS
        curve = [20 + (number * 37 % 101) / 10 + 2000 / (i + 1) for i in range(last)]
        params = {
            "learning_rate": 10 ** (-4 + 2 * (number * 73 % 997) / 997),
            "n_layer": 1 + number * 7 % 6,
            "dropout": 0.3 * (number * 31 % 991) / 991,
            "loss": arm,
        }
        outcome = "pruned" if pruned else "complete"
        trials.append(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                value=None if pruned else curve[-1],
                params=params,
                distributions=stored.spec.distributions(params),
                user_attrs={"arm": arm, "outcome": outcome, "origin": "sampler", "n_params": 1000},
                intermediate_values={100 * last: curve[-1]},  # Optuna takes a minute for all
            )
        )
        for i, value in enumerate(curve):
            row = asdict(evaluation(100 * (i + 1), value))
            rows.append({"trial_id": number, **row})  # its number, until it has an id
    stored.study.add_trials(trials)
    ids = [trial._trial_id for trial in stored.study.get_trials(deepcopy=False)]
    rows = [row | {"trial_id": ids[row["trial_id"]]} for row in rows]
    with stored.storage.engine.begin() as connection:
        connection.execute(evaluations.insert(), rows)


def main() -> None:
    """Print the figures as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        stored = StoredStudy(Path(folder), STUDY.replace("[search.loss]", DROPOUT))
        fill(stored)
        out = Path(folder) / "report.html"
        parts: list[tuple[str, float]] = []
        started = time.perf_counter()
        write_report(
            stored.storage,
            stored.study,
            out,
            show=lambda part, done=None: parts.append((part, time.perf_counter() - started)),
        )
        seconds = time.perf_counter() - started
        found = {
            "trials": TRIALS,
            "evaluations_each": EVALUATIONS,
            "seconds": round(seconds, 2),
            "megabytes": round(out.stat().st_size / 1e6, 2),
            "begun_at_seconds": {part: round(at, 2) for part, at in parts},
            "python": platform.python_version(),
            "command": "python tests/benchmarks/report_of_many.py",
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
