"""The tinystories sweep beside those that a user would write: seconds to a perplexity.

    python -m tests.benchmarks.other_tools --nanogpt DIR --seeds 0 1 2 3 4

DIR is a checkout of nanoGPT, whose model the other sweeps (plain_sweep.py, ray_tune_sweep.py)
train, from the first weights that nanoGPT gives it; ours run from the study's and from nanoGPT's.
All have 40 trials of the same space, text, steps, warm-up and evaluations, and two cores. "The same
perplexity" is the worse of two sweeps' best. Orchestration is what of our two slots' time no trial
spends between its first step and its end: the driver's start, storage, processes, and a slot that
is idle at the end. When a sweep meets its best is luck, hence several seeds of the samplers; which
sweep is first changes with the seed.

Results are written after each seed. Rerun to resume: seeds measured with the same code, on the same
machine, are kept.
"""

import argparse
import hashlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpt.config import read_config
from gpt.data.dataset import prepare
from gpt.events import Event, read_events
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring
from tests.benchmarks.nanogpt_trial import EVAL_INTERVAL, STEPS, TEXT

TRIALS = 40
SLOTS = 2  # of squen-sweep run on two cores
STUDY = Path("studies") / "tinystories.toml"
OURS, FROM_NANOGPT = "squen-sweep", "squen-sweep from nanoGPT's first weights"
PLAIN, RAY_TUNE = "Optuna's plain loop", "Ray Tune"
MEASURED = ("gpt/**/*.py", "sweep/**/*.py", str(STUDY), "tests/benchmarks/*_sweep.py")
MEASURED += ("tests/benchmarks/nanogpt_trial.py", "tests/benchmarks/other_tools.py")
Curve = list[tuple[float, float, str]]  # of every evaluation: seconds, perplexity, loss


@dataclass
class Sweep:
    """One run of a tool.

    Attributes:
        seconds: Wall time of its command.
        in_training: Seconds between trials' first steps and their ends, summed; of ours only.
    """

    seconds: float
    curve: Curve
    in_training: float | None = None

    @property
    def best(self) -> float:
        """The lowest perplexity of all evaluations."""
        return min(value for _, value, _ in self.curve)


def ours(folder: Path, seed: int, init_std: float) -> Sweep:
    """`squen-sweep run` as a user starts it."""
    study = STUDY.read_text()
    for line, instead in (("seed = 0", f"seed = {seed}"), ("init_std = 0.07", f"{init_std=}")):
        assert study.count(f"\n{line}\n") == 1
        study = study.replace(f"\n{line}\n", f"\n{instead}\n")
    (folder / STUDY.name).write_text(study)
    started = time.time()
    command = [measuring.PYTHON, "-m", "sweep", "run", "--study", f"./{STUDY.name}"]
    command += ["--data", "built-in", "--trials", str(TRIALS), "--quiet"]
    measuring.succeed(command, cwd=folder, env=environment(folder))
    seconds = time.time() - started
    curve: Curve = []
    in_training = 0.0
    for run_dir in (folder / "runs" / "tinystories").glob("[0-9]*"):
        events, _ = read_events(run_dir)
        evaluations = [event for event in events if event["event"] == "evaluation"]
        loss = read_config(run_dir / "config.json").loss
        curve += [(event["time"] - started, event["perplexity"], loss) for event in evaluations]
        in_training += _seconds_in_training(events)
    return Sweep(seconds, sorted(curve), in_training)


def environment(folder: Path) -> dict[str, str]:
    """A user's: threads are the tools' own matter, whatever this shell says."""
    changed = {"PYTHONPATH": str(Path.cwd()), "RAY_TMPDIR": str(folder)}
    changed["RAY_USAGE_STATS_ENABLED"] = "0"
    changed["RAY_worker_niceness"] = "0"  # not 15, with which other programs slow only Ray
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return kept | changed


def _seconds_in_training(events: list[Event]) -> float:
    """From the first step of a trial to the last thing that it said, checkpoints included."""
    first = next(event for event in events if event["event"] == "evaluation")
    return float(events[-1]["time"] - (first["time"] - first["elapsed_seconds"]))


def another(folder: Path, seed: int, script: str, nanogpt: Path, fingerprint: str) -> Sweep:
    """A script beside this one, which prints its evaluations."""
    started = time.time()
    command = [measuring.PYTHON, "-m", f"tests.benchmarks.{script}", str(nanogpt), str(folder)]
    command += [str(TRIALS), fingerprint, str(seed)]
    printed = measuring.succeed(command, env=environment(folder))
    seconds = time.time() - started
    lines = [line.split() for line in printed.splitlines()]
    rows = [line for line in lines if len(line) == 3 and line[0].replace(".", "", 1).isdigit()]
    return Sweep(
        seconds, sorted((float(at) - started, float(value), loss) for at, value, loss in rows)
    )


def summary(sweep: Sweep) -> dict[str, Any]:
    """Figures of one sweep."""
    best: dict[str, float] = {}
    for _, value, loss in sweep.curve:
        best[loss] = round(min(value, best.get(loss, value)), 3)
    figures = {
        "seconds": round(sweep.seconds, 1),
        "best_perplexity": dict(sorted(best.items())),
        "evaluations": len(sweep.curve),
        "seconds_of_an_evaluation": round(sweep.seconds / len(sweep.curve), 3),
    }
    if sweep.in_training is not None:
        share = 1 - sweep.in_training / (SLOTS * sweep.seconds)
        figures["orchestration_share"] = round(share, 4)
    return figures


def reach(sweep: Sweep, same: float) -> dict[str, float]:
    """Seconds and evaluations until a sweep has a perplexity."""
    place, at = next((i, e[0]) for i, e in enumerate(sweep.curve, start=1) if e[1] <= same)
    return {"seconds": round(at, 1), "evaluations": place}


def measure(seed: int, tools: dict[str, Callable[[Path, int], Sweep]]) -> dict[str, Any]:
    """One run of each tool, beginning with another one at each seed."""
    names = list(tools)
    first = seed % len(names)
    sweeps = {}
    for name in names[first:] + names[:first]:
        with tempfile.TemporaryDirectory() as place:
            sweeps[name] = tools[name](Path(place), seed)
    found: dict[str, Any] = {
        "seed": seed,
        "sweeps": {name: summary(sweep) for name, sweep in sweeps.items()},
        "pairs": [],
    }
    for one, other in pairs():
        same = max(sweeps[one].best, sweeps[other].best)
        times = {name: reach(sweeps[name], same) for name in (one, other)}
        found["pairs"].append({"same_perplexity": round(same, 3)} | times)
    return found


def pairs() -> Iterator[tuple[str, str]]:
    """Each of ours with each of the others."""
    return itertools.product((OURS, FROM_NANOGPT), (PLAIN, RAY_TUNE))


def ratios(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of ours to the others."""
    sweeps = [found["sweeps"] for found in seeds]
    rows = []
    for place, (one, other) in enumerate(pairs()):
        reached = [found["pairs"][place] for found in seeds]
        rows.append(
            {
                "of": one,
                "to": other,
                "seconds_to_the_same_perplexity": _ratios(reached, one, other, "seconds"),
                "seconds": _ratios(sweeps, one, other, "seconds"),
                "seconds_of_an_evaluation": _ratios(sweeps, one, other, "seconds_of_an_evaluation"),
            }
        )
    return rows


def _ratios(found: list[dict[str, Any]], one: str, other: str, figure: str) -> dict[str, float]:
    return measuring.ratios([of[one][figure] for of in found], [of[other][figure] for of in found])


def measured_before(code: str) -> dict[int, dict[str, Any]]:
    """Seeds of the file of results, if this code made it on this machine."""
    path = measuring.HERE / "other_tools.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    if before.get("code") != code or before["machine"] != measuring.machine():
        return {}
    return {found["seed"]: found for found in before["seeds"]}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    args = parser.parse_args()
    spec = read_study_file("tinystories", "cpu")
    data = spec.data.model_copy(update={"source": "built-in"})
    assert (TEXT.bpe_vocab_size, STEPS) == (data.bpe_vocab_size, spec.max_steps)
    assert spec.base("eval_interval") == EVAL_INTERVAL
    given = {"nanogpt": args.nanogpt.resolve(), "fingerprint": prepare(data).meta.fingerprint}
    tools = {
        OURS: partial(ours, init_std=0.07),
        PLAIN: partial(another, script="plain_sweep", **given),
        FROM_NANOGPT: partial(ours, init_std=0.02),
        RAY_TUNE: partial(another, script="ray_tune_sweep", **given),
    }
    files = sorted(path for pattern in MEASURED for path in Path().glob(pattern))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    seeds = measured_before(code)
    for seed in args.seeds:
        if seed in seeds:
            continue
        seeds[seed] = measure(seed, tools)
        found = [seeds[number] for number in sorted(seeds)]
        shares = [one["sweeps"][OURS]["orchestration_share"] for one in found]
        figures = {
            "code": code,
            "ray": version("ray"),
            "trials": TRIALS,
            "budget": f"{STEPS} steps, {TEXT.bpe_vocab_size:,} tokens in the vocabulary",
            "eval_interval": EVAL_INTERVAL,
            "seeds": found,
            "orchestration_share": measuring.spread(shares),
            "ratios": ratios(found),
        }
        numbers = " ".join(map(str, sorted(seeds)))
        measuring.write("other_tools", figures, f"--nanogpt DIR --seeds {numbers}")


if __name__ == "__main__":
    main()
