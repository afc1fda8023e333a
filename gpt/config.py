"""Configuration of a run, frozen and checked: an impossible run cannot be built.

A run directory's config.json is one TrainConfig; names are nanoGPT's where nanoGPT has one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpt.errors import InputError

if TYPE_CHECKING:
    from gpt.losses.options import Choice
    from gpt.optim.parametrization import Scaling

Device = str  # "cpu", "cuda", "cuda:<index>" or "mps"


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
    qk_norm: bool = False  # queries and keys of each head have the root mean square 1
    activation: Literal["gelu", "relu2"] = "gelu"  # of the MLP; relu2: ReLU, squared
    init_std: float = Field(default=0.02, gt=0.0)  # of the first weights; GPT-2's, for C = 768
    parametrization: Literal["standard", "completep"] = "standard"  # gpt.optim.parametrization
    base_n_embd: int | None = Field(default=None, ge=1)  # the shape that was tuned, of completep;
    base_n_layer: int | None = Field(default=None, ge=1)  # None: this one
    base_n_head: int | None = Field(default=None, ge=1)  # None: heads had this size

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, "
                f"but got n_embd={self.n_embd} and n_head={self.n_head}"
            )
        return self

    @model_validator(mode="after")
    def _base_is_of_completep(self) -> Self:
        base = {
            name: getattr(self, name) for name in ("base_n_embd", "base_n_layer", "base_n_head")
        }
        given = [name for name, value in base.items() if value is not None]
        if self.parametrization == "standard" and given:
            raise ValueError(
                f"{given[0]} must come with parametrization = 'completep', "
                f"but got {getattr(self, given[0])} with 'standard'"
            )
        if self.base_n_head is not None and (self.base_n_embd or self.n_embd) % self.base_n_head:
            raise ValueError(
                f"base_n_embd must be a multiple of base_n_head, but got "
                f"{self.base_n_embd or self.n_embd} and {self.base_n_head}"
            )
        return self

    @property
    def scaling(self) -> "Scaling":
        """Ratios of this shape to the base shape; all 1 in the standard parametrization."""
        from gpt.optim.parametrization import Scaling  # its package imports torch

        base_n_embd = self.base_n_embd or self.n_embd
        head_size = self.n_embd // self.n_head
        base_head_size = base_n_embd // self.base_n_head if self.base_n_head else head_size
        return Scaling(
            width=self.n_embd / base_n_embd,
            depth=self.n_layer / (self.base_n_layer or self.n_layer),
            head_size=head_size / base_head_size,
        )


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
    plugins: dict[str, str] = Field(default_factory=dict)  # see gpt.plugins; paths from this file

    loss: str = "cross_entropy"  # a name in gpt.losses.LOSSES
    loss_options: dict[str, float] = Field(default_factory=dict)  # the loss's own knobs
    loss_schedule: Literal["constant", "linear"] = "constant"  # of the loss's weight; linear: to 0

    optimizer: str = "adamw"  # a name in gpt.optim.OPTIMIZERS
    optimizer_options: dict[str, float] = Field(default_factory=dict)  # its own knobs
    schedule: str = "cosine"  # a name in gpt.optim.SCHEDULES, after the warm-up
    schedule_options: dict[str, float] = Field(default_factory=dict)  # its own knobs
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

    patience: int | None = Field(default=None, ge=1)  # evaluations without a new best, then it ends
    sample_interval: int | None = Field(default=None, ge=1)  # steps between two stories of the log

    seed: int = Field(default=1337, ge=0, lt=2**63)  # weights, dropout and the order of the data
    device: Device = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of matrix products only
    compile: bool = False
    threads: int = Field(default=1, ge=1)  # of the CPU; part of the run: sums depend on it

    @model_validator(mode="after")
    def _choices_and_their_options_exist(self) -> Self:
        from gpt.losses.options import check_choice

        for field, known in choices().items():
            if self.plugins and getattr(self, field) not in known:
                continue  # whoever trains loads the plugin; who only reads runs none of its code
            check_choice(field, known, getattr(self, field), getattr(self, f"{field}_options"))
        return self

    @model_validator(mode="after")
    def _loss_has_a_weight_to_schedule(self) -> Self:
        known = choices()["loss"]
        if self.loss_schedule == "constant" or (self.plugins and self.loss not in known):
            return self
        weighted = [
            name
            for name, loss in known.items()
            if any(option.is_weight for option in loss.options.values())
        ]
        if self.loss not in weighted:
            raise ValueError(
                f"loss_schedule must be 'constant' unless the loss has a weight, as "
                f"{', '.join(weighted)} have, but got {self.loss_schedule!r} for {self.loss!r}"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_can_be_scaled(self) -> Self:
        from gpt.optim.parametrization import COMPLETEP_OPTIMIZERS as KNOWN

        if self.parametrization == "completep" and self.optimizer not in KNOWN:
            raise ValueError(
                f"parametrization = 'completep' must have optimizer {' or '.join(KNOWN)}, of which "
                f"it is known how to scale them, but got {self.optimizer!r}"
            )
        return self

    def loss_options_at(self, step: int) -> dict[str, float]:
        """Return the options of the loss at a step, with the weight that loss_schedule gives it.

        Args:
            step: Optimiser steps so far; linear: the weight is 0 after the last.
        """
        if self.loss_schedule == "constant":
            return self.loss_options
        loss, left = choices()["loss"][self.loss], 1 - step / self.max_steps
        return {
            name: value * left if loss.options[name].is_weight else value
            for name, value in loss.checked(self.loss_options).items()
        }

    @property
    def tokens_per_step(self) -> int:
        """Training tokens of one optimiser step."""
        return self.batch_size * self.block_size * self.gradient_accumulation_steps


def choices() -> "dict[str, Mapping[str, Choice]]":
    """Return the registries of the fields that have `<field>_options` beside them, by field."""
    from gpt.losses import LOSSES  # imports torch: a configuration alone loads fast
    from gpt.optim import OPTIMIZERS, SCHEDULES

    return {"loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}


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
