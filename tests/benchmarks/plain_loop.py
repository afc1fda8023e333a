"""The tinystories sweep beside the sweep that a user would write: what each takes to a perplexity.

    python -m tests.benchmarks.plain_loop --nanogpt DIR

DIR is a checkout of nanoGPT, whose model the other sweep (plain_sweep.py) trains. Both have 40
trials of the same space, text, steps and evaluations, and both cores. "The same perplexity" is the
worse of the two sweeps' best. Orchestration is what of our two slots' time no trial spends between
its first step and its end: the driver's start, storage, processes, and a slot that is idle at the
end. One run of each: when a sweep meets its best is luck, see plain_loop_counts.py.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from gpt.data import prepare
from gpt.events import Event, read_events
from sweep.spec import load_study
from tests.benchmarks import measuring

TRIALS = 40
SLOTS = 2  # of squen-sweep run on two cores
SEED_LINE = "\nseed = 0\n"
Curve = list[tuple[float, float]]  # seconds since the start, perplexity; every evaluation


def ours(folder: Path, seed: int) -> tuple[float, Curve, float]:
    """`squen-sweep run` as a user starts it: wall seconds, evaluations, seconds in training."""
    study = (Path("studies") / "tinystories.toml").read_text()
    assert study.count(SEED_LINE) == 1
    (folder / "tinystories.toml").write_text(study.replace(SEED_LINE, f"\nseed = {seed}\n"))
    started = time.time()
    command = [measuring.PYTHON, "-m", "sweep.cli", "run", "--study", "./tinystories.toml"]
    command += ["--data", "built-in", "--trials", str(TRIALS), "--quiet"]
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


def plain(folder: Path, seed: int, nanogpt: Path, fingerprint: str) -> tuple[float, Curve]:
    """The other sweep's."""
    started = time.time()
    command = [measuring.PYTHON, "-m", "tests.benchmarks.plain_sweep", str(nanogpt)]
    command += [str(folder / "plain.db"), str(TRIALS), fingerprint, str(seed)]
    printed = measuring.succeed(command)
    seconds = time.time() - started
    lines = [line.split() for line in printed.splitlines()]
    rows = [line for line in lines if len(line) == 3 and line[0].replace(".", "", 1).isdigit()]
    return seconds, [(float(at) - started, float(value)) for at, _, value in rows]


def summary(seconds: float, curve: Curve, same: float) -> dict[str, Any]:
    """Figures of one sweep."""
    place, (at, _) = next((i, e) for i, e in enumerate(curve, start=1) if e[1] <= same)
    return {
        "seconds": round(seconds, 1),
        "best_perplexity": round(best(curve), 3),
        "evaluations": len(curve),
        "seconds_to_the_same_perplexity": round(at, 1),
        "evaluations_to_the_same_perplexity": place,
    }


def best(curve: Curve) -> float:
    """The lowest perplexity of all evaluations."""
    return min(value for _, value in curve)


def pair(seed: int, nanogpt: Path) -> dict[str, Any]:
    """One run of each sweep."""
    data = load_study("tinystories", "cpu").data.model_copy(update={"source": "built-in"})
    fingerprint = prepare(data).meta.fingerprint
    with tempfile.TemporaryDirectory() as place:
        seconds, curve, in_training = ours(Path(place), seed)
        print("ours", round(seconds), round(best(curve), 3), flush=True)
        other_seconds, other_curve = plain(Path(place), seed, nanogpt.resolve(), fingerprint)
    same = max(best(curve), best(other_curve))
    return {
        "trials": TRIALS,
        "seed": seed,
        "same_perplexity": round(same, 3),
        "ours": summary(seconds, curve, same),
        "plain": summary(other_seconds, other_curve, same),
        "orchestration_share": round(1 - in_training / (SLOTS * seconds), 4),
    }


def ratio(found: dict[str, Any], figure: str) -> float:
    """Of our sweep to the other one."""
    return round(found["ours"][figure] / found["plain"][figure], 3)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR")
    found = pair(0, parser.parse_args().nanogpt)
    figures = {
        **found,
        "ratio_of_seconds": ratio(found, "seconds"),
        "ratio_of_seconds_to_the_same_perplexity": ratio(found, "seconds_to_the_same_perplexity"),
    }
    measuring.write("plain_loop", figures, "--nanogpt DIR")


if __name__ == "__main__":
    main()
