"""Configuration of a run, frozen and checked: an impossible run cannot be built.

A run directory's config.json is one TrainConfig; names are nanoGPT's where nanoGPT has one.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpt.errors import InputError

Device = str  # "cpu", "cuda" or "cuda:<index>"


class _Config(BaseModel):
    """Base of the configurations: frozen, no unknown keys, no conversions ("3" is no integer)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class GPTConfig(_Config):
    """Architecture of a GPT-2 model and the scale of its initial weights, as in nanoGPT.

    T = block_size, C = n_embd, V = vocab_size.
    """

    vocab_size: int = Field(ge=2)  # V, exactly the tokenizer's: padding would enter squentropy
    block_size: int = Field(default=128, ge=1)  # T, the longest context in tokens
    n_layer: int = Field(default=4, ge=1)
    n_head: int = Field(default=4, ge=1)
    n_embd: int = Field(default=128, ge=1)  # C, a multiple of n_head
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    bias: bool = False  # in Linear and LayerNorm; GPT-2's own weights have them
    init_std: float = Field(default=0.02, gt=0.0)  # of the first weights; GPT-2's, for C = 768

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, "
                f"but got n_embd={self.n_embd} and n_head={self.n_head}"
            )
        return self


class DataConfig(_Config):
    """The text and its tokenizer."""

    source: str = "auto"  # "auto", "hub", "built-in", or a file or folder
    hub_name: str = "roneneldan/TinyStories"
    hub_config: str | None = None  # of a data set that has several, such as a language
    split: str = "train"  # of the hub's data set, to train on; another one validates, if there is
    column: str | None = None  # of the text; None: text, or the only one that holds strings
    max_stories: int | None = Field(default=None, ge=2)  # training stories; None: all
    tokenizer: Literal["gpt2", "bpe"] = "bpe"
    bpe_vocab_size: int | None = Field(default=2048, ge=257, le=65536)  # only for "bpe"
    fingerprint: str | None = None  # of the prepared tokens; when set, these tokens or an error

    def with_source(self, source: str) -> Self:
        """Return the configuration with the source that `--data` gives.

        Args:
            source: As the field, or "hub:NAME[/CONFIG]", where NAME is OWNER/SET or SET.

        Raises:
            InputError: a data set of the hub has another name than that.
        """
        if not source.startswith("hub:"):
            return self.model_copy(update={"source": source})
        name = source.removeprefix("hub:")
        parts = name.split("/")
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise InputError(
                f"--data hub:NAME[/CONFIG] must name a data set of the hub, such as "
                f"hub:roneneldan/TinyStories, but got {source!r}."
            )
        config = parts[2] if len(parts) == 3 else None
        return self.model_copy(
            update={"source": "hub", "hub_name": "/".join(parts[:2]), "hub_config": config}
        )


class TrainConfig(GPTConfig):
    """A model, its data and its training: all that a run needs, and all that reproduces it."""

    data: DataConfig = DataConfig()

    loss: str = "cross_entropy"  # a name in gpt.losses.LOSSES
    loss_options: dict[str, float] = Field(default_factory=dict)  # the loss's own knobs

    learning_rate: float = Field(default=6e-4, gt=0.0)  # the peak, after the warm-up
    min_lr_ratio: float = Field(default=0.1, ge=0.0, le=1.0)  # of the peak, at the end
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.1, ge=0.0)  # on matrices only
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    grad_clip: float = Field(default=1.0, ge=0.0)  # largest gradient norm; 0 is off

    batch_size: int = Field(default=16, ge=1)  # sequences in one forward pass
    gradient_accumulation_steps: int = Field(default=1, ge=1)  # forward passes in one step
    max_steps: int = Field(default=600, ge=1)  # optimiser steps
    eval_interval: int = Field(default=50, ge=1)  # steps; one grid, so that pruners can compare
    eval_tokens: int = Field(default=8192, ge=1)  # targets, rounded up to complete stories
    eval_skip_tokens: int = Field(default=0, ge=0)  # targets skipped before them, likewise

    seed: int = Field(default=1337, ge=0, lt=2**63)  # weights, dropout and the order of the data
    device: Device = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"  # of matrix products; weights stay float32
    compile: bool = False
    threads: int = Field(default=1, ge=1)  # of the CPU; part of the run: sums depend on it

    @model_validator(mode="after")
    def _loss_and_its_options_exist(self) -> Self:
        from gpt.losses import check_loss  # imports torch: a configuration alone loads fast

        check_loss(self.loss, self.loss_options)
        return self

    @property
    def tokens_per_step(self) -> int:
        """Training tokens of one optimiser step."""
        return self.batch_size * self.block_size * self.gradient_accumulation_steps


def train_config(values: dict[str, Any], where: str = "the configuration") -> TrainConfig:
    """Build a TrainConfig from plain values.

    Raises:
        InputError: one line that names `where`, the key, what must hold and what came instead.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error)}") from None


def read_config(path: Path) -> TrainConfig:
    """Read a run directory's config.json.

    Raises:
        InputError: the file is missing, a link, no JSON, or no configuration.
    """
    if path.is_symlink():  # a stranger's may lead out of the directory
        raise InputError(f"{path} must be a file, but it is a link.")
    try:
        return TrainConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} must be a run's config.json, but {error.strerror}.") from None
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Return the first fault of a pydantic error as one line: key, rule, value."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "extra_forbidden":
        message = "is not a known key"
    elif first["type"] not in ("value_error", "missing"):
        got = repr(first["input"])
        got = got if len(got) <= 80 else f"{got[:77]}..."
        message = f"{message[0].lower()}{message[1:]}, but got {got}"
    text = f"{key}: {message}." if key else f"{message}."
    return "\\n".join(text.splitlines())  # a key may hold line breaks
