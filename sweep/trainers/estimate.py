"""Cost of a trial of the built-in GPT, measured in a few steps on random tokens; writes nothing."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from gpt.config import TrainConfig
from gpt.data.dataset import TokenData, ValidationSet
from gpt.trainer import Trainer

ENOUGH_SECONDS = 0.5  # of measured steps, of which the fastest counts: others were interrupted
ENOUGH_STEPS = 10
MAX_EVAL_TOKENS = 2048  # of the measured evaluation; more of them cost proportionally more


@dataclass(frozen=True)
class TrialCost:
    """What one complete trial takes on one slot."""

    seconds: float
    peak_memory_bytes: int  # of its process; on CUDA of the device


class RandomTokens(TokenData):
    """Tokens that cost as much as those of a text."""

    def __init__(self, config: TrainConfig) -> None:
        self._vocab_size = config.vocab_size
        draws = np.random.default_rng(0)
        size = 64 * (config.block_size + 1)
        self.train = draws.integers(config.vocab_size, size=size, dtype=np.uint16)

    def validation(self, block_size: int, eval_tokens: int, skip_tokens: int = 0) -> ValidationSet:
        """Make rows of random tokens, each a story."""
        rows = -(-eval_tokens // block_size)
        idx = torch.randint(self._vocab_size, (rows, block_size))
        story_bytes = torch.full((rows,), 4 * block_size)
        return ValidationSet(idx, idx, torch.arange(rows), story_bytes, None)


def measure(config: TrainConfig) -> TrialCost:
    """Train a few steps and evaluate once, and extrapolate to a complete trial.

    Neither the time to compile, nor that to start a process, nor the other slots count.
    """
    eval_tokens = min(config.eval_tokens, MAX_EVAL_TOKENS)
    short = config.model_copy(
        update={"gradient_accumulation_steps": 1, "compile": False, "eval_tokens": eval_tokens}
    )
    trainer = Trainer(short, RandomTokens(short))
    trainer.step()  # the first one allocates
    seconds: list[float] = []
    while len(seconds) < ENOUGH_STEPS and sum(seconds) < ENOUGH_SECONDS:
        before = trainer.counters.seconds
        trainer.step()
        seconds.append(trainer.counters.seconds - before)
    of_step = min(seconds) * config.gradient_accumulation_steps
    started = time.perf_counter()
    peak = trainer.evaluate().peak_memory_bytes
    of_evaluation = (time.perf_counter() - started) * config.eval_tokens / eval_tokens
    evaluations = -(-config.max_steps // config.eval_interval)
    return TrialCost(config.max_steps * of_step + evaluations * of_evaluation, peak)
