"""Files of nanoGPT: a configuration for its train.py, and a checkpoint.

Source: karpathy/nanoGPT, train.py, sample.py and configurator.py: the names, the schedule behind
them, and what a ckpt.pt holds.
"""

import os
import shlex
from pathlib import Path
from typing import Any

from gpt.config import TrainConfig
from gpt.errors import StorageError
from sweep.export.trained_run import TrainedRun, require_gpt2
from sweep.export.trial import Origin

NANOGPT_INIT_STD = 0.02  # in its model.py
NANOGPT_NO_LOSS = 1e9  # best_val_loss before its first evaluation


# The names that nanoGPT's train.py and TrainConfig share, with the same meaning.
NANOGPT_NAMES = (
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "dropout",
    "bias",
    "batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "beta1",
    "beta2",
    "grad_clip",
    "eval_interval",
    "device",
    "dtype",
    "compile",
)


def to_nanogpt(config: TrainConfig, origin: Origin, file: str) -> str:
    """Return assignments that nanoGPT's configurator executes: python train.py FILE.

    Raises:
        InputError: nanoGPT has no such model.
    """
    require_gpt2(config, "nanogpt", f"trial {origin.trial}")
    out_dir = f"out-{origin.study}-{origin.trial}"
    values = {"out_dir": out_dir, **nanogpt_values(config)}
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join([*_nanogpt_header(config, origin, file), "", *lines]) + "\n"


def nanogpt_values(config: TrainConfig) -> dict[str, Any]:
    """Return the values of train.py's names; the tokens are prepared, or made again."""
    from gpt.data.dataset import prepare
    from gpt.data.nanogpt import renew_meta

    folder = prepare(config.data).folder
    renew_meta(folder)
    tokens_per_batch = config.batch_size * config.block_size
    return {
        "dataset": str(folder.resolve()),
        **{name: getattr(config, name) for name in NANOGPT_NAMES},
        "min_lr": config.learning_rate * config.min_lr_ratio,
        "warmup_iters": config.warmup_steps,
        "max_iters": config.max_steps,
        "lr_decay_iters": max(config.max_steps, config.warmup_steps + 1),
        "eval_iters": -(-config.eval_tokens // tokens_per_batch),
        "log_interval": min(10, config.eval_interval),
        "always_save_checkpoint": False,
    }


def write_checkpoint(run: TrainedRun, path: Path) -> None:
    """Write a run as the ckpt.pt that nanoGPT's sample.py and train.py --init_from=resume load.

    The optimiser's moments start anew: a run that is done keeps none, and another optimiser's mean
    nothing to nanoGPT's. Its validation loss is of random windows, so no best of ours is carried
    over, and its first evaluation is its best so far.

    Args:
        run: Trained; its text is prepared, or made again.
        path: Replaced if it exists.

    Raises:
        InputError: nanoGPT has no such model.
        StorageError: the file cannot be written.
    """
    import torch

    config = run.config
    require_gpt2(config, "nanogpt-checkpoint", str(run.folder))
    weights = dict(run.weights)
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    names = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout")
    checkpoint = {
        "model": weights,
        "optimizer": _new_optimizer(run).state_dict(),
        "model_args": {name: getattr(config, name) for name in names},
        "iter_num": run.step,
        "best_val_loss": NANOGPT_NO_LOSS,
        "config": nanogpt_values(config),
    }
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(checkpoint, making)
        making.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer raises the second
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise StorageError(f"{path} must be writable, but: {reason}.") from None
    finally:
        making.unlink(missing_ok=True)


def _new_optimizer(run: TrainedRun) -> Any:
    """Return AdamW as nanoGPT sets it up: matrices decay, gains and biases do not."""
    import torch

    weights = [torch.nn.Parameter(value) for value in run.weights.values()]
    config = run.config
    groups = [
        {"params": [w for w in weights if w.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config.learning_rate, (config.beta1, config.beta2))


def _nanogpt_header(config: TrainConfig, origin: Origin, file: str) -> list[str]:
    """Return comments on what nanoGPT does otherwise than the trial."""
    lines = [
        f"# {origin.line()}",
        f"# In a clone of nanoGPT: python train.py {shlex.quote(file)}",
        "# nanoGPT trains with cross-entropy only and from a seed of its own, and it estimates the",
        "# validation loss on random windows, not on full stories: its figures differ from ours.",
    ]
    if config.data.tokenizer == "gpt2":
        lines.append("# nanoGPT gives GPT-2's 50,257 tokens a model of 50,304 rows.")
    else:
        lines.append(
            "# Its sample.py looks a prompt up character by character, not in pieces of this "
            "tokenizer's."
        )
    if config.loss != "cross_entropy":
        lines.append(
            f"# This trial was trained with {config.loss}: nanoGPT will not use that loss."
        )
    if config.optimizer != "adamw":
        lines.append(
            f"# This trial was trained with {config.optimizer}: nanoGPT will take AdamW, whose "
            f"learning rate may be another."
        )
    if config.schedule != "cosine":
        lines.append(
            f"# This trial's learning rate had the schedule {config.schedule}: nanoGPT will take "
            f"a cosine."
        )
    if config.init_std != NANOGPT_INIT_STD:
        lines.append(
            f"# This trial started from weights of std {config.init_std:g}: "
            f"nanoGPT starts from {NANOGPT_INIT_STD:g}."
        )
    return lines
