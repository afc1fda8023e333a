"""What must hold between the parts of a study, and whether every trial that it may ask for can run.

Asked before a sweep, not during it. Faults are ValueErrors: "key: what must hold, but got what".
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gpt.config import TrainConfig, explain
from sweep.study.search_space import Parameter
from sweep.study.spec import Baseline, StudySpec
from sweep.study.suggest import nearest, unknown

if TYPE_CHECKING:
    from gpt.losses.loss import Loss

NOT_OF_A_STUDY = {
    "data": "it is the table [data]",
    "vocab_size": "it is the tokenizer's; set data.tokenizer and data.bpe_vocab_size",
    "loss_options": "name the option itself, as in [search.square_weight]; one choice fixes it",
    "eval_skip_tokens": "only `squen-sweep verdict` passes over stories, those of the sweep",
    "device": "it is chosen when the sweep runs",
    "threads": "they are chosen when the sweep runs",
}
NOT_SEARCHED = {
    "max_steps": "trials must be comparable at equal steps; set it in [train]",
    "eval_interval": "trials must be comparable at equal steps; set it in [train]",
    "eval_tokens": "trials must be evaluated on the same tokens; set it in [train]",
}


def validate(spec: StudySpec) -> None:
    """Raise ValueError for the first thing that is wrong, causes before their consequences."""
    _check_names(spec)
    _check_train(spec)
    _check_losses(spec)
    _check_parts(spec)
    _check_runs(spec)


# --- names -----------------------------------------------------------------------------------


def _check_names(spec: StudySpec) -> None:
    """Every name in [train] and [search] must be a field of TrainConfig or an option of a loss."""
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
    """Each value of [train] must be possible, also one that the search replaces."""
    try:
        TrainConfig.model_validate(spec.train_values({}, spec.data))
    except ValidationError as error:
        if error.errors(include_url=False)[0]["loc"]:  # what is between fields is checked later
            raise ValueError(f"train.{explain(error).rstrip('.')}") from None


def _check_losses(spec: StudySpec) -> None:
    """Losses must exist."""
    searched = spec.search["loss"].values() if "loss" in spec.search else []
    for key, losses in (("train.loss", [spec.base("loss")]), ("search.loss.choices", searched)):
        for loss in losses:
            if loss not in _losses():
                some = f"{', '.join(_losses())}, but got {loss!r}{nearest(str(loss), _losses())}"
                raise ValueError(f"{key}: must be among {some}")


def _losses() -> "dict[str, Loss]":
    """Late, because it imports torch, and listing studies shall not wait for that."""
    from gpt.losses.functional import LOSSES

    return LOSSES


# --- between the parts -----------------------------------------------------------------------


def _check_parts(spec: StudySpec) -> None:
    """Compare, conditions and baselines must name what is searched."""
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
            f"compare: must be a parameter with choices and without when, "
            f"but got {spec.compare!r}, which is not"
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
    """A loss's option must be searched only where that loss trains."""
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
    """Whole numbers for a real one: low = 0 and high = 1 would silently search 0 and 1 alone."""
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
    """The baselines and the corners of the space must all be runs."""
    for arm in spec.arms:
        for baseline in spec.baselines:
            key = f"baselines.{baseline.name}.params"
            params = spec.baseline_params(baseline, arm)
            _check_defaults(spec, key, params)
            _check_run(spec, params, key)
        for params in corners(spec, arm):
            _check_run(spec, params, "search")


def corners(spec: StudySpec, arm: str) -> Iterator[dict[str, Any]]:
    """Trials with every pair of values: no check of TrainConfig looks at more than two fields."""
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
    """Build the run, and say in which table of the study the fault is."""
    try:
        TrainConfig.model_validate(spec.train_values(params, spec.data))
    except ValidationError as error:
        fault = explain(error).rstrip(".")
        if error.errors(include_url=False)[0]["loc"]:
            raise ValueError(f"{section}.{fault}") from None
        drawn = any(name in fault for name in params)  # a fault between fields names them
        raise ValueError(f"{section if drawn else 'train'}: {fault}") from None
