"""Checks between the parts of a study, before it runs: can every trial that it may ask for train?

Faults are ValueErrors: "key: what must hold, but got what".
"""

import re
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

from pydantic import ValidationError

from gpt.config import TrainConfig, choices, explain
from gpt.errors import InputError
from sweep.study.external.optuna_kinds import check_pruner, check_sampler
from sweep.study.paths import read_source
from sweep.study.program import TrainerSpec, check_program
from sweep.study.search_space import Parameter
from sweep.study.spec import Baseline, StudySpec, field_with_option
from sweep.study.suggest import nearest, unknown

NOT_OF_A_STUDY = {
    "data": "it is the table [data]",
    "plugins": "it is a key of the study, above all tables",
    "vocab_size": "it is the tokenizer's; set data.tokenizer and data.bpe_vocab_size",
    **dict.fromkeys(
        ("loss_options", "optimizer_options", "schedule_options"),
        "name the option itself, as in [search.square_weight]; one choice fixes it",
    ),
    "eval_skip_tokens": "only `squen-sweep verdict` skips stories, those of the sweep",
    "patience": "a study's pruner stops trials; `squen-sweep train --patience` is for one run",
    "sample_interval": "only `squen-sweep train --sample-interval` samples stories on the way",
    "device": "it is chosen when the sweep runs",
    "threads": "they are chosen when the sweep runs",
}
NOT_SEARCHED = {
    "max_steps": "trials must be comparable at equal steps; set it in [train]",
    "eval_interval": "trials must be comparable at equal steps; set it in [train]",
    "eval_tokens": "trials must be evaluated on the same tokens; set it in [train]",
    "seed": "a seed is luck, no setting to win by; `squen-sweep verdict --seeds N` trains with "
    "fresh ones",
}
RESERVED_NAMES = ("artifacts", "final")  # folders of ours beside those of studies
RESERVED_ENDINGS = r"\.(screening|confirm|search-\d+)$"  # studies that a verdict runs
MAX_SEED = 10**12  # verdicts count fresh seeds on from the study's


def validate(spec: StudySpec) -> None:
    """Raise ValueError for the first fault, causes before their consequences."""
    _check_study(spec)
    if spec.trainer is not None:
        _check_program(spec, spec.trainer)
        return
    _check_names(spec)
    _check_train(spec)
    _check_choices(spec)
    _check_parts(spec)
    _check_runs(spec)
    _check_steps(spec)
    _check_sampler(spec)
    _check_pruner(spec)


def check_study_name(name: str) -> None:
    """Raise ValueError for a name that would meet a folder or a study of ours, or be a file's."""
    if name.lower() in RESERVED_NAMES or re.search(RESERVED_ENDINGS, name.lower()):
        reserved = ", ".join((*RESERVED_NAMES, "*.screening", "*.confirm", "*.search-N"))
        raise ValueError(f"must not be one of {reserved}, which are ours, but got {name!r}")
    if name.lower().endswith(".toml"):
        raise ValueError(
            f"must not end in .toml, which is a study's file for every command, but got {name!r}"
        )


def _check_study(spec: StudySpec) -> None:
    """Refuse a name that is taken, and a URL as the text."""
    try:
        check_study_name(spec.name)
    except ValueError as error:
        raise ValueError(f"name: {error}") from None
    try:
        read_source(spec.data.source, "data.source:")
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from None


def _check_program(spec: StudySpec, trainer: TrainerSpec) -> None:
    """Refuse tables of the built-in GPT, names that a program cannot be given, and parts."""
    for table in ("data", "train", "metric"):
        if table in spec.model_fields_set:
            way = "trainer.metric" if table == "metric" else "the program's own configuration"
            raise ValueError(f"{table}: must not be set beside [trainer]; it is {way}")
    if spec.plugins:
        raise ValueError("plugins: must not be set beside [trainer]; they are of the built-in GPT")
    check_program(trainer, spec.search)
    _check_parts(spec)
    _check_sampler(spec)
    check_pruner(spec.pruner.kind, spec.pruner.options)
    for baseline in spec.baselines:
        for arm in spec.arms:
            _check_complete(spec, baseline, arm)


def _check_complete(spec: StudySpec, baseline: Baseline, arm: str) -> None:
    """Refuse a baseline without a value of a conditional parameter: a program has no defaults."""
    for name in spec.point(arm, lambda name, parameter: baseline.params.get(name)):
        if name != spec.compare and name not in baseline.params:
            key = f"baselines.{baseline.name}.params"
            raise ValueError(f"{key}: must set {name} for {arm}, since a program has no defaults")


# --- names -----------------------------------------------------------------------------------


def _check_names(spec: StudySpec) -> None:
    """Refuse names in [train] and [search] that are no field of TrainConfig and no option."""
    fields = [name for name in TrainConfig.model_fields if name not in NOT_OF_A_STUDY]
    known_choices = [one for known in choices().values() for one in known.values()]
    options = list(dict.fromkeys(option for one in known_choices for option in one.options))
    searched = [name for name in fields if name not in NOT_SEARCHED] + options
    for table, names, known, reasons in (
        ("train", spec.train, fields, NOT_OF_A_STUDY),
        ("search", spec.search, searched, NOT_OF_A_STUDY | NOT_SEARCHED),
    ):
        for name in names:
            if name in reasons:
                raise ValueError(f"{table}.{name}: must not be set here: {reasons[name]}")
            if name not in known:
                raise ValueError(f"{table}.{name}: {unknown(name, known)}")


def _check_train(spec: StudySpec) -> None:
    """Refuse impossible values of [train], also one that the search replaces."""
    try:
        TrainConfig.model_validate(spec.train_values({}, spec.data))
    except ValidationError as error:
        if error.errors(include_url=False)[0]["loc"]:  # faults between fields are found later
            raise ValueError(f"train.{explain(error).rstrip('.')}") from None


def _check_choices(spec: StudySpec) -> None:
    """Refuse losses, optimisers and schedules that do not exist."""
    for field, known in choices().items():
        searched = spec.search[field].values() if field in spec.search else []
        for key, names in (
            (f"train.{field}", [spec.base(field)]),
            (f"search.{field}.choices", searched),
        ):
            for name in names:
                if name not in known:
                    some = f"{', '.join(known)}, but got {name!r}{nearest(str(name), known)}"
                    raise ValueError(f"{key}: must be among {some}")


# --- between the parts -----------------------------------------------------------------------


def _check_parts(spec: StudySpec) -> None:
    """Refuse a compare, a condition or a baseline that names something not searched."""
    _check_compare(spec)
    for name, parameter in spec.search.items():
        _check_when(spec, name, parameter)
        if spec.trainer is None:
            _check_option(spec, name, parameter)
            _check_kind(name, parameter)
    names = [baseline.name for baseline in spec.baselines]
    if len(set(names)) < len(names):
        raise ValueError(f"baselines: names must differ from each other, but got {names}")
    for baseline in spec.baselines:
        _check_baseline(spec, baseline)


def _check_compare(spec: StudySpec) -> None:
    if spec.compare is None:
        return
    if spec.compare not in spec.search:
        near = nearest(spec.compare, spec.search)
        raise ValueError(f"compare: must be a searched parameter, but got {spec.compare!r}{near}")
    if spec.search[spec.compare].choices is None or spec.search[spec.compare].when:
        raise ValueError(
            f"compare: must be a parameter with choices and without when, but got {spec.compare!r}"
        )


def _check_when(spec: StudySpec, name: str, parameter: Parameter) -> None:
    known = [one for one, other in spec.search.items() if not other.when]
    for other in parameter.when:
        if other not in known:
            raise ValueError(
                f"search.{name}.when: must name a searched parameter without a when of its own "
                f"({', '.join(known)}), but got {other!r}{nearest(other, known)}"
            )
        for value in parameter.allowed(other):
            if not spec.search[other].contains(value):
                raise ValueError(
                    f"search.{name}.when: {other} must be a value that is searched "
                    f"({spec.search[other]}), but got {value!r}"
                )


def _check_option(spec: StudySpec, name: str, parameter: Parameter) -> None:
    """Refuse an option that is searched where another choice trains, such as another loss."""
    field = field_with_option(name)
    known = [choice for choice, one in choices()[field].items() if name in one.options]
    trained = spec.search[field].values() if field in spec.search else [spec.base(field)]
    having = [choice for choice in trained if choice in known] or known
    for choice in trained:
        applies = field not in parameter.when or choice in parameter.allowed(field)
        if known and choice not in known and applies:
            when = f'"{having[0]}"' if len(having) == 1 else having
            raise ValueError(
                f"search.{name}: must be searched for {' or '.join(having)} only, but {choice} "
                f"is trained too; add when = {{ {field} = {when} }}"
            )


def _check_kind(name: str, parameter: Parameter) -> None:
    """Refuse integers for a real parameter: low = 0, high = 1 would search 0 and 1 alone."""
    field = TrainConfig.model_fields.get(name)
    if parameter.is_int and (field is None or field.annotation is float):
        raise ValueError(
            f"search.{name}: must be a range of real numbers, such as low = {parameter.low}.0, "
            f"but got low={parameter.low} and high={parameter.high}"
        )


def _check_baseline(spec: StudySpec, baseline: Baseline) -> None:
    key = f"baselines.{baseline.name}.params"
    known = [name for name in spec.search if name != spec.compare]
    for name, value in baseline.params.items():
        if name == spec.compare:
            raise ValueError(f"{key}.{name}: must not be set, because a baseline runs in each arm")
        if name not in known:
            raise ValueError(f"{key}.{name}: {unknown(name, known)}")
        if not spec.search[name].contains(value):
            raise ValueError(
                f"{key}.{name}: must be in the search space ({spec.search[name]}), "
                f"but got {value!r}"
            )
    for name in known:
        if name not in baseline.params and not spec.search[name].when:
            raise ValueError(f"{key}: must set every searched parameter, but got no {name}")


# --- what gpt can train ----------------------------------------------------------------------


def _check_runs(spec: StudySpec) -> None:
    """Refuse baselines and corners of the space that are no runs."""
    for arm in spec.arms:
        for baseline in spec.baselines:
            key = f"baselines.{baseline.name}.params"
            params = spec.baseline_params(baseline, arm)
            _check_defaults(spec, key, params)
            _check_run(spec, params, key)
        for params in corners(spec, arm):
            _check_run(spec, params, "search")


def corners(spec: StudySpec, arm: str) -> Iterator[dict[str, Any]]:
    """Yield trials with every pair of values: TrainConfig relates no more than two fields."""
    for names in combinations(spec.drawn, min(2, len(spec.drawn))):
        for values in product(*(spec.search[name].values() for name in names)):
            yield _corner(spec, arm, dict(zip(names, values, strict=True)))


def _corner(spec: StudySpec, arm: str, fixed: dict[str, Any]) -> dict[str, Any]:
    def value_of(name: str, parameter: Parameter) -> Any:
        return fixed[name] if name in fixed else parameter.values()[0]

    return spec.point(arm, value_of)


def _check_defaults(spec: StudySpec, key: str, params: dict[str, Any]) -> None:
    for name, value in params.items():
        if not spec.search[name].contains(value):
            raise ValueError(
                f"{key}: must set {name}, because its default {value!r} is outside search.{name} "
                f"({spec.search[name]})"
            )


def _check_run(spec: StudySpec, params: dict[str, Any], section: str) -> None:
    """Build a run; its fault is reported with the table that it stands in."""
    try:
        TrainConfig.model_validate(spec.train_values(params, spec.data))
    except ValidationError as error:
        fault = explain(error).rstrip(".")
        if error.errors(include_url=False)[0]["loc"]:
            raise ValueError(f"{section}.{fault}") from None
        drawn = any(name in fault for name in params)  # a fault between fields names them
        raise ValueError(f"{section if drawn else 'train'}: {fault}") from None


# --- what would train, but to no purpose -----------------------------------------------------


def _check_steps(spec: StudySpec) -> None:
    """Refuse a warm-up without an end, evaluations after the end, and seeds too large to add to."""
    steps = _max_steps(spec)
    warmup = _largest(spec, "warmup_steps")
    if warmup >= steps:
        raise ValueError(
            f"{_table(spec, 'warmup_steps')}.warmup_steps: must be below max_steps, or no trial "
            f"reaches its learning rate, but got warmup_steps={warmup} and max_steps={steps}; "
            f"set a lower one"
        )
    interval = spec.base("eval_interval")
    if interval > steps:
        raise ValueError(
            f"train.eval_interval: must be at most max_steps, "
            f"but got eval_interval={interval} and max_steps={steps}"
        )
    if spec.base("seed") > MAX_SEED:
        raise ValueError(f"train.seed: must be at most {MAX_SEED}, but got {spec.base('seed')}")


def _check_sampler(spec: StudySpec) -> None:
    """Refuse a sampler that cannot propose within each arm."""
    check_sampler(spec.sampler.kind, spec.sampler.options)
    if not spec.sampler.kind.endswith(("cmaes", "CmaEsSampler")):
        return
    for arm in spec.arms:
        applying = spec.point(arm, lambda name, parameter: parameter)
        ranges = [name for name, one in applying.items() if name in spec.drawn and not one.choices]
        if len(ranges) < 2:
            raise ValueError(
                f"sampler.kind: cmaes must have two ranges to search in each arm, but {arm} has "
                f"{', '.join(ranges) or 'none'}; set another kind"
            )


def _check_pruner(spec: StudySpec) -> None:
    """Refuse a pruner that does not exist, or that no evaluation of a trial would ask."""
    check_pruner(spec.pruner.kind, spec.pruner.options)
    if spec.pruner.kind == "none":
        return
    steps, interval = _max_steps(spec), spec.base("eval_interval")
    warmup = spec.pruner.warmup_fraction
    last = (steps - 1) // interval * interval  # before the end, where there is nothing to save
    if last == 0 or last < round(warmup * steps):
        raise ValueError(
            f"pruner: must have an evaluation after its warm-up and before the last step, but got "
            f"warmup_fraction={warmup}, max_steps={steps} and eval_interval={interval}; "
            f'lower one of them, or set kind = "none"'
        )


def _max_steps(spec: StudySpec) -> int:
    return int(spec.base("max_steps"))


def _table(spec: StudySpec, name: str) -> str:
    return "search" if name in spec.search else "train"


def _largest(spec: StudySpec, name: str) -> Any:
    return max(spec.search[name].values()) if name in spec.search else spec.base(name)
