"""Does the best learning rate stay where it is when a run is longer, with and without the rule?

    python -m tests.benchmarks.longer_runs STORIES

STORIES is a folder of real ones. A model is trained at every learning rate of a grid with steps of
2: as short as a trial, and s = GROWTH times as long, in three ways, warm-up keeping its share.
Rates are those of the short run: a rule works where the best one does not move. Runs that the file
holds already are kept. One process, one thread.

    PLAIN   nothing else changes
    DECAY   weight_decay / s, so that rate x decay x steps stays
            (Wang and Aitchison 2024, arXiv:2405.13698)
    SDE     learning_rate and weight_decay x s ** -0.5, 1 - beta1 and 1 - beta2 over s
            (Malladi et al. 2022, arXiv:2205.10287; Mlodozeniec et al. 2025, arXiv:2512.22382)
"""

import json
import sys
from typing import Any

import numpy as np

from gpt.config import DataConfig, TrainConfig, train_config
from gpt.data.dataset import prepare
from gpt.errors import DivergedError
from gpt.train import train
from sweep.study.dataset import pin_dataset
from tests.benchmarks import measuring

RATES = [2.0**power for power in range(-9, -3)]  # 0.002 to 0.0625
STEPS, GROWTH = 200, 8
SEEDS = (1,)
SHORT, PLAIN, DECAY, SDE = "short", "longer", "longer, less decay", "longer, by the SDE"
KINDS = (SHORT, PLAIN, DECAY, SDE)

Run = dict[str, Any]


def runs() -> list[Run]:
    """All that is trained, the cheapest first."""
    return [
        {"run": kind, "learning_rate": rate, "seed": seed}
        for seed in SEEDS
        for kind in KINDS
        for rate in RATES
    ]


def config_of(run: Run, data: DataConfig, vocab_size: int) -> TrainConfig:
    """The configuration of a run."""
    values: dict[str, Any] = {
        "vocab_size": vocab_size,
        "data": data.model_dump(),
        "n_layer": 2,
        "n_embd": 64,
        "n_head": 2,
        "block_size": 64,
        "init_std": 0.07,
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.95,
        "batch_size": 16,
        "max_steps": STEPS,
        "warmup_steps": STEPS // 5,
        "eval_interval": STEPS,
        "eval_tokens": 32768,
        "dtype": "float32",
        "threads": 1,
        "learning_rate": run["learning_rate"],
        "min_lr_ratio": 0.1,
        "seed": run["seed"],
    }
    if run["run"] != SHORT:
        for name in ("max_steps", "warmup_steps", "eval_interval"):
            values[name] *= GROWTH
    if run["run"] == DECAY:
        values["weight_decay"] /= GROWTH
    if run["run"] == SDE:
        values["learning_rate"] *= GROWTH**-0.5
        values["weight_decay"] *= GROWTH**-0.5
        values["beta1"], values["beta2"] = 1 - 0.1 / GROWTH, 1 - 0.05 / GROWTH
    return train_config(values)


def measure(stories: str) -> None:
    """Train what is missing."""
    data = DataConfig(source=stories, tokenizer="bpe", bpe_vocab_size=1024)
    tokens = prepare(data, print)
    pinned = pin_dataset(data, tokens)
    place = measuring.HERE / "longer_runs.json"
    done: list[Run] = json.loads(place.read_text())["runs"] if place.exists() else []
    known = [{name: run[name] for name in runs()[0]} for run in done]
    for run in runs():
        if run in known:
            continue
        try:
            *_, end = train(config_of(run, pinned, tokens.meta.vocab_size))
            value = round(end.cross_entropy, 4)
        except DivergedError:
            value = None
        done.append(run | {"cross_entropy": value})
        print(done[-1], flush=True)
        write(done)


def write(done: list[Run]) -> None:
    """The results: by kind of run the loss at each rate and the best rate, in steps of 2."""
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        losses = {
            rate: float(np.mean(values))
            for rate in RATES
            if len(values := _losses(done, kind, rate)) > 0
        }
        if losses:
            kinds[kind] = {
                "cross_entropy": {str(rate): round(loss, 4) for rate, loss in losses.items()},
                "best_rate_in_powers_of_2": best_power(losses),
            }
    measuring.write("longer_runs", {"growth": GROWTH, "kinds": kinds, "runs": done}, "STORIES")


def _losses(done: list[Run], kind: str, rate: float) -> list[float]:
    of = [run for run in done if (run["run"], run["learning_rate"]) == (kind, rate)]
    return [run["cross_entropy"] for run in of if run["cross_entropy"] is not None]


def best_power(losses: dict[float, float]) -> float | None:
    """Log2 of the rate at the lowest point of a parabola through the best rate and its neighbours.

    None where the best rate is at an end.
    """
    powers = sorted(losses)
    best = min(range(len(powers)), key=lambda at: losses[powers[at]])
    if best in (0, len(powers) - 1):
        return None
    three = powers[best - 1 : best + 2]
    square, line, _ = np.polyfit(np.log2(three), [losses[rate] for rate in three], 2)
    return round(float(-line / (2 * square)), 2)


if __name__ == "__main__":
    measure(sys.argv[1])
