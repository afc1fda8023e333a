"""A trial of `tinystories` in a script of a user's own, with nanoGPT's model and its first weights.

For plain_sweep.py and ray_tune_sweep.py. Text, steps, warm-up and evaluations are the study's;
float32, as nanoGPT trains on a CPU.
"""

import math
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from gpt.config import DataConfig
from gpt.data.dataset import TokenData, prepare

BATCH, BLOCK, STEPS, WARMUP, EVAL_INTERVAL, EVAL_TOKENS = 8, 128, 300, 150, 50, 8192
TEXT = DataConfig(source="built-in", max_stories=14000, bpe_vocab_size=1024)
LEARNING_RATE, DROPOUT, N_LAYER = (6e-5, 3e-2), (0.0, 0.3), (1, 6)  # least and most
LOSS = ["cross_entropy", "squentropy"]


@cache
def prepared(fingerprint: str) -> TokenData:
    """Text, once in a process."""
    return prepare(TEXT.model_copy(update={"fingerprint": fingerprint}))


class Trial:
    """Training of one GPT.

    Args:
        nanogpt: Folder with nanoGPT's model.py.
        fingerprint: That of the prepared text.
        params: learning_rate, dropout, n_layer and loss.
    """

    def __init__(self, nanogpt: str, fingerprint: str, params: dict[str, Any]) -> None:
        if nanogpt not in sys.path:
            sys.path.insert(0, nanogpt)
        from model import GPT, GPTConfig  # type: ignore[import-not-found] # nanoGPT's

        data = prepared(fingerprint)
        self.text = np.memmap(data.folder / "train.bin", dtype=np.uint16, mode="r")
        self.validation = data.validation(BLOCK, EVAL_TOKENS)
        self.params = params
        shape = {"n_layer": params["n_layer"], "n_head": 2, "n_embd": 64, "block_size": BLOCK}
        shape |= {"bias": False, "vocab_size": data.meta.vocab_size}
        self.model = GPT(GPTConfig(**shape, dropout=params["dropout"]))
        self.optimizer = self.model.configure_optimizers(
            0.1, params["learning_rate"], (0.9, 0.95), "cpu"
        )

    def evaluations(self) -> Iterator[float]:
        """Train, and yield the perplexity every EVAL_INTERVAL steps."""
        for step in range(STEPS):
            done = max(0.0, (step - WARMUP) / (STEPS - WARMUP))
            decayed = 0.1 + 0.45 * (1 + math.cos(math.pi * done))
            for group in self.optimizer.param_groups:
                group["lr"] = self.params["learning_rate"] * min((step + 1) / (WARMUP + 1), decayed)
            x, y = self.batch()
            logits, loss = self.model(x, y)
            if self.params["loss"] == "squentropy":
                loss = squentropy(logits.flatten(0, 1), y.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if (step + 1) % EVAL_INTERVAL == 0:
                yield self.perplexity()

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As nanoGPT's get_batch."""
        ix = torch.randint(len(self.text) - BLOCK, (BATCH,))
        x = [torch.from_numpy(self.text[i : i + BLOCK].astype(np.int64)) for i in ix]
        y = [torch.from_numpy(self.text[i + 1 : i + 1 + BLOCK].astype(np.int64)) for i in ix]
        return torch.stack(x), torch.stack(y)

    @torch.no_grad()
    def perplexity(self) -> float:
        """Of the validation stories."""
        self.model.eval()
        nats, count = 0.0, 0
        idx, targets = self.validation.idx, self.validation.targets
        for x, y in zip(idx.split(BATCH), targets.split(BATCH), strict=True):
            logits, _ = self.model(x, y)
            nats += F.cross_entropy(
                logits.flatten(0, 1), y.flatten(), ignore_index=-1, reduction="sum"
            ).item()
            count += int((y >= 0).sum())
        self.model.train()
        return math.exp(min(nats / count, 20))


def squentropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus the mean squared logit of the wrong classes, from all logits."""
    true = logits.gather(1, targets[:, None])[:, 0]
    squares = (logits.square().sum(1) - true.square()) / (logits.shape[1] - 1)
    return F.cross_entropy(logits, targets) + squares.mean()
