"""What more slots cost a search: idle slots, worse choices, proposals that repeat. By simulation.

    python -m tests.benchmarks.parallel

A sweep of 64 trials of two arms on a known surface: log perplexity rises with the square of the
distance from the best learning rate, depth and dropout, and has the noise of a seed. Time is
simulated: deeper trials take longer, a slot that is free gets the next trial at once, and what
trains is known to the sampler as running. Nothing is pruned.
"""

import argparse
import heapq
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from sweep.search.samplers import next_arm, next_proposal
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

SLOTS, SWEEPS, TRIALS = (1, 2, 8, 32), 8, 64
PLANS = {"tpe": 8, "gp": 4}  # sampler, Sobol points
NOISE = 0.015  # of log perplexity, from seed to seed
NEAR = 0.005  # of the unit cube: nearer proposals are the same to any purpose
STUDY = """
name = "parallel"
compare = "loss"
[search.learning_rate]
low = 1e-4
high = 3e-2
log = true
[search.n_layer]
low = 1
high = 6
[search.dropout]
low = 0.0
high = 0.3
[search.loss]
choices = ["cross_entropy", "squentropy"]
[[baselines]]
name = "usual"
params = { learning_rate = 1e-3, n_layer = 3, dropout = 0.1 }
"""
BEST = {"cross_entropy": (0.62, 0.6, 0.1), "squentropy": (0.78, 0.8, 0.05)}
STEEPNESS = (2.0, 0.3, 0.15)


def place(params: dict[str, Any]) -> tuple[float, float, float]:
    """A setting in the unit cube."""
    rate = math.log(params["learning_rate"] / 1e-4) / math.log(300)
    return rate, (params["n_layer"] - 1) / 5, params["dropout"] / 0.3


def distance(here: tuple[float, ...], there: tuple[float, ...]) -> float:
    """The largest difference in a dimension."""
    return max(abs(a - b) for a, b in zip(here, there, strict=True))


def excess(params: dict[str, Any]) -> float:
    """Log perplexity above the arm's best."""
    there = zip(place(params), BEST[params["loss"]], STEEPNESS, strict=True)
    return sum(steep * (x - best) ** 2 for x, best, steep in there)


def sweep(spec: StudySpec, slots: int, seed: int) -> dict[str, float]:
    """One sweep in simulated time."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study()
    running: list[tuple[float, int, float]] = []  # end, trial id, value
    places: dict[str, list[tuple[float, ...]]] = {arm: [] for arm in spec.arms}
    seen: dict[str, list[tuple[float, float]]] = {arm: [] for arm in spec.arms}
    now = busy = 0.0
    repeats = of_running = sampled = 0
    training: dict[int, tuple[str, tuple[float, ...]]] = {}  # arm and place by trial id
    for _ in range(TRIALS):
        if len(running) == slots:
            now = finish(study, running)
        arm = next_arm(study, spec)
        proposal = next_proposal(study, spec, arm)
        params = proposal.params
        here = place(params)
        repeats += any(distance(here, other) < NEAR for other in places[arm])
        alive = [training[trial_id] for _, trial_id, _ in running]
        of_running += any(one == arm and distance(here, other) < NEAR for one, other in alive)
        sampled += proposal.origin == "sampler"
        places[arm].append(here)
        true = excess(params)
        noisy = true + NOISE * float(rng.standard_normal())
        seen[arm].append((noisy, true))
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=spec.distributions(params),
                user_attrs={"arm": arm, "origin": proposal.origin},
            )
        )
        took = (1 + 0.5 * params["n_layer"]) * float(rng.uniform(0.9, 1.1))
        busy += took
        trial_id = study.get_trials(deepcopy=False)[-1]._trial_id
        training[trial_id] = arm, here
        heapq.heappush(running, (now + took, trial_id, math.exp(3 + noisy)))
    while running:
        now = finish(study, running)
    return {
        "idle_share": 1 - busy / (slots * now),
        "time": now,
        "regret": float(np.mean([min(pairs)[1] for pairs in seen.values()])),
        "repeats": repeats,
        "repeats_of_a_running_trial": of_running,
        "share_of_the_sampler": sampled / TRIALS,
    }


def finish(study: optuna.Study, running: list[tuple[float, int, float]]) -> float:
    """End the trial that ends first; return when."""
    end, trial_id, value = heapq.heappop(running)
    study._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
    return end


def measure(spec: StudySpec, kind: str, slots: int, sweeps: int) -> dict[str, Any]:
    """Means over the sweeps, and of the regret the largest."""
    keys = {"kind": kind, "startup_trials": PLANS[kind]}
    found = []
    for seed in range(sweeps):
        sampler = spec.sampler.model_copy(update={**keys, "seed": seed})
        found.append(sweep(spec.model_copy(update={"sampler": sampler}), slots, seed))
    means = {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}
    return {**means, "worst_regret": round(max(one["regret"] for one in found), 4)}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=SWEEPS)
    parser.add_argument("--plans", nargs="+", default=list(PLANS), choices=PLANS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "parallel.toml"
        path.write_text(STUDY)
        spec = read_study_file(str(path), "cpu")
    plans: dict[str, dict[str, Any]] = {}
    for kind in options.plans:
        for slots in SLOTS:
            name = f"{kind}, {PLANS[kind]} Sobol points, {slots} slots"
            plans[name] = measure(spec, kind, slots, options.sweeps)
            print(name, json.dumps(plans[name]), flush=True)
    figures = {"sweeps": options.sweeps, "trials": TRIALS, "noise_of_log_perplexity": NOISE}
    given = f"--sweeps {options.sweeps} --plans {' '.join(options.plans)}"
    measuring.write("parallel", figures | {"plans": plans}, given)


if __name__ == "__main__":
    main()
