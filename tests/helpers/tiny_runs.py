"""A training run that takes a second, for the tests of training, sampling and sweeps."""

import random
from pathlib import Path
from typing import Any

from gpt.config import TrainConfig, train_config

WORDS = ["Tom", "Lily", "the", "a", "red", "blue", "ball", "kite", "ran", "sat", "saw", "to", "and"]


def write_stories(folder: Path, count: int = 300) -> Path:
    """A folder with a train.txt and a valid.txt of random little stories."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("train.txt", count), ("valid.txt", count // 10)):
        stories = [" ".join(rng.choices(WORDS, k=rng.randint(8, 30))) + "." for _ in range(n)]
        (folder / name).write_text("\n<|endoftext|>\n".join(stories))
    return folder


def tiny_config(text: Path, **changes: Any) -> TrainConfig:
    """A one-layer model on `text`, 12 steps with an evaluation every 4."""
    values: dict[str, Any] = {
        "vocab_size": 280,
        "data": {"source": str(text), "tokenizer": "bpe", "bpe_vocab_size": 280},
        "block_size": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_embd": 16,
        "dropout": 0.1,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "max_steps": 12,
        "eval_interval": 4,
        "eval_tokens": 200,
    }
    return train_config(values | changes)


def write_run(run_dir: Path, config: TrainConfig) -> Path:
    """A run directory with its config.json."""
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(config.model_dump_json())
    return run_dir
