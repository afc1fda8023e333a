"""Run directories with random weights, as a finished training leaves them, without training."""

from pathlib import Path
from typing import Any

import tiktoken
import torch

from gpt import checkpoint
from gpt.config import DataConfig, TrainConfig
from gpt.data.tokenizer import train_bpe, write_encoding
from gpt.model import GPT

TEXTS = [f"The {name} saw a {thing}, didn't it? {n} times!\n" for n, (name, thing) in enumerate(
    (name, thing) for name in ("cat", "dog", "child", "bird") for thing in ("ball", "tree", "house")
)]  # fmt: skip


def own_bpe() -> tiktoken.Encoding:
    """A small vocabulary of our own."""
    return train_bpe(TEXTS, 300)


def make_run(
    folder: Path, encoding: tiktoken.Encoding, data: DataConfig | None = None, **changes: Any
) -> tuple[TrainConfig, GPT]:
    """Fill a run directory, and return its configuration and its model."""
    values = {"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "max_steps": 40}
    config = TrainConfig(
        vocab_size=encoding.n_vocab, data=data or DataConfig(source="hub"), **(values | changes)
    )
    torch.manual_seed(0)
    model = GPT(config).eval()
    for parameter in model.parameters():  # biases and gains too, which start at 0 and 1
        torch.nn.init.normal_(parameter, std=0.2)
    weights = {name: w for name, w in model.state_dict().items() if name != "lm_head.weight"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json())
    checkpoint.save(folder, 40, weights, None, {})
    write_encoding(encoding, folder / "tokenizer.json")
    return config, model
