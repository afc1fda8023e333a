"""Study files, checked: what a study compares, searches and trains. Knows nothing of storage.

A study file is TOML:

    name, description, question    what it is, and the question that its report answers
    compare = "loss"               the parameter whose choices are the arms; else one arm, "all"
    metric = "perplexity"          what trials are ranked by; or link_perplexity
    [data] [train]                 fields of gpt.config.DataConfig and TrainConfig;
                                   dtype = "auto" is what trains faster where the study starts
    [search.<param>]               low, high, log, step, or choices; when = { loss = "squentropy" }
                                   or a list of them; nothing: the range of a loss's option
    [[baselines]]                  settings that run first in each arm
    [background."<title>"]         pairs of a name and words that the report shows beside a verdict
    [sampler] [pruner] [verdict]   see SamplerSpec, PrunerSpec and VerdictSpec
    [budget.cpu] [budget.cuda]     any of these tables again, laid over them on that device
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from gpt.config import DataConfig, TrainConfig, explain
from gpt.errors import InputError
from sweep.study import toml_file as study_file
from sweep.study.search_space import Parameter, Scalar, Spec
from sweep.study.validation import check

ONE_ARM = "all"  # the arm of a study that compares nothing
AUTO = "auto"  # a dtype that is settled when the study starts
GPT2_VOCAB_SIZE = 50257  # ids of tiktoken's "gpt2"


class SamplerSpec(Spec):
    """How parameters are proposed, within each arm."""

    kind: Literal["tpe", "gp", "random", "qmc"] = "tpe"  # gp: for an arm's first 100; qmc: Sobol
    seed: int = Field(default=0, ge=0)
    startup_trials: int = Field(default=8, ge=0)  # Sobol points of each arm; best a power of two


class PrunerSpec(Spec):
    """Which trials are stopped early, within each arm."""

    kind: Literal["median", "none"] = "median"
    warmup_fraction: float = Field(default=0.3, ge=0.0, le=1.0)  # of max_steps: none is stopped yet
    startup_trials: int = Field(default=4, ge=1)  # complete ones of the arm before any is stopped
    # Share of the trials to be stopped that run on, to see how often the pruner is wrong.
    shadow_fraction: float = Field(default=0.1, ge=0.0, le=1.0)


class VerdictSpec(Spec):
    """What `squen-sweep verdict` runs and asks; fixed before the results are known."""

    margin: float = Field(default=0.01, gt=0.0, lt=1.0)  # of perplexity: less does not matter
    top: int = Field(default=3, ge=1)  # configurations of each arm that are screened
    screening_seeds: int = Field(default=3, ge=1)  # of each, to choose one
    seeds: int = Field(default=5, ge=2, le=900)  # of the chosen one, to judge it


class Baseline(Spec):
    """A setting to beat: the same for each arm."""

    name: str
    params: dict[str, Scalar]

    @field_validator("name")
    @classmethod
    def _name_is_a_word(cls, name: str) -> str:
        return _word(name)


class StudySpec(Spec):
    """What a study file declares, for one device."""

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
    def _name_is_a_word(cls, name: str) -> str:
        return _word(name)

    @field_validator("search", mode="before")
    @classmethod
    def _options_have_ranges(cls, search: Any) -> Any:
        """A loss's option that is named without a range has the one of gpt.losses.functional."""
        if not isinstance(search, dict):
            return search
        return {name: _with_range(name, table) for name, table in search.items()}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        check(self)
        return self

    # --- what trials may be ------------------------------------------------------------------

    @property
    def arms(self) -> list[str]:
        """Names of what is compared, in the order of the file."""
        if self.compare is None:
            return [ONE_ARM]
        return [str(choice) for choice in self.search[self.compare].choices or []]

    @property
    def drawn(self) -> list[str]:
        """The parameters that are drawn within an arm: unconditional ones first, then by name.

        The order of the file does not enter: moving a table changes no trial.
        """
        names = [name for name in self.search if name != self.compare]
        return sorted(names, key=lambda name: (bool(self.search[name].when), name))

    def point(self, arm: str, value_of: Callable[[str, Parameter], Any]) -> dict[str, Any]:
        """Parameters of one trial: compare's is the arm's, `value_of` gives others that apply."""
        params = self._of_arm(arm)
        for name in self.drawn:
            if self.search[name].applies(params):
                params[name] = value_of(name, self.search[name])
        return params

    def suggest(self, trial: BaseTrial, arm: str) -> dict[str, Any]:
        """Parameters that an Optuna trial suggests; compare's is not asked for, it is the arm's."""
        return self.point(arm, lambda name, parameter: parameter.suggest(trial, name))

    def baseline_params(self, baseline: Baseline, arm: str) -> dict[str, Any]:
        """A baseline in one arm; a conditional parameter that it does not give has its default."""
        given = self._of_arm(arm) | baseline.params

        def value_of(name: str, parameter: Parameter) -> Any:
            return given[name] if name in given else self._default(name, given)

        return self.point(arm, value_of)

    def distributions(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each of these parameters."""
        return {name: self.search[name].distribution() for name in params}

    def _of_arm(self, arm: str) -> dict[str, Any]:
        if arm not in self.arms:
            raise InputError(f"arm must be one of {', '.join(self.arms)}, but got {arm!r}.")
        if self.compare is None:
            return {}
        return {self.compare: (self.search[self.compare].choices or [])[self.arms.index(arm)]}

    def _default(self, name: str, given: Mapping[str, Any]) -> Any:
        """What a run has where nothing is said, for a field of TrainConfig or a loss's option."""
        from gpt.losses.functional import LOSSES  # imports torch

        if name in TrainConfig.model_fields:
            return self.base(name)
        return LOSSES[given.get("loss", self.base("loss"))].options[name].default

    # --- what a trial trains -----------------------------------------------------------------

    def train_config(
        self, params: Mapping[str, Any], data: DataConfig, device: str, threads: int
    ) -> TrainConfig:
        """The run of a trial.

        Args:
            params: Of the trial; a name is a field of TrainConfig or an option of the loss.
            data: The text, usually pinned to a fingerprint.
            device: "cpu", "cuda" or "cuda:<index>".
            threads: Of the CPU, for this trial.

        Raises:
            InputError: these values make no run.
        """
        values = self.train_values(params, data) | {"device": device, "threads": threads}
        try:
            return TrainConfig.model_validate(values)
        except ValidationError as error:
            raise InputError(f"study {self.name}: {explain(error)}") from None

    def train_values(self, params: Mapping[str, Any], data: DataConfig) -> dict[str, Any]:
        """Values for TrainConfig, not yet checked, without those of the machine."""
        fields = {name: value for name, value in params.items() if name in TrainConfig.model_fields}
        options = {name: value for name, value in params.items() if name not in fields}
        vocab_size = GPT2_VOCAB_SIZE if data.tokenizer == "gpt2" else data.bpe_vocab_size
        shape = {"data": data, "vocab_size": vocab_size}
        values = {**self.train, **fields, "loss_options": options, **shape}
        if values.get("dtype") == AUTO:  # not settled yet, as in checks of the study file
            del values["dtype"]
        return values

    @property
    def leaves_dtype_open(self) -> bool:
        """Whether dtype is "auto": what is faster on the machine where the study starts."""
        return bool(self.train.get("dtype") == AUTO)

    def with_dtype(self, dtype: str) -> Self:
        """The same study with its dtype settled, if the file left it open."""
        if not self.leaves_dtype_open:
            return self
        return self.model_copy(update={"train": self.train | {"dtype": dtype}})

    @property
    def max_steps(self) -> int:
        """Optimiser steps of a trial that is not stopped early."""
        return int(self.base("max_steps"))

    @property
    def eval_tokens(self) -> int:
        """Validation targets of each evaluation, before rounding up to whole stories."""
        return int(self.base("eval_tokens"))

    @property
    def block_size(self) -> int:
        """The longest context that a trial may have, in tokens."""
        if "block_size" in self.search:
            return int(max(self.search["block_size"].values()))
        return int(self.base("block_size"))

    def base(self, field: str) -> Any:
        """A field of TrainConfig in all trials that do not search it."""
        return self.train.get(field, TrainConfig.model_fields[field].default)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all that changes results: not of names, words, or the text's source.

        The margin of the verdict is part of it: moved after a look, it could make any answer.

        The text itself is pinned by its fingerprint, in the study's storage.
        """
        words: dict[str, Any] = {"name": True, "description": True, "question": True}
        words["background"] = True
        parts = {"data": {"source", "fingerprint"}, "verdict": {"top", "screening_seeds", "seeds"}}
        content = self.model_dump(mode="json", exclude=words | parts)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class StudySummary(NamedTuple):
    """A study that is there to run."""

    name: str
    description: str
    path: Path


def shipped_studies() -> list[StudySummary]:
    """The studies of the package, by name."""
    return [
        StudySummary(name, study_file.read(path)["description"], path)
        for name, path in study_file.shipped_files().items()
    ]


def load_study(study: str, device: str) -> StudySpec:
    """Read and check a study file.

    Args:
        study: The name of a shipped study, or the path of a .toml file.
        device: "cpu" or "cuda"; a budget for another device is checked as well, but not used.

    Raises:
        InputError: there is no such study, or one line that names the file, the key, what must hold
            and what came instead.
    """
    path = study_file.find(study)
    tables = study_file.read(path)
    try:
        budgets = {key: study_file.budget_of(tables, key) for key in study_file.DEVICES}
        specs = {
            key: _resolve(tables, budget, key)
            for key, budget in budgets.items()
            if budget or key == device
        }
    except ValueError as error:
        raise InputError(study_file.one_line(f"{path.name}: {error}.")) from None
    return specs[device]


def renamed(spec: StudySpec, name: str) -> StudySpec:
    """The same study under another name.

    Raises:
        InputError: it is no name for a study.
    """
    try:
        return spec.model_copy(update={"name": _word(name)})
    except ValueError as error:
        raise InputError(f"--as {error}.") from None


def _resolve(tables: study_file.Table, budget: study_file.Table, device: str) -> StudySpec:
    """The study on one device. Raises ValueError: "key: what must hold, but got what"."""
    base = {key: value for key, value in tables.items() if key != "budget"}
    try:
        return StudySpec.model_validate(study_file.merged(base, budget))
    except ValidationError as error:
        key, colon, rest = _explain(error).partition(": ")
        raise ValueError(study_file.written_at(key, budget, device) + colon + rest) from None


def _with_range(name: str, table: Any) -> Any:
    if not isinstance(table, dict) or set(table) - {"when"} or name in TrainConfig.model_fields:
        return table
    from gpt.losses.functional import LOSSES  # imports torch

    for loss in LOSSES.values():
        if option := loss.options.get(name):
            return {"low": option.low, "high": option.high, "log": option.log, **table}
    return table


def _explain(error: ValidationError) -> str:
    """As gpt.config.explain, with the nearest key for one that is not known."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{key}: must be given"
    if first["type"] != "extra_forbidden":
        return explain(error).rstrip(".")
    *tables, name = (str(part) for part in first["loc"])
    known = [*_KEYS[tables[0] if tables else ""].model_fields, *([] if tables else ["budget"])]
    return f"{key}: {study_file.unknown(name, known)}"


_KEYS: dict[str, type[BaseModel]] = {
    "": StudySpec,
    "search": Parameter,
    "baselines": Baseline,
    "sampler": SamplerSpec,
    "pruner": PrunerSpec,
    "verdict": VerdictSpec,
    "data": DataConfig,
}


def _word(name: str) -> str:
    """Names are used as folders, in attributes and in plots."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(
            f"must be 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, "
            f"but got {name!r}"
        )
    return name
