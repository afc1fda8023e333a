"""Checks between the parts of a study, before it runs: can every trial that it may ask for train?

Faults are ValueErrors: "key: what must hold, but got what".
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gpt.config import TrainConfig, explain
from gpt.errors import InputError
from sweep.study.paths import read_source
from sweep.study.search_space import Parameter
from sweep.study.spec import Baseline, StudySpec
from sweep.study.suggest import nearest, unknown

if TYPE_CHECKING:
    from gpt.losses.loss import Loss

NOT_OF_A_STUDY = {
    "data": "it is the table [data]",
    "vocab_size": "it is the tokenizer's; set data.tokenizer and data.bpe_vocab_size",
    "loss_options": "name the option itself, as in [search.square_weight]; one choice fixes it",
    "eval_skip_tokens": "only `squen-sweep verdict` skips stories, those of the sweep",
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
RESERVED_ENDINGS = (".screening", ".confirm")  # studies that a verdict runs
MAX_SEED = 10**12  # verdicts count fresh seeds on from the study's


def validate(spec: StudySpec) -> None:
    """Raise ValueError for the first fault, causes before their consequences."""
    _check_study(spec)
    _check_names(spec)
    _check_train(spec)
    _check_losses(spec)
    _check_parts(spec)
    _check_runs(spec)
    _check_steps(spec)
    _check_pruner(spec)


def check_study_name(name: str) -> None:
    """Raise ValueError for a name that would meet a folder or a study of ours."""
    if name.lower() in RESERVED_NAMES or name.lower().endswith(RESERVED_ENDINGS):
        reserved = ", ".join(RESERVED_NAMES + tuple(f"*{ending}" for ending in RESERVED_ENDINGS))
        raise ValueError(f"must not be one of {reserved}, which are ours, but got {name!r}")


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


# --- names -----------------------------------------------------------------------------------


def _check_names(spec: StudySpec) -> None:
    """Refuse names in [train] and [search] that are no field of TrainConfig or option of a loss."""
    fields = [name for name in TrainConfig.model_fields if name not in NOT_OF_A_STUDY]
    options = [option for loss in _losses().values() for option in loss.options]
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


def _check_losses(spec: StudySpec) -> None:
    """Refuse losses that do not exist."""
    searched = spec.search["loss"].values() if "loss" in spec.search else []
    for key, losses in (("train.loss", [spec.base("loss")]), ("search.loss.choices", searched)):
        for loss in losses:
            if loss not in _losses():
                some = f"{', '.join(_losses())}, but got {loss!r}{nearest(str(loss), _losses())}"
                raise ValueError(f"{key}: must be among {some}")


def _losses() -> "dict[str, Loss]":
    """Import torch late: listing studies shall not wait for it."""
    from gpt.losses.functional import LOSSES

    return LOSSES


# --- between the parts -----------------------------------------------------------------------


def _check_parts(spec: StudySpec) -> None:
    """Refuse a compare, a condition or a baseline that names something not searched."""
    _check_compare(spec)
    for name, parameter in spec.search.items():
        _check_when(spec, name, parameter)
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
    """Refuse a loss's option that is searched where another loss trains."""
    known = [loss for loss, one in _losses().items() if name in one.options]
    trained = spec.search["loss"].values() if "loss" in spec.search else [spec.base("loss")]
    having = [loss for loss in trained if loss in known] or known
    for loss in trained:
        applies = "loss" not in parameter.when or loss in parameter.allowed("loss")
        if known and loss not in known and applies:
            when = f'"{having[0]}"' if len(having) == 1 else having
            raise ValueError(
                f"search.{name}: must be searched for {' or '.join(having)} only, but {loss} "
                f"is trained too; add when = {{ loss = {when} }}"
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
    steps = spec.max_steps
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


def _check_pruner(spec: StudySpec) -> None:
    """Refuse a pruner that no evaluation of a trial would ask."""
    if spec.pruner.kind == "none":
        return
    steps, interval = spec.max_steps, spec.base("eval_interval")
    warmup = spec.pruner.warmup_fraction
    last = (steps - 1) // interval * interval  # before the end, where there is nothing to save
    if last == 0 or last < round(warmup * steps):
        raise ValueError(
            f"pruner: must have an evaluation after its warm-up and before the last step, but got "
            f"warmup_fraction={warmup}, max_steps={steps} and eval_interval={interval}; "
            f'lower one of them, or set kind = "none"'
        )


def _table(spec: StudySpec, name: str) -> str:
    return "search" if name in spec.search else "train"


def _largest(spec: StudySpec, name: str) -> Any:
    return max(spec.search[name].values()) if name in spec.search else spec.base(name)
