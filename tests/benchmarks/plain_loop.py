"""The tinystories sweep beside the sweep that a user would write: what each takes to a perplexity.

    python -m tests.benchmarks.plain_loop --nanogpt DIR --seeds 0 1 2 3 4

DIR is a checkout of nanoGPT, whose model the other sweep (plain_sweep.py) trains, from the first
weights that nanoGPT gives it. Both have 40 trials of the same space, text, steps, warm-up and
evaluations, and both cores. "The same perplexity" is the
worse of the two sweeps' best. Orchestration is what of our two slots' time no trial spends between
its first step and its end: the driver's start, storage, processes, and a slot that is idle at the
end. When a sweep meets its best is luck, hence several seeds of the samplers.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from gpt.config import read_config
from gpt.data.dataset import prepare
from gpt.events import Event, read_events
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

TRIALS = 40
SLOTS = 2  # of squen-sweep run on two cores
SEED_LINE = "\nseed = 0\n"
Curve = list[tuple[float, float, str]]  # of every evaluation: seconds, perplexity, loss


def ours(folder: Path, seed: int) -> tuple[float, Curve, float]:
    """`squen-sweep run` as a user starts it: wall seconds, evaluations, seconds in training."""
    study = (Path("studies") / "tinystories.toml").read_text()
    assert study.count(SEED_LINE) == 1
    (folder / "tinystories.toml").write_text(study.replace(SEED_LINE, f"\nseed = {seed}\n"))
    started = time.time()
    command = [measuring.PYTHON, "-m", "sweep", "run", "--study", "./tinystories.toml"]
    command += ["--data", "built-in", "--trials", str(TRIALS), "--quiet"]
    measuring.succeed(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    seconds = time.time() - started
    curve: Curve = []
    in_training = 0.0
    for run_dir in (folder / "runs" / "tinystories").glob("[0-9]*"):
        events, _ = read_events(run_dir)
        evaluations = [event for event in events if event["event"] == "evaluation"]
        loss = read_config(run_dir / "config.json").loss
        curve += [(event["time"] - started, event["perplexity"], loss) for event in evaluations]
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
    return seconds, [(float(at) - started, float(value), loss) for at, value, loss in rows]


def summary(seconds: float, curve: Curve, same: float) -> dict[str, Any]:
    """Figures of one sweep."""
    place, at = next((i, e[0]) for i, e in enumerate(curve, start=1) if e[1] <= same)
    losses = sorted({loss for *_, loss in curve})
    return {
        "seconds": round(seconds, 1),
        "best_perplexity": {
            loss: round(best([e for e in curve if e[2] == loss]), 3) for loss in losses
        },
        "evaluations": len(curve),
        "seconds_of_an_evaluation": round(seconds / len(curve), 3),
        "seconds_to_the_same_perplexity": round(at, 1),
        "evaluations_to_the_same_perplexity": place,
    }


def best(curve: Curve) -> float:
    """The lowest perplexity of all evaluations."""
    return min(value for _, value, _ in curve)


def pair(seed: int, nanogpt: Path, fingerprint: str) -> dict[str, Any]:
    """One run of each sweep."""
    with tempfile.TemporaryDirectory() as place:
        seconds, curve, in_training = ours(Path(place), seed)
        other_seconds, other_curve = plain(Path(place), seed, nanogpt, fingerprint)
    same = max(best(curve), best(other_curve))
    found = {
        "seed": seed,
        "same_perplexity": round(same, 3),
        "ours": summary(seconds, curve, same),
        "plain": summary(other_seconds, other_curve, same),
        "orchestration_share": round(1 - in_training / (SLOTS * seconds), 4),
    }
    print(json.dumps(found), flush=True)
    return found


def ratios(pairs: list[dict[str, Any]], figure: str) -> dict[str, float]:
    """Of our sweep to the other one."""
    ours, plain = ([found[of][figure] for found in pairs] for of in ("ours", "plain"))
    return measuring.ratios(ours, plain)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    args = parser.parse_args()
    data = read_study_file("tinystories", "cpu").data.model_copy(update={"source": "built-in"})
    fingerprint = prepare(data).meta.fingerprint
    pairs = [pair(seed, args.nanogpt.resolve(), fingerprint) for seed in args.seeds]
    figures = {
        "trials": TRIALS,
        "pairs": pairs,
        "orchestration_share": measuring.spread([found["orchestration_share"] for found in pairs]),
        **{
            f"ratio_of_{figure}": ratios(pairs, figure)
            for figure in ("seconds", "seconds_to_the_same_perplexity", "seconds_of_an_evaluation")
        },
    }
    seeds = " ".join(map(str, args.seeds))
    measuring.write("plain_loop", figures, f"--nanogpt DIR --seeds {seeds}")


if __name__ == "__main__":
    main()
