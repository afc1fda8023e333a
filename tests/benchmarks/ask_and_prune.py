"""What an ask and a look at the pruner cost with many stored trials. Run by hand from the root."""

import random
import sys
import tempfile
import time
from collections.abc import Callable

import optuna
from optuna.trial import TrialState, create_trial

from sweep.pruning import should_prune
from sweep.sampling import next_arm, next_params, sobol_params
from sweep.spec import StudySpec, load_study


def fill(study: optuna.Study, spec: StudySpec, n: int) -> None:
    """Store n finished trials, a third of them pruned, and one that runs."""
    rng, steps = random.Random(0), range(30, 601, 30)
    origins = [f"baseline:{baseline.name}" for baseline in spec.baselines]
    origins += ["sobol"] * spec.sampler.startup_trials
    for number in range(n + 1):
        state = TrialState.PRUNED if number % 3 == 0 else TrialState.COMPLETE
        state = TrialState.RUNNING if number == n else state
        place, arm = number // len(spec.arms), spec.arms[number % len(spec.arms)]
        params = sobol_params(spec, arm, number)
        reached = steps if state == TrialState.COMPLETE else steps[:10]
        study.add_trial(
            create_trial(
                state=state,
                value=rng.random() if state.is_finished() else None,
                params=params,
                distributions=spec.distributions(params),
                intermediate_values={step: rng.random() for step in reached},
                user_attrs={
                    "arm": arm,
                    "origin": origins[place] if place < len(origins) else "sampler",
                },
            )
        )


def milliseconds(call: Callable[[], object], repeats: int = 10) -> float:
    """CPU time of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main(n: int) -> None:
    """Print the costs for n stored trials in a SQLite file."""
    spec = load_study("tinystories", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        study = optuna.create_study(storage=f"sqlite:///{folder}/sweep.db")
        fill(study, spec, n)
        ask = milliseconds(lambda: next_params(study, spec, next_arm(study, spec)))
        prune = milliseconds(lambda: should_prune(study, spec, n))
    print(f"{n} trials: {ask:.1f} ms of CPU an ask, {prune:.1f} ms a look at the pruner")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
