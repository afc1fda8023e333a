"""Sample stories from a trained model: a run directory and a prompt in, text out."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt import checkpoint
from gpt.config import TrainConfig, read_config
from gpt.data import tokenizer
from gpt.errors import InputError
from gpt.losses import LOSSES
from gpt.model import GPT, KVCache, load_weights

if TYPE_CHECKING:
    from tiktoken import Encoding


def load_model(run_dir: Path, *, best: bool = False) -> GPT:
    """Load the model of a run's newest intact checkpoint, in evaluation mode.

    Args:
        run_dir: A run directory with a checkpoint.
        best: Load the checkpoint with the lowest cross-entropy instead.

    Raises:
        InputError: `run_dir` is no run directory, or has no checkpoint yet.
        DataError: every checkpoint is damaged, or it is of another model.
    """
    return _load(run_dir, best)[0]


def _load(run_dir: Path, best: bool) -> tuple[GPT, int]:
    """Load a model, and the step that it comes from."""
    config = read_config(run_dir / "config.json")
    saved = checkpoint.load(run_dir)
    if saved is None:
        raise InputError(
            f"{run_dir} must hold a checkpoint, but there is none yet; train it first."
        )
    if best and (step := saved.state["counters"].get("best_step")):
        saved = checkpoint.load(run_dir, step) or saved
    model = GPT(config)
    load_weights(model, saved.model)
    return model.eval(), saved.step


def sample(
    run_dir: Path,
    prompt: str,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = 50,
    seed: int = 0,
    num_samples: int = 1,
    link: bool = False,
    best: bool = False,
) -> list[str]:
    """Sample stories that begin with a prompt, each up to its <|endoftext|> or `max_new_tokens`.

    Args:
        run_dir: A run directory with a checkpoint and a tokenizer.
        prompt: May be empty.
        max_new_tokens: At least 1; context beyond block_size is forgotten.
        temperature: At least 0; 0 takes the most likely token.
        top_k: Draw from the k most likely tokens; None: from all.
        seed: The same seed gives the same stories.
        num_samples: Number of stories.
        link: Draw from the probabilities under the link function of the loss that trained the
            model (gpt.losses.link_functions), not from softmax.
        best: See `load_model`.

    Raises:
        InputError: see `load_model`; or a plugin has the link function.
        DataError: see `load_model`.
    """
    model, step = _load(run_dir, best)
    config = read_config(run_dir / "config.json")
    options = {"scores_of": _link_scores(config, step)} if link else {}
    encoding = tokenizer.read_encoding(run_dir / "tokenizer.json")
    end = tokenizer.end_of_text(encoding)
    start = [end, *encoding.encode_ordinary(prompt)]
    idx = torch.tensor([start] * num_samples)  # (num_samples, T)
    generator = torch.Generator().manual_seed(seed)
    idx = generate(model, idx, max_new_tokens, temperature, top_k, generator, end, **options)
    return [encoding.decode(_story(row.tolist(), len(start), end)) for row in idx]


def sample_from(model: GPT, encoding: "Encoding", prompt: str = "Once upon a time") -> str:
    """Sample one story from a model in training, whose mode and random numbers stay as they are."""
    was_training = model.training
    model.eval()
    start = [end := tokenizer.end_of_text(encoding), *encoding.encode_ordinary(prompt)]
    idx = torch.tensor([start], device=next(model.parameters()).device)
    generator = torch.Generator(idx.device).manual_seed(0)
    (row,) = generate(model, idx, 200, 0.8, 50, generator, end).tolist()
    model.train(was_training)
    return encoding.decode(_story(row, len(start), end))


@torch.no_grad()
def generate(
    model: GPT,
    idx: Tensor,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    generator: torch.Generator,
    end: int,
    scores_of: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> Tensor:
    """Append tokens to `idx` (B, T) until every row holds `end` or max_new_tokens are drawn.

    `scores_of` turns logits (B, V) into scores whose softmax is drawn from.
    """
    finished = torch.zeros(len(idx), dtype=torch.bool, device=idx.device)
    past, longest = KVCache(), model.config.block_size
    for _ in range(max_new_tokens):
        if idx.shape[1] <= longest:
            hidden = model(idx[:, past.tokens :], past)
        else:  # every token has moved, so that no cached value holds
            hidden = model(idx[:, -longest:])
        scores = scores_of(model.logits(hidden[:, -1]).float())  # (B, V)
        drawn = _draw(scores, temperature, top_k, generator)
        idx = torch.cat([idx, drawn], dim=1)
        finished |= drawn.squeeze(1) == end
        if finished.all():
            break
    return idx


def _link_scores(config: TrainConfig, step: int) -> Callable[[Tensor], Tensor]:
    """Return a function from logits to log-probabilities under the run's own link function."""
    if config.loss not in LOSSES:  # who only reads a run directory runs none of its code
        raise InputError(
            f"--link must have a loss that is not a plugin's, whose code is run in training only, "
            f"but the run's is {config.loss!r}; leave --link out."
        )
    loss, options = LOSSES[config.loss], config.loss_options_at(step)
    return lambda logits: loss.probabilities(logits.softmax(-1), logits, options).log()


def _draw(
    scores: Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> Tensor:
    """Draw one token per row: (B, V) -> (B, 1)."""
    if temperature == 0:
        return scores.argmax(-1, keepdim=True)
    if top_k is not None and top_k < scores.shape[-1]:
        smallest_kept = scores.topk(top_k).values[:, -1:]
        scores = scores.masked_fill(scores < smallest_kept, -torch.inf)
    return torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator)


def _story(tokens: list[int], prompt_length: int, end: int) -> list[int]:
    """Drop the leading end-of-text and cut at the first one after the prompt."""
    stop = tokens.index(end, prompt_length) if end in tokens[prompt_length:] else len(tokens)
    return tokens[1:stop]
