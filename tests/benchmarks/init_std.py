"""How large should a model's first weights be, at the CPU budget of tinystories?

    python -m tests.benchmarks.init_std STORIES

STORIES is a folder of real ones; the built-in text is measured, too. Every setting is trained with
each seed, two trials at a time, and evaluated once, at the end. GPT-2's 0.02 is for 768 columns;
0.07 is as large to the 64 of this budget, as 0.02 * sqrt(768 / 64).
"""

import itertools
import multiprocessing
import sys
from typing import Any

from gpt.data.dataset import prepare
from gpt.train import train
from sweep.study.dataset import pin_dataset
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

GRID: dict[str, tuple[Any, ...]] = {
    "text": ("stories", "built-in"),
    "loss": ("cross_entropy", "squentropy"),
    "n_layer": (1, 4),
    "warmup_steps": (40, 200),
    "init_std": (0.02, 0.07, 0.1),
    "seed": (1, 2),
}
LEARNING_RATE = 1e-2
EVAL_TOKENS = 32768  # four times the study's
PROCESSES = 2

Setting = dict[str, Any]


def perplexity(job: tuple[Setting, str]) -> float:
    """After the last step."""
    setting, stories = job
    spec = read_study_file("tinystories", "cpu")
    source = "built-in" if setting["text"] == "built-in" else stories
    data = spec.data.model_copy(update={"source": source})
    params = {name: setting[name] for name in ("loss", "n_layer")}
    params |= {"learning_rate": LEARNING_RATE, "dropout": 0.0}
    config = spec.train_config(params, pin_dataset(data, prepare(data)), "cpu", 1)
    changed = {name: setting[name] for name in ("warmup_steps", "init_std", "seed")}
    changed |= {"eval_interval": spec.max_steps, "eval_tokens": EVAL_TOKENS, "dtype": "bfloat16"}
    (end,) = train(config.model_copy(update=changed))
    return round(end.perplexity, 3)


def by_size(settings: list[Setting], values: list[float]) -> list[Setting]:
    """A row for each setting but its seed and size: the seeds' perplexities by size."""
    rows: dict[tuple[Any, ...], Setting] = {}
    for setting, value in zip(settings, values, strict=True):
        same = {name: setting[name] for name in GRID if name not in ("init_std", "seed")}
        row = rows.setdefault(tuple(same.values()), same | {"perplexity": {}})
        row["perplexity"].setdefault(str(setting["init_std"]), []).append(value)
    return list(rows.values())


def main() -> None:
    """Train all and write the results."""
    settings = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    jobs = [(setting, sys.argv[1]) for setting in settings]
    values = []
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for setting, value in zip(settings, pool.imap(perplexity, jobs, chunksize=1), strict=True):
            print(*setting.values(), value, flush=True)
            values.append(value)
    rows = by_size(settings, values)
    figures = {
        "learning_rate": LEARNING_RATE,
        "eval_tokens": EVAL_TOKENS,
        "ratio_of_0.07_to_0.02": {
            f"{text}, warm-up of {warmup}": measuring.spread(ratios(rows, text, warmup))
            for text in GRID["text"]
            for warmup in GRID["warmup_steps"]
        },
        "rows": rows,
    }
    measuring.write("init_std", figures, "STORIES")


def ratios(rows: list[Setting], text: str, warmup_steps: int) -> list[float]:
    """Of perplexities, for every loss, depth and seed."""
    return [
        round(scaled / usual, 4)
        for row in rows
        if row["text"] == text and row["warmup_steps"] == warmup_steps
        for scaled, usual in zip(row["perplexity"]["0.07"], row["perplexity"]["0.02"], strict=True)
    ]


if __name__ == "__main__":
    main()
