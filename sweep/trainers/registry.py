"""The trainers by name, apart from the package itself: a program's process needs no torch."""

from collections.abc import Callable

from gpt.config import DataConfig
from sweep.study.spec import StudySpec
from sweep.trainers.base import Trainer
from sweep.trainers.command import CommandTrainer
from sweep.trainers.gpt import GPTTrainer


def trainer_of(spec: StudySpec, data: DataConfig) -> Trainer:
    """Return what trains the trials of a study.

    Args:
        spec: The study.
        data: The text, of the built-in GPT alone.
    """
    return TRAINERS["gpt" if spec.trainer is None else "command"](spec, data)


TRAINERS: dict[str, Callable[[StudySpec, DataConfig], Trainer]] = {
    "gpt": lambda spec, data: GPTTrainer(data),
    "command": lambda spec, data: CommandTrainer(spec),
}
