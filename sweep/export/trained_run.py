"""A run directory with trained weights, read to be written in another program's form."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt.config import GPTConfig, TrainConfig, read_config
from gpt.data.tokenizer import read_encoding
from gpt.errors import InputError
from gpt.events import Evaluation, evaluation_of, read_events

if TYPE_CHECKING:
    import tiktoken
    from torch import Tensor

# Fields of GPTConfig that GPT-2, and nanoGPT's model, have under one name or another.
OF_GPT2 = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "dropout", "bias", "init_std")


@dataclass(frozen=True)
class TrainedRun:
    """Run as it is at its newest checkpoint."""

    folder: Path
    config: TrainConfig
    encoding: "tiktoken.Encoding"
    step: int
    weights: "dict[str, Tensor]"  # by nanoGPT's names, without the tied lm_head
    evaluation: Evaluation | None  # at that step, or before it


def read_trained_run(run_dir: Path) -> TrainedRun:
    """Read a run's newest intact checkpoint, its tokenizer and its last evaluation.

    The multipliers of CompleteP are folded into the weights, since no other program's GPT-2 has
    them; its logits are the same.

    Raises:
        InputError: `run_dir` is no run directory of the built-in GPT, or has no checkpoint yet.
        DataError: every checkpoint is damaged, or it is of another model.
    """
    import torch

    from gpt import checkpoint
    from gpt.model import GPT, check_weights, standard_weights

    config = read_config(run_dir / "config.json")
    saved = checkpoint.load(run_dir)
    if saved is None:
        raise InputError(
            f"{run_dir} must hold a checkpoint, but there is none; train it first, or a trial "
            f"again: squen-sweep export --trial NUMBER -o trial.toml, then train trial.toml."
        )
    reached = [
        evaluation_of(event)
        for event in read_events(run_dir)[0]
        if event["event"] == "evaluation" and event["step"] <= saved.step
    ]
    weights = saved.model
    with torch.device("meta"):
        check_weights(GPT(config), weights)
    if config.parametrization != "standard" and not config.qk_norm:  # those with it are refused
        weights, config = standard_weights(weights, config), _standard(config)
    return TrainedRun(
        folder=run_dir,
        config=config,
        encoding=read_encoding(run_dir / "tokenizer.json"),
        step=saved.step,
        weights=weights,
        evaluation=reached[-1] if reached else None,
    )


def _standard(config: TrainConfig) -> TrainConfig:
    names = ("parametrization", "base_n_embd", "base_n_layer", "base_n_head")
    defaults = {name: GPTConfig.model_fields[name].default for name in names}
    return config.model_copy(update=defaults)


def require_gpt2(config: TrainConfig, form: str, what: str) -> None:
    """Check that a model is a GPT-2, so that another program's GPT-2 has the same logits.

    Args:
        config: Its configuration.
        form: The format, as --format takes it.
        what: The model, in words.

    Raises:
        InputError: a part of it is none of GPT-2's.
    """
    for name, field in GPTConfig.model_fields.items():
        value = getattr(config, name)
        if name not in OF_GPT2 and value != field.default:
            raise InputError(
                f"--format {form} must have {name} = {field.default!r}, as GPT-2 does, but "
                f"{what} has {value!r}; export it as toml or json."
            )
