"""Optimisers and learning-rate schedules, by the names that a study file gives them."""

from gpt.optim.optimizers import OPTIMIZERS, Optimizer, Setup, check_installed
from gpt.optim.schedules import SCHEDULES, Schedule

__all__ = ["OPTIMIZERS", "SCHEDULES", "Optimizer", "Schedule", "Setup", "check_installed"]
