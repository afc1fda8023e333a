"""Time and size of the report of a study of 1,000 trials with 100 evaluations each.

python tests/benchmarks/report_of_many.py > tests/benchmarks/report_of_many.json
"""

import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from optuna.storages._rdb import models
from optuna.trial import TrialState, create_trial
from optuna_dashboard._note import note_str_key_prefix, note_ver_key

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from stored_studies import STUDY, StoredStudy, add_at_once, evaluation

from sweep.analysis.trial_stories import quoted
from sweep.report.report import write_report
from sweep.storage.location import runs_folder
from sweep.storage.tables import evaluations

TRIALS = 1000
EVALUATIONS = 100
BEGIN, TRIAL = datetime(2026, 1, 1), timedelta(minutes=50)
DROPOUT = "[search.dropout]\nlow = 0.0\nhigh = 0.3\n[search.loss]"


def fill(
    stored: StoredStudy, count: int = TRIALS, evaluations_each: int = EVALUATIONS, slots: int = 1
) -> None:
    """Falling curves of two arms, each trial with its note; every third was pruned half way."""
    trials, rows, runs = [], [], runs_folder(stored.study)
    for number in range(count):
        arm = ("cross_entropy", "squentropy")[number % 2]
        pruned = number % 3 == 2
        last = evaluations_each // 2 if pruned else evaluations_each
        curve = [20 + (number * 37 % 101) / 10 + 2000 / (i + 1) for i in range(last)]
        params = {
            "learning_rate": 10 ** (-4 + 2 * (number * 73 % 997) / 997),
            "n_layer": 1 + number * 7 % 6,
            "dropout": 0.3 * (number * 31 % 991) / 991,
            "loss": arm,
        }
        outcome = "pruned" if pruned else "complete"
        started = BEGIN + number // slots * TRIAL
        trials.append(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                value=None if pruned else curve[-1],
                params=params,
                distributions=stored.spec.distributions(params),
                user_attrs={"arm": arm, "outcome": outcome, "origin": "sampler", "n_params": 1000},
                intermediate_values={100 * (i + 1): value for i, value in enumerate(curve)},
            )
        )
        trials[-1].datetime_start, trials[-1].datetime_complete = started, started + TRIAL
        for i, value in enumerate(curve):
            row = asdict(evaluation(100 * (i + 1), value))
            rows.append({"trial_id": number, **row})  # its number, until it has an id
        (runs / str(number)).mkdir(parents=True, exist_ok=True)
    ids = add_at_once(stored.storage, stored.study._study_id, 0, trials)
    rows = [row | {"trial_id": ids[row["trial_id"]]} for row in rows]
    story = "\n".join(quoted("Once upon a time there was a little dog. " * 8))
    notes = [
        {"study_id": stored.study._study_id, "key": key, "value_json": json.dumps(value)}
        for trial_id in ids
        for key, value in (
            (note_ver_key(trial_id), 1),
            (f"{note_str_key_prefix(trial_id)}0", f"**An arm**, complete: 20\n\n{story}"),
        )
    ]
    with stored.storage.engine.begin() as connection:
        connection.execute(evaluations.insert(), rows)
        connection.execute(models.StudySystemAttributeModel.__table__.insert(), notes)


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
