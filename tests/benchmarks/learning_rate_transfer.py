"""Does the best learning rate stay where it is when a model grows, with and without CompleteP?

    python -m tests.benchmarks.learning_rate_transfer STORIES

STORIES is a folder of real ones. A model is trained at every learning rate of a grid with steps of
2, at widths and depths above the base shape, in both parametrizations. Runs that the file holds
already are kept, so that a stopped measurement goes on. One process, one thread.
"""

import json
import math
import sys
from typing import Any

from gpt.config import DataConfig, TrainConfig, train_config
from gpt.data.dataset import prepare
from gpt.errors import DivergedError
from gpt.train import train
from sweep.study.dataset import pin_dataset
from tests.benchmarks import measuring

RATES = [2.0**power for power in range(-9, -3)]  # 0.002 to 0.0625
BASE = {"n_embd": 64, "n_layer": 2, "n_head": 2}
WIDTHS, DEPTHS = (128, 256), (4, 8)
STEPS = 200
SEEDS = (1,)
BOTH = (256, 8)  # width and depth at which the standard parametrization is trained, too

Run = dict[str, Any]


def runs() -> list[Run]:
    """All that is trained, the cheapest first; at the base shape both are the same run."""
    shapes = [BASE]
    shapes += [BASE | {"n_embd": width, "n_head": width // 32} for width in WIDTHS]
    shapes += [BASE | {"n_layer": depth} for depth in DEPTHS]
    shapes.sort(key=lambda shape: shape["n_layer"] * shape["n_embd"] ** 2)
    return [
        {"parametrization": parametrization, **shape, "learning_rate": rate, "seed": seed}
        for shape in shapes
        for parametrization in parametrizations(shape)
        for seed in SEEDS
        for rate in RATES
    ]


def parametrizations(shape: Run) -> tuple[str, ...]:
    """Those that are trained at a shape."""
    if shape == BASE:
        return ("standard",)
    both = shape["n_embd"] == BOTH[0] or shape["n_layer"] == BOTH[1]
    return ("completep", "standard") if both else ("completep",)


def config_of(run: Run, data: Any, vocab_size: int) -> TrainConfig:
    """The configuration of a run."""
    base = {f"base_{name}": value for name, value in BASE.items()}
    values = {
        "vocab_size": vocab_size,
        "data": data.model_dump(),
        "block_size": 64,
        "init_std": 0.07,
        "batch_size": 16,
        "max_steps": STEPS,
        "warmup_steps": STEPS // 5,
        "eval_interval": STEPS,
        "eval_tokens": 32768,
        "dtype": "bfloat16",
    }
    return train_config(values | run | (base if run["parametrization"] == "completep" else {}))


def measure(stories: str) -> list[Run]:
    """Train what is missing."""
    data = DataConfig(source=stories, tokenizer="bpe", bpe_vocab_size=1024)
    tokens = prepare(data, print)
    pinned = pin_dataset(data, tokens)
    place = measuring.HERE / "learning_rate_transfer.json"
    done: list[Run] = json.loads(place.read_text())["runs"] if place.exists() else []
    known = [{name: run[name] for name in run if name in runs()[0]} for run in done]
    for run in runs():
        if run in known:
            continue
        try:
            (end,) = train(config_of(run, pinned, tokens.meta.vocab_size))
            value = round(end.cross_entropy, 4)
        except DivergedError:
            value = None
        done.append(run | {"cross_entropy": value})
        print(done[-1], flush=True)
        write(done)
    write([run for run in done if {name: run[name] for name in runs()[0]} in runs()])
    return done


def write(done: list[Run]) -> None:
    """The results: the best rate of each shape, its steps of 2 from that of the base, all runs."""
    best: dict[str, dict[str, float]] = {}
    for run in sorted((run for run in done if run["cross_entropy"]), key=_nats, reverse=True):
        shape = f"{run['n_layer']} x {run['n_embd']}"
        best.setdefault(run["parametrization"], {})[shape] = run["learning_rate"]
    base = best["standard"][f"{BASE['n_layer']} x {BASE['n_embd']}"]
    steps = {
        name: {shape: round(math.log2(rate / base)) for shape, rate in sorted(of.items())}
        for name, of in best.items()
    }
    figures = {"best_learning_rate": best, "steps_of_2_from_the_base": steps, "runs": done}
    measuring.write("learning_rate_transfer", figures, "STORIES")


def _nats(run: Run) -> float:
    return float(run["cross_entropy"])


if __name__ == "__main__":
    measure(sys.argv[1])
