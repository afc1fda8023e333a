"""The sweep that a user would write with Optuna and nanoGPT's model; what plain_loop.py measures.

    python -m tests.benchmarks.plain_sweep NANOGPT DATABASE TRIALS FINGERPRINT SEED

One process, all cores, float32: the space, text, steps and evaluations are those of tinystories.
Prints the time, perplexity and loss of each evaluation.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from torch.nn import functional as F

from gpt.config import DataConfig
from gpt.data.dataset import prepare

BATCH, BLOCK, STEPS, WARMUP, EVAL_INTERVAL, EVAL_TOKENS = 8, 128, 400, 200, 40, 8192

sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig  # type: ignore[import-not-found]  # noqa: E402 - nanoGPT's

DATA = prepare(DataConfig(source="built-in", fingerprint=sys.argv[4]))
TRAIN = np.memmap(DATA.folder / "train.bin", dtype=np.uint16, mode="r")
VALIDATION = DATA.validation(BLOCK, EVAL_TOKENS)


def squentropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus the mean squared logit of the wrong classes, from all logits."""
    true = logits.gather(1, targets[:, None])[:, 0]
    squares = (logits.square().sum(1) - true.square()) / (logits.shape[1] - 1)
    return F.cross_entropy(logits, targets) + squares.mean()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """As nanoGPT's get_batch."""
    ix = torch.randint(len(TRAIN) - BLOCK, (BATCH,))
    x = torch.stack([torch.from_numpy(TRAIN[i : i + BLOCK].astype(np.int64)) for i in ix])
    y = torch.stack([torch.from_numpy(TRAIN[i + 1 : i + 1 + BLOCK].astype(np.int64)) for i in ix])
    return x, y


@torch.no_grad()
def perplexity(model: GPT) -> float:
    """Of the validation stories."""
    model.eval()
    nats, count = 0.0, 0
    for x, y in zip(VALIDATION.idx.split(BATCH), VALIDATION.targets.split(BATCH), strict=True):
        logits, _ = model(x, y)
        nats += F.cross_entropy(
            logits.flatten(0, 1), y.flatten(), ignore_index=-1, reduction="sum"
        ).item()
        count += int((y >= 0).sum())
    model.train()
    return math.exp(min(nats / count, 20))


def objective(trial: optuna.Trial) -> float:
    """Train one GPT; its last perplexity."""
    peak = trial.suggest_float("learning_rate", 6e-5, 3e-2, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.3)
    n_layer = trial.suggest_int("n_layer", 1, 6)
    loss_name = trial.suggest_categorical("loss", ["cross_entropy", "squentropy"])
    shape = {"n_layer": n_layer, "n_head": 2, "n_embd": 64, "block_size": BLOCK, "bias": False}
    model = GPT(GPTConfig(**shape, vocab_size=DATA.meta.vocab_size, dropout=dropout))
    optimizer = model.configure_optimizers(0.1, peak, (0.9, 0.95), "cpu")
    for step in range(STEPS):
        done = max(0.0, (step - WARMUP) / (STEPS - WARMUP))
        decayed = 0.1 + 0.45 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = peak * min((step + 1) / (WARMUP + 1), decayed)
        x, y = batch()
        logits, loss = model(x, y)
        if loss_name == "squentropy":
            loss = squentropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % EVAL_INTERVAL == 0:
            value = perplexity(model)
            print(time.time(), value, loss_name, flush=True)
            trial.report(value, step + 1)
            if trial.should_prune():
                raise optuna.TrialPruned
    return value


if __name__ == "__main__":
    torch.manual_seed(int(sys.argv[5]))
    study = optuna.create_study(
        storage=f"sqlite:///{Path(sys.argv[2])}",
        sampler=optuna.samplers.TPESampler(seed=int(sys.argv[5])),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(objective, n_trials=int(sys.argv[3]))
