"""What asking for a trial, its evaluations, looks at the pruner and its end cost with many stored.

python -m tests.benchmarks.ask_and_prune
"""

import random
import sys
import tempfile
import time
from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState, create_trial

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from stored_studies import evaluation

from sweep.search.pruners import may_stop_at, should_prune
from sweep.search.samplers import next_arm, next_proposal, sobol_params
from sweep.storage.rdb import open_storage
from sweep.storage.tables import record_evaluation
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

STORED, FILLED = (1_000, 10_000), 500
STEPS = range(40, 401, 40)  # of tinystories' evaluations


def fill(study: optuna.Study, spec: StudySpec, n: int) -> None:
    """Store n finished trials, a third of them pruned."""
    rng = random.Random(0)
    origins = [f"baseline:{baseline.name}" for baseline in spec.baselines]
    origins += ["sobol"] * spec.sampler.startup_trials
    for number in range(n):
        state = TrialState.PRUNED if number % 3 == 0 else TrialState.COMPLETE
        place, arm = number // len(spec.arms), spec.arms[number % len(spec.arms)]
        params = sobol_params(spec, arm, number)
        reached = STEPS if state == TrialState.COMPLETE else STEPS[:8]
        study.add_trial(
            create_trial(
                state=state,
                value=rng.random(),
                params=params,
                distributions=spec.distributions(params),
                intermediate_values={step: rng.random() for step in reached},
                user_attrs={
                    "arm": arm,
                    "origin": origins[place] if place < len(origins) else "sampler",
                },
            )
        )


def multiply(engine: sa.Engine, n: int, times: int) -> None:
    """Store the n trials that there are `times` times, as Optuna would, but in seconds."""
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            if "trial_id" not in table.c:
                continue
            own_key = next(iter(table.primary_key.columns)).name
            rows = [row._asdict() for row in connection.execute(table.select())]
            for _ in range(1, times if rows else 1):
                for row in rows:
                    if own_key != "trial_id":
                        row[own_key] += len(rows)
                    row["trial_id"] += n
                    if "number" in row:
                        row["number"] += n
                connection.execute(table.insert(), rows)


def one_trial(storage: RDBStorage, study: optuna.Study, spec: StudySpec) -> tuple[float, float]:
    """Milliseconds, and those on the CPU, of a trial's ask, evaluations, looks and end.

    As the driver does them; it also sets a few attributes and counts trials, once each.
    """
    started, started_cpu = time.perf_counter(), time.process_time()
    arm = next_arm(study, spec)
    proposal = next_proposal(study, spec, arm)
    params, origin = proposal.params, proposal.origin
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=spec.distributions(params),
            user_attrs={"arm": arm, "origin": origin},
        )
    )
    frozen = study.get_trials(deepcopy=False)[-1]
    trial = Trial(study, frozen._trial_id)
    for step in STEPS:
        record_evaluation(storage, frozen._trial_id, evaluation(step, 2.0))
        trial.report(0.5, step)
        if may_stop_at(spec, step):
            should_prune(study, spec, trial.number)
    study.tell(trial, 0.5)
    seconds = time.perf_counter() - started, time.process_time() - started_cpu
    return round(1e3 * seconds[0], 1), round(1e3 * seconds[1], 1)


def measure(spec: StudySpec, n: int) -> dict[str, list[float]]:
    """`one_trial` again and again with n stored trials in a SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(f"{folder}/sweep.db", create=True)
        study = optuna.create_study(storage=storage)
        fill(study, spec, FILLED)
        multiply(storage.engine, FILLED, n // FILLED)
        one_trial(storage, study, spec)  # reads all trials, as a driver does once
        times = [one_trial(storage, study, spec) for _ in range(measuring.REPEATS)]
        storage.engine.dispose()
    print(n, times, flush=True)
    return {"wall": [wall for wall, _ in times], "cpu": [cpu for _, cpu in times]}


def main() -> None:
    """Measure and write the results."""
    spec = read_study_file("tinystories", "cpu")
    times = {str(n): measure(spec, n) for n in STORED}
    summary = {
        n: {kind: measuring.spread(values) for kind, values in kinds.items()}
        for n, kinds in times.items()
    }
    few, many = (summary[str(n)]["cpu"]["median"] for n in STORED)
    figures = {
        "stored_trials_to_milliseconds": times,
        "summary": summary,
        "growth_of_cpu": round(many / few, 2),
    }
    measuring.write("ask_and_prune", figures)


if __name__ == "__main__":
    main()
