"""A study: what it compares, searches and trains, as its TOML file declares it.

name, description, question    what it is, and the question that its report answers
compare = "loss"               the parameter whose choices are the arms; else one arm, "all"
plugins = ["my_losses.py"]     files that add losses, optimisers or schedules
metric = "perplexity"          what trials are ranked by; or link_perplexity
[trainer]                      a program of the user's in place of the built-in GPT, which has
                               neither [data] nor [train]; see sweep.study.program
[data] [train]                 fields of gpt.config.DataConfig and TrainConfig;
                               dtype = "auto" picks what trains faster where the study starts
[search.<param>]               low, high, log, step, or choices; when = { loss = "squentropy" }
                               or a list of values; an option of a loss, an optimiser or a
                               schedule has a range of its own
[[baselines]]                  settings that run first in each arm
[background."<title>"]         pairs of a name and words that the report shows beside a verdict
[sampler] [pruner] [verdict]   see SamplerSpec, PrunerSpec and VerdictSpec
[resources]                    gpus and cpus of each trial, on every backend; see ResourcesSpec
[backend.slurm]                sbatch = ["--partition=gpu", "--gres=gpu:1"], for --backend slurm
[budget.cpu] [budget.cuda]     any of these tables again, laid over them on that device
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from gpt.config import DataConfig, TrainConfig, choices, explain
from gpt.errors import InputError
from sweep.study.program import TrainerSpec, split_text
from sweep.study.search_space import Parameter, Scalar, Spec

ONE_ARM = "all"  # the arm of a study that compares nothing
AUTO = "auto"  # a dtype that is resolved when the study starts
GPT2_VOCAB_SIZE = 50257  # ids of tiktoken's "gpt2"
MOST_SEEDS = 900  # of each phase of a verdict, which begin 1,000 apart: none belongs to two


class SamplerSpec(Spec):
    """The sampler that proposes parameters within each arm."""

    kind: str = "tpe"  # of ours: tpe, gp (for an arm's first 100), random, qmc (Sobol); or Optuna's
    options: dict[str, Any] = Field(default_factory=dict)  # arguments of Optuna's class
    seed: int = Field(default=0, ge=0)
    startup_trials: int = Field(default=8, ge=0)  # Sobol points of each arm; best a power of two


class PrunerSpec(Spec):
    """The pruner that stops trials early within each arm."""

    kind: str = "median"  # of ours: median, none; or Optuna's, see sweep.study.external
    options: dict[str, Any] = Field(default_factory=dict)  # arguments of Optuna's class
    warmup_fraction: float = Field(default=0.3, ge=0.0, le=1.0)  # of max_steps, without pruning
    startup_trials: int = Field(default=4, ge=1)  # complete trials of the arm before any is stopped
    # Share of the trials to be stopped that run on as shadows: how often is the pruner wrong?
    shadow_fraction: float = Field(default=0.1, ge=0.0, le=1.0)


class VerdictSpec(Spec):
    """The runs and the margin of `squen-sweep verdict`, fixed before any result is known."""

    margin: float = Field(default=0.01, gt=0.0, lt=1.0)  # of perplexity: less does not matter
    top: int = Field(default=3, ge=1)  # configurations of each arm that are screened
    screening_seeds: int = Field(default=3, ge=1, le=MOST_SEEDS)  # of each, to choose one
    seeds: int = Field(default=5, ge=2, le=MOST_SEEDS)  # of the chosen one, to judge it
    searches: int = Field(
        default=1, ge=1, le=50
    )  # of each arm; 2 or more: their luck is judged, too


class ResourcesSpec(Spec):
    """Share of a machine for each trial; results do not depend on it."""

    gpus: float | None = None  # 0.5: two trials share one; 0: the CPU alone; None: what is there
    cpus: int | None = Field(default=None, ge=1, le=1024)  # threads; None: a share of the cores

    @field_validator("gpus", mode="before")
    @classmethod
    def _gpus_can_be_given(cls, gpus: Any) -> Any:
        if gpus is None:
            return None
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
        if not number or not 0 <= gpus <= 64 or (gpus > 1 and gpus != int(gpus)):
            raise ValueError(
                f"must be 0, a share of one such as 0.5, or a whole number up to 64, but got "
                f"{gpus!r}"
            )
        return float(gpus)


class SlurmSpec(Spec):
    """The place of a trial's job on a SLURM cluster."""

    sbatch: list[str] = Field(default_factory=list)  # arguments of sbatch; text is split as a shell

    @field_validator("sbatch", mode="before")
    @classmethod
    def _split_text(cls, sbatch: Any) -> Any:
        return split_text(sbatch)


class BackendSpec(Spec):
    """Tables of backends: matters of a machine, which no result depends on."""

    slurm: SlurmSpec = SlurmSpec()


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
    plugins: dict[str, str] = Field(default_factory=dict)  # path -> SHA-256, see gpt.plugins
    trainer: TrainerSpec | None = None  # None: the built-in GPT
    data: DataConfig = DataConfig()
    train: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Parameter] = Field(min_length=1)
    baselines: list[Baseline] = Field(default_factory=list)
    sampler: SamplerSpec = SamplerSpec()
    pruner: PrunerSpec = PrunerSpec()
    verdict: VerdictSpec = VerdictSpec()
    resources: ResourcesSpec = ResourcesSpec()
    backend: BackendSpec = BackendSpec()
    background: dict[str, dict[str, str]] = Field(default_factory=dict)  # words, by title and name

    @field_validator("name")
    @classmethod
    def _name_is_aword(cls, name: str) -> str:
        return word(name)

    @field_validator("search", mode="before")
    @classmethod
    def _options_have_ranges(cls, search: Any, info: ValidationInfo) -> Any:
        """Fill in the range of a choice's option that is named without one."""
        if not isinstance(search, dict) or info.data.get("trainer") is not None:
            return search  # a program's parameter may have the name of an option of ours
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
        """Return the default of a field of TrainConfig or of a choice's option."""
        if self.trainer is not None:  # validation sees to it that there is none to ask for
            raise InputError(f"a program's {name} has no default.")
        if name in TrainConfig.model_fields:
            return self.base(name)
        field = field_with_option(name)
        return choices()[field][given.get(field, self.base(field))].options[name].default

    # --- what a trial trains -----------------------------------------------------------------

    def train_config(
        self, params: Mapping[str, Any], data: DataConfig, device: str, threads: int
    ) -> TrainConfig:
        """Return the configuration of a trial.

        Args:
            params: The trial's parameters: fields of TrainConfig and options of its choices.
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
        options: dict[str, dict[str, Any]] = {f"{field}_options": {} for field in choices()}
        for name, value in params.items():
            if name not in fields:
                options[f"{field_with_option(name)}_options"][name] = value
        vocab_size = GPT2_VOCAB_SIZE if data.tokenizer == "gpt2" else data.bpe_vocab_size
        shape = {"data": data, "vocab_size": vocab_size, "plugins": dict(self.plugins)}
        values = {**self.train, **fields, **options, **shape}
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
    def max_steps(self) -> int | None:
        """Optimiser steps of a complete trial; None: a program's, which only it knows."""
        return int(self.base("max_steps")) if self.trainer is None else self.trainer.max_steps

    def with_max_steps(self, steps: int) -> Self:
        """Return the study with the steps that a program's first complete trials had."""
        assert self.trainer is not None
        trainer = self.trainer.model_copy(update={"max_steps": steps})
        return self.model_copy(update={"trainer": trainer})

    @property
    def seed(self) -> int:
        """Seed of the search's trials."""
        return int(self.base("seed")) if self.trainer is None else self.trainer.seed

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
        del tables["trainer"]
        for table in ("sampler", "pruner"):
            if not tables[table]["options"]:  # so that digests stay as stored
                del tables[table]["options"]
        if self.trainer is not None:
            return self._meaning_of_program(tables)
        train = {name: _as_field(name, value) for name, value in (_DEFAULTS | self.train).items()}
        always = {name for name, parameter in self.search.items() if not parameter.when}
        plugins = {Path(plugin).name: version for plugin, version in self.plugins.items()}
        return tables | {
            **({"plugins": plugins} if plugins else {}),  # likewise
            "train": {
                name: value
                for name, value in train.items()
                if name not in always and (name, value) not in _ADDED.items()
            },
            "search": {name: self._meaning_of(name) for name in self.search},
            "baselines": [
                {
                    "name": one.name,
                    "params": {arm: _typed(self.baseline_params(one, arm)) for arm in self.arms},
                }
                for one in self.baselines
            ],
        }

    def _meaning_of_program(self, tables: dict[str, Any]) -> dict[str, Any]:
        """Leave out the tables of the built-in GPT; 1 and 1.0 are two arguments of a program."""
        assert self.trainer is not None
        shared = {key: tables[key] for key in tables if key not in ("data", "train", "metric")}
        return shared | {"trainer": self.trainer.meaning}

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
    **dict.fromkeys(
        ("name", "description", "question", "background", "plugins", "resources", "backend"), True
    ),
    "data": {"source", "hub_config", "split", "column", "fingerprint"},
    "verdict": {"top", "screening_seeds", "seeds", "searches"},
}

# What a trial has where neither [train] nor [search] says anything.
_DEFAULTS: dict[str, Any] = {
    name: field.default
    for name, field in TrainConfig.model_fields.items()
    if isinstance(field.default, bool | int | float | str)
}

# Fields that came later; at these values they are left out, so that digests stay as stored.
_ADDED: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "cosine",
    "loss_schedule": "constant",
    "qk_norm": False,
    "activation": "gelu",
    "parametrization": "standard",
}


def _as_field(name: str, value: Any) -> Any:
    """Return 1 as 1.0 where the field is real, as are all options of choices."""
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
    for choice in (choice for known in choices().values() for choice in known.values()):
        if option := choice.options.get(name):
            return {"low": option.low, "high": option.high, "log": option.log, **table}
    return table


def field_with_option(name: str) -> str:
    """Return the field whose choices take this option: loss, optimizer or schedule."""
    known = choices()
    having = (field for field in known if any(name in one.options for one in known[field].values()))
    return next(having, "loss")


def word(name: str) -> str:
    """Return a name that can be a folder, an attribute and a label; else raise ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(
            f"must be 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, "
            f"but got {name!r}"
        )
    return name
