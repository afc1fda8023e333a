"""The tinystories sweep beside the sweep that a user would write: seconds to the same perplexity.

    python -m tests.benchmarks.plain_loop --nanogpt DIR

DIR is a checkout of nanoGPT, whose model the other sweep (plain_sweep.py) trains. Both have 40
trials of the same space, text, steps and evaluations, and both cores. One run of each, so it says
nothing of the spread between runs. "The same perplexity" is the worse of the two sweeps' best.
Orchestration is what of our two slots' time no trial spends between its first step and its end:
the driver's start, storage, processes, and a slot that is idle at the end.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from gpt.data import prepare
from gpt.events import Event, read_events
from sweep.spec import load_study
from tests.benchmarks import measuring

SLOTS = 2  # of squen-sweep run on two cores
Curve = list[tuple[float, float]]  # seconds since the start, perplexity; every evaluation


def ours(folder: Path, trials: int) -> tuple[float, Curve, float]:
    """`squen-sweep run` as a user starts it: wall seconds, evaluations, seconds in training."""
    started = time.time()
    command = [measuring.PYTHON, "-m", "sweep.cli", "run", "--study", "tinystories"]
    command += ["--data", "built-in", "--trials", str(trials), "--quiet"]
    measuring.succeed(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    seconds = time.time() - started
    curve: Curve = []
    in_training = 0.0
    for run_dir in (folder / "runs" / "tinystories").glob("[0-9]*"):
        events, _ = read_events(run_dir)
        evaluations = [event for event in events if event["event"] == "evaluation"]
        curve += [(event["time"] - started, event["perplexity"]) for event in evaluations]
        in_training += _seconds_in_training(events)
    return seconds, sorted(curve), in_training


def _seconds_in_training(events: list[Event]) -> float:
    """From the first step of a trial to the last thing that it said, checkpoints included."""
    first = next(event for event in events if event["event"] == "evaluation")
    return float(events[-1]["time"] - (first["time"] - first["elapsed_seconds"]))


def plain(folder: Path, trials: int, nanogpt: Path, fingerprint: str) -> tuple[float, Curve]:
    """The other sweep's."""
    started = time.time()
    command = [measuring.PYTHON, "-m", "tests.benchmarks.plain_sweep", str(nanogpt)]
    printed = measuring.succeed([*command, str(folder / "plain.db"), str(trials), fingerprint])
    seconds = time.time() - started
    lines = [line.split() for line in printed.splitlines()]
    rows = [line for line in lines if len(line) == 3 and line[0].replace(".", "", 1).isdigit()]
    return seconds, [(float(at) - started, float(value)) for at, _, value in rows]


def summary(seconds: float, curve: Curve, same: float) -> dict[str, Any]:
    """Figures of one sweep."""
    return {
        "seconds": round(seconds, 1),
        "best_perplexity": round(best(curve), 3),
        "evaluations": len(curve),
        "seconds_to_the_same_perplexity": round(
            next(at for at, value in curve if value <= same), 1
        ),
    }


def best(curve: Curve) -> float:
    """The lowest perplexity of all evaluations."""
    return min(value for _, value in curve)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR")
    parser.add_argument("--trials", type=int, default=40)
    args = parser.parse_args()
    data = load_study("tinystories", "cpu").data.model_copy(update={"source": "built-in"})
    fingerprint = prepare(data).meta.fingerprint
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        *first, in_training = ours(folder, args.trials)
        print("ours", round(first[0]), round(best(first[1]), 3), flush=True)
        second = plain(folder, args.trials, args.nanogpt.resolve(), fingerprint)
    same = max(best(first[1]), best(second[1]))
    sweeps = {"ours": summary(first[0], first[1], same), "plain": summary(*second, same)}
    key = "seconds_to_the_same_perplexity"
    figures = {
        "trials": args.trials,
        "same_perplexity": round(same, 3),
        **sweeps,
        "orchestration_share": round(1 - in_training / (SLOTS * first[0]), 4),
        "ratio_of_seconds": round(first[0] / second[0], 3),
        "ratio_of_seconds_to_the_same_perplexity": round(
            sweeps["ours"][key] / sweeps["plain"][key], 3
        ),
    }
    if args.trials == 40:
        measuring.write("plain_loop", figures, "--nanogpt DIR")
    else:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
