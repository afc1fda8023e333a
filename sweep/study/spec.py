"""A study: what it compares, searches and trains, as its TOML file declares it.

name, description, question    what it is, and the question that its report answers
compare = "loss"               the parameter whose choices are the arms; else one arm, "all"
metric = "perplexity"          what trials are ranked by; or link_perplexity
[data] [train]                 fields of gpt.config.DataConfig and TrainConfig;
                               dtype = "auto" picks what trains faster where the study starts
[search.<param>]               low, high, log, step, or choices; when = { loss = "squentropy" }
                               or a list of values; a loss's option has a range of its own
[[baselines]]                  settings that run first in each arm
[background."<title>"]         pairs of a name and words that the report shows beside a verdict
[sampler] [pruner] [verdict]   see SamplerSpec, PrunerSpec and VerdictSpec
[budget.cpu] [budget.cuda]     any of these tables again, laid over them on that device
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial
from pydantic import Field, ValidationError, field_validator

from gpt.config import DataConfig, TrainConfig, explain
from gpt.errors import InputError
from sweep.study.search_space import Parameter, Scalar, Spec

ONE_ARM = "all"  # the arm of a study that compares nothing
AUTO = "auto"  # a dtype that is resolved when the study starts
GPT2_VOCAB_SIZE = 50257  # ids of tiktoken's "gpt2"


class SamplerSpec(Spec):
    """The sampler that proposes parameters within each arm."""

    kind: Literal["tpe", "gp", "random", "qmc"] = "tpe"  # gp: for an arm's first 100; qmc: Sobol
    seed: int = Field(default=0, ge=0)
    startup_trials: int = Field(default=8, ge=0)  # Sobol points of each arm; best a power of two


class PrunerSpec(Spec):
    """The pruner that stops trials early within each arm."""

    kind: Literal["median", "none"] = "median"
    warmup_fraction: float = Field(default=0.3, ge=0.0, le=1.0)  # of max_steps, without pruning
    startup_trials: int = Field(default=4, ge=1)  # complete trials of the arm before any is stopped
    # Share of the trials to be stopped that run on as shadows: how often is the pruner wrong?
    shadow_fraction: float = Field(default=0.1, ge=0.0, le=1.0)


class VerdictSpec(Spec):
    """The runs and the margin of `squen-sweep verdict`, fixed before any result is known."""

    margin: float = Field(default=0.01, gt=0.0, lt=1.0)  # of perplexity: less does not matter
    top: int = Field(default=3, ge=1)  # configurations of each arm that are screened
    screening_seeds: int = Field(default=3, ge=1, le=900)  # of each, to choose one
    seeds: int = Field(default=5, ge=2, le=900)  # of the chosen one, to judge it


class Baseline(Spec):
    """A setting to beat, the same in each arm."""

    name: str
    params: dict[str, Scalar]

    @field_validator("name")
    @classmethod
    def _name_is_aword(cls, name: str) -> str:
        return word(name)


class StudySpec(Spec):
    """A study on one device.

    It checks its parts alone; sweep.study.validation.validate checks them together.
    """

    name: str
    description: str = ""
    question: str = ""  # in plain language; the report answers it
    compare: str | None = None
    metric: Literal["perplexity", "link_perplexity"] = "perplexity"  # a field of Evaluation
    data: DataConfig = DataConfig()
    train: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Parameter] = Field(min_length=1)
    baselines: list[Baseline] = Field(default_factory=list)
    sampler: SamplerSpec = SamplerSpec()
    pruner: PrunerSpec = PrunerSpec()
    verdict: VerdictSpec = VerdictSpec()
    background: dict[str, dict[str, str]] = Field(default_factory=dict)  # words, by title and name

    @field_validator("name")
    @classmethod
    def _name_is_aword(cls, name: str) -> str:
        return word(name)

    @field_validator("search", mode="before")
    @classmethod
    def _options_have_ranges(cls, search: Any) -> Any:
        """Fill in the range of a loss's option that is named without one."""
        if not isinstance(search, dict):
            return search
        return {name: _with_range(name, table) for name, table in search.items()}

    # --- what trials may be ------------------------------------------------------------------

    @property
    def arms(self) -> list[str]:
        """Names of the compared choices, in the order of the file."""
        if self.compare is None:
            return [ONE_ARM]
        return [str(choice) for choice in self.search[self.compare].choices or []]

    @property
    def drawn(self) -> list[str]:
        """The parameters drawn within an arm: unconditional ones first, then by name.

        The order of the file is ignored, so that moving a table changes no trial.
        """
        names = [name for name in self.search if name != self.compare]
        return sorted(names, key=lambda name: (bool(self.search[name].when), name))

    def point(self, arm: str, value_of: Callable[[str, Parameter], Any]) -> dict[str, Any]:
        """Return the parameters of one trial: the arm's, and those that apply from `value_of`."""
        params = self._of_arm(arm)
        for name in self.drawn:
            if self.search[name].applies(params):
                params[name] = value_of(name, self.search[name])
        return params

    def suggest(self, trial: BaseTrial, arm: str) -> dict[str, Any]:
        """Return the parameters that an Optuna trial suggests within an arm."""
        return self.point(arm, lambda name, parameter: parameter.suggest(trial, name))

    def baseline_params(self, baseline: Baseline, arm: str) -> dict[str, Any]:
        """Return a baseline's parameters in one arm; conditional ones may take their defaults."""
        given = self._of_arm(arm) | baseline.params

        def value_of(name: str, parameter: Parameter) -> Any:
            return given[name] if name in given else self._default(name, given)

        return self.point(arm, value_of)

    def completed(
        self, arm: str, fixed: Mapping[str, Any], drawn: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Parameters of a trial of which some were fixed by hand.

        Args:
            arm: The arm.
            fixed: What was fixed, by name.
            drawn: A proposal for the arm; it gives what was not fixed.

        Raises:
            InputError: a fixed parameter is not searched, does not apply, or is outside its range.
        """

        def value_of(name: str, parameter: Parameter) -> Any:
            if name not in fixed:
                return drawn[name] if name in drawn else parameter.at(0.5)
            if not parameter.contains(fixed[name]):
                ends = parameter.choices or f"from {parameter.low} to {parameter.high}"
                raise InputError(f"its {name} must be {ends}, but is {fixed[name]!r}.")
            return fixed[name]

        params = self.point(arm, value_of)
        if unknown := [name for name in fixed if name not in params]:
            raise InputError(
                f"its parameters must be of {', '.join(params)}, but it fixes {unknown[0]}."
            )
        return params

    def distributions(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of each of these parameters."""
        return {name: self.search[name].distribution() for name in params}

    def _of_arm(self, arm: str) -> dict[str, Any]:
        if arm not in self.arms:
            raise InputError(f"arm must be one of {', '.join(self.arms)}, but got {arm!r}.")
        if self.compare is None:
            return {}
        return {self.compare: (self.search[self.compare].choices or [])[self.arms.index(arm)]}

    def _default(self, name: str, given: Mapping[str, Any]) -> Any:
        """Return the default of a field of TrainConfig or of a loss's option."""
        from gpt.losses.functional import LOSSES  # imports torch

        if name in TrainConfig.model_fields:
            return self.base(name)
        return LOSSES[given.get("loss", self.base("loss"))].options[name].default

    # --- what a trial trains -----------------------------------------------------------------

    def train_config(
        self, params: Mapping[str, Any], data: DataConfig, device: str, threads: int
    ) -> TrainConfig:
        """Return the configuration of a trial.

        Args:
            params: The trial's parameters: fields of TrainConfig and options of the loss.
            data: The text, usually pinned to a fingerprint.
            device: "cpu", "cuda" or "cuda:<index>".
            threads: CPU threads of this trial.

        Raises:
            InputError: these values make no run.
        """
        values = self.train_values(params, data) | {"device": device, "threads": threads}
        try:
            return TrainConfig.model_validate(values)
        except ValidationError as error:
            raise InputError(f"study {self.name}: {explain(error)}") from None

    def train_values(self, params: Mapping[str, Any], data: DataConfig) -> dict[str, Any]:
        """Return values for TrainConfig, not yet checked and without those of the machine."""
        fields = {name: value for name, value in params.items() if name in TrainConfig.model_fields}
        options = {name: value for name, value in params.items() if name not in fields}
        vocab_size = GPT2_VOCAB_SIZE if data.tokenizer == "gpt2" else data.bpe_vocab_size
        shape = {"data": data, "vocab_size": vocab_size}
        values = {**self.train, **fields, "loss_options": options, **shape}
        if values.get("dtype") == AUTO:  # not resolved yet, as in checks of the study file
            del values["dtype"]
        return values

    @property
    def leaves_dtype_open(self) -> bool:
        """True where dtype is "auto": resolved on the machine where the study starts."""
        return bool(self.train.get("dtype") == AUTO)

    def with_dtype(self, dtype: str) -> Self:
        """Return the study with its dtype resolved, if the file left it open."""
        if not self.leaves_dtype_open:
            return self
        return self.model_copy(update={"train": self.train | {"dtype": dtype}})

    @property
    def max_steps(self) -> int:
        """Optimiser steps of a complete trial."""
        return int(self.base("max_steps"))

    @property
    def eval_tokens(self) -> int:
        """Validation targets of each evaluation, before rounding up to complete stories."""
        return int(self.base("eval_tokens"))

    @property
    def block_size(self) -> int:
        """The longest context that a trial may have, in tokens."""
        if "block_size" in self.search:
            return int(max(self.search["block_size"].values()))
        return int(self.base("block_size"))

    def base(self, field: str) -> Any:
        """Return a field of TrainConfig as [train] sets it, or its default."""
        return self.train.get(field, TrainConfig.model_fields[field].default)

    @property
    def meaning(self) -> dict[str, Any]:
        """The values that results depend on, the same however the file spells them.

        Defaults are written out, numbers have their field's type, and train has no value that
        every trial replaces. Left out are names, prose, where the text is found (its fingerprint
        pins it) and the verdict's sizes; its margin is not, since a margin that moves after an
        interim analysis could give any answer.
        """
        tables = self.model_dump(mode="json", exclude=_NO_MATTER)
        train = {name: _as_field(name, value) for name, value in (_DEFAULTS | self.train).items()}
        always = {name for name, parameter in self.search.items() if not parameter.when}
        return tables | {
            "train": {name: value for name, value in train.items() if name not in always},
            "search": {name: self._meaning_of(name) for name in self.search},
            "baselines": [
                {
                    "name": one.name,
                    "params": {arm: _typed(self.baseline_params(one, arm)) for arm in self.arms},
                }
                for one in self.baselines
            ],
        }

    def _meaning_of(self, name: str) -> dict[str, Any]:
        parameter = self.search[name]
        table = parameter.model_dump(mode="json")
        for key in ("low", "high", "step"):
            if table[key] is not None and not parameter.is_int:
                table[key] = float(table[key])
        if parameter.is_int and not parameter.log:
            table["step"] = parameter.step or 1
        if parameter.choices is not None and name != self.compare:  # arms have names as written
            table["choices"] = [_as_field(name, choice) for choice in parameter.choices]
        table["when"] = {
            other: sorted((_as_field(other, value) for value in parameter.allowed(other)), key=str)
            for other in parameter.when
        }
        return table

    @property
    def digest(self) -> str:
        """SHA-256 of `meaning`, in hex."""
        return hashlib.sha256(json.dumps(self.meaning, sort_keys=True).encode()).hexdigest()

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Return the dotted keys in which a stored study means something else.

        Args:
            stored: `model_dump` of a study, also one of an earlier version.
        """
        try:
            other = type(self).model_validate(stored)
        except ValidationError as error:
            return [".".join(map(str, error.errors(include_url=False)[0]["loc"]))]
        return list(_differing(other.meaning, self.meaning))


def stored_spec(stored: Mapping[str, Any], name: str) -> StudySpec:
    """Read a study as a database holds it.

    Raises:
        InputError: an earlier version stored a study that this one refuses.
    """
    try:
        return StudySpec.model_validate(stored)
    except ValidationError as error:
        raise InputError(
            f"study {name!r} must be one that this version accepts, but its stored file says "
            f"{explain(error)} Start a new study with --as NEW_NAME."
        ) from None


# Results do not depend on them.
_NO_MATTER: dict[str, Any] = {
    **dict.fromkeys(("name", "description", "question", "background"), True),
    "data": {"source", "hub_config", "split", "column", "fingerprint"},
    "verdict": {"top", "screening_seeds", "seeds"},
}

# What a trial has where neither [train] nor [search] says anything.
_DEFAULTS: dict[str, Any] = {
    name: field.default
    for name, field in TrainConfig.model_fields.items()
    if isinstance(field.default, bool | int | float | str)
}


def _as_field(name: str, value: Any) -> Any:
    """Return 1 as 1.0 where the field is real, as are all options of losses."""
    field = TrainConfig.model_fields.get(name)
    real = field is None or field.annotation is float
    return float(value) if real and type(value) is int else value


def _typed(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _as_field(name, value) for name, value in params.items()}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differing(a, b, f"{prefix}{key}.")
        elif a != b:
            yield prefix + key


def _with_range(name: str, table: Any) -> Any:
    if not isinstance(table, dict) or set(table) - {"when"} or name in TrainConfig.model_fields:
        return table
    from gpt.losses.functional import LOSSES  # imports torch

    for loss in LOSSES.values():
        if option := loss.options.get(name):
            return {"low": option.low, "high": option.high, "log": option.log, **table}
    return table


def word(name: str) -> str:
    """Return a name that can be a folder, an attribute and a label; else raise ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(
            f"must be 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, "
            f"but got {name!r}"
        )
    return name
