"""A language model of characters with the Trainer of Hugging Face, and its usual arguments.

python hf_trainer.py --learning_rate=3e-3 --seed=1 --output_dir=out
"""

import torch
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from sweep.report_to import report

TEXT = "The cat sat on the mat. The dog ran to the cat. A bird sang to the dog. " * 200
LENGTH = 32  # characters of an example


class Characters(Dataset):
    """Pieces of a text as token ids."""

    def __init__(self, text: str) -> None:
        ids = torch.tensor([ord(character) for character in text])
        self.pieces = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.pieces[index], "labels": self.pieces[index]}


class ReportCallback(TrainerCallback):
    """Reports each evaluation to the sweep."""

    def on_evaluate(self, args, state, control, metrics, **kwargs) -> None:
        """Report the loss, in nats per token."""
        report(state.global_step, metrics["eval_loss"])


(arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
set_seed(arguments.seed)
shape = {"vocab_size": 128, "n_positions": LENGTH, "n_embd": 32, "n_layer": 1, "n_head": 2}
model = GPT2LMHeadModel(GPT2Config(**shape, loss_type="ForCausalLM"))
train, held_out = Characters(TEXT[:12000]), Characters(TEXT[12000:])
callbacks = [ReportCallback()]
Trainer(model, arguments, train_dataset=train, eval_dataset=held_out, callbacks=callbacks).train()
