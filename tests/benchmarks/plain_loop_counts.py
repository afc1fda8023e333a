"""How many evaluations the tinystories sweep and the plain loop make to the same perplexity.

    python -m tests.benchmarks.plain_loop_counts --nanogpt DIR --seeds 1 2 3 4 5

As plain_loop.py, with other seeds. Evaluations do not depend on what else runs, so this needs no
quiet machine; seconds do, and are not kept.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tests.benchmarks import measuring
from tests.benchmarks.plain_loop import TRIALS, pair, ratio


def counted(found: dict[str, Any]) -> dict[str, Any]:
    """What of a pair does not depend on the machine."""
    counts = {
        of: {name: value for name, value in found[of].items() if "seconds" not in name}
        for of in ("ours", "plain")
    }
    times = ratio(found, "evaluations_to_the_same_perplexity")
    same = found["same_perplexity"]
    return {
        "seed": found["seed"],
        "same_perplexity": same,
        **counts,
        "ratio_of_evaluations_to_the_same_perplexity": times,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    args = parser.parse_args()
    pairs = []
    for seed in args.seeds:
        pairs.append(counted(pair(seed, args.nanogpt)))
        print(json.dumps(pairs[-1]), flush=True)
    name = "ratio_of_evaluations_to_the_same_perplexity"
    figures = {
        "trials": TRIALS,
        "pairs": pairs,
        name: measuring.spread([found[name] for found in pairs]),
    }
    seeds = " ".join(map(str, args.seeds))
    measuring.write("plain_loop_counts", figures, f"--nanogpt DIR --seeds {seeds}")


if __name__ == "__main__":
    main()
