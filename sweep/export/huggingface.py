"""A run as a folder that Hugging Face's `transformers` loads: a GPT2LMHeadModel.

    config.json, model.safetensors             AutoModelForCausalLM.from_pretrained(folder)
    tokenizer.json, tokenizer_config.json      AutoTokenizer.from_pretrained(folder)
    generation_config.json                     what `squen-sweep sample` does by default
    README.md                                  the model card

GPT-2 has a bias in every layer. A run with bias = false gets biases of zero, which change nothing;
a program that trains it further would train them as well.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt.config import TrainConfig
from gpt.data.tokenizer import end_of_text
from gpt.errors import InputError, StorageError
from sweep.export.model_card import MADE_BY, model_card
from sweep.export.tokenizer_json import to_tokenizer_json, tokenizer_config
from sweep.export.trained_run import TrainedRun, require_gpt2

if TYPE_CHECKING:
    from torch import Tensor

    from sweep.export.model_card import StudyAnswer

# GPT-2's own code multiplies by these from the right: Conv1D keeps a Linear's matrix transposed.
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def write_huggingface(
    run: TrainedRun, folder: Path, answer: "StudyAnswer | None" = None, *, force: bool = False
) -> None:
    """Write a run as a folder for `transformers`; what is there already is replaced at the end.

    Args:
        run: Trained.
        folder: New, empty, or an earlier export.
        answer: The study that the run comes from, for the model card.
        force: Write into a folder that holds something else; other files there stay.

    Raises:
        InputError: the model is no GPT-2, or the folder holds something else.
        StorageError: it cannot be written.
    """
    from safetensors.torch import save_file

    require_gpt2(run.config, "huggingface", str(run.folder))
    check_folder(folder, force)
    texts = {
        "tokenizer.json": to_tokenizer_json(run.encoding),
        "tokenizer_config.json": _json(tokenizer_config(run.encoding, run.config.block_size)),
        "generation_config.json": _json(generation_config(run)),
        "README.md": model_card(run, answer),
        "config.json": _json(gpt2_config(run.config)),
    }
    making = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)  # of a killed process with this id
    try:
        making.mkdir(parents=True)
        weights = gpt2_weights(run.weights, run.config)
        save_file(weights, making / "model.safetensors", metadata={"format": "pt"})
        for name, text in texts.items():
            (making / name).write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for file in sorted(making.iterdir()):
            file.chmod(0o644)  # safetensors makes files that others cannot read
            file.replace(folder / file.name)
    except OSError as error:
        raise StorageError(f"{folder} must be writable, but: {error.strerror}.") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)


def check_folder(folder: Path, force: bool) -> None:
    """Raise InputError unless a folder is new, empty or an earlier export, or `force` is given."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder to write, but it is a file.")
    card = folder / "README.md"
    ours = card.is_file() and MADE_BY in card.read_text(encoding="utf-8", errors="replace")
    if not (ours or force) and any(folder.iterdir()):
        raise InputError(
            f"{folder} must be new, empty or an earlier export, but it holds something else; pass "
            f"another folder, or --force to write into it."
        )


def gpt2_config(config: TrainConfig) -> dict[str, Any]:
    """Return the config.json: GPT2Config's names for a model of ours."""
    end = config.vocab_size - 1  # <|endoftext|>
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": "gelu",  # exact; GPT-2's own "gelu_new" approximates it
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": config.init_std,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "dtype": "float32",
    }


def gpt2_weights(weights: "Mapping[str, Tensor]", config: TrainConfig) -> "dict[str, Tensor]":
    """Return weights under GPT2LMHeadModel's names and shapes, with biases of zero where none are.

    Args:
        weights: Of a checkpoint, by nanoGPT's names.
        config: The run's.
    """
    import torch

    found = {
        name: (value.t() if name.endswith(CONV1D) else value).contiguous()
        for name, value in weights.items()
    }
    if not config.bias:
        for name, value in list(found.items()):
            if name.endswith(CONV1D) or ".ln_" in name:
                bias = name.removesuffix("weight") + "bias"
                found[bias] = torch.zeros(value.shape[-1])
    return found


def generation_config(run: TrainedRun) -> dict[str, Any]:
    """Return the generation_config.json: draws as `squen-sweep sample` makes them by default.

    GPT-2 has a vector for each of block_size positions and none beyond, so a text ends there.
    """
    end = end_of_text(run.encoding)
    return {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 50,
        "max_length": run.config.block_size,
    }


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2) + "\n"
