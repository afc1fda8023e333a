"""Trainers: what a trial runs. Add one by adding a class like GPTTrainer and a TRAINERS entry."""

from sweep.trainers.base import Facts, RunFacts, Trainer
from sweep.trainers.gpt import GPTTrainer

TRAINERS: dict[str, type[GPTTrainer]] = {"gpt": GPTTrainer}

__all__ = ["TRAINERS", "Facts", "GPTTrainer", "RunFacts", "Trainer"]
