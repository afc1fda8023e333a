"""Samplers and pruners of Optuna by name: which can work within an arm, and what they take."""

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler

from sweep.study.suggest import nearest

OUR_SAMPLERS = ("tpe", "gp", "random", "qmc")
SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "random": "RandomSampler",
    "cmaes": "CmaEsSampler",
}
OUR_PRUNERS = ("median", "none")
PRUNERS = {
    "percentile": "PercentilePruner",
    "threshold": "ThresholdPruner",
    "patient": "PatientPruner",
    "wilcoxon": "WilcoxonPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}
# Of Optuna's, those that cannot work here: the sampler of an arm is made anew for each trial, and
# only what it stores with trials is there again.
IMPOSSIBLE = {
    "QMCSampler": 'it counts over all arms; set kind = "qmc", a Sobol sequence that arms share',
    "GridSampler": "it stops a study when its grid is done, which arms have one of each",
    "BruteForceSampler": "it stops a study when it has tried everything, all arms together",
    "PartialFixedSampler": "it wraps another sampler; fix a parameter in [train]",
    "NSGAIISampler": "it is for several objectives, and a study has one",
    "NSGAIIISampler": "it is for several objectives, and a study has one",
    "MedianPruner": 'set kind = "median", which leaves out shadows',
    "NopPruner": 'set kind = "none"',
}
OPTIONS_OF_OURS = {
    "seed": "the table's own seed is for all arms",
    "n_startup_trials": "the table's own startup_trials is for all arms",
    "n_warmup_steps": "the table's own warmup_fraction is for all arms",
    "wrapped_pruner": "it wraps the median of the arm",
}
# Of each class: arguments that our tables give, in the place of Optuna's defaults.
_STARTUP = ("TPESampler", "GPSampler", "CmaEsSampler")
_INDEPENDENT = ("GPSampler", "CmaEsSampler")  # which would warn of every parameter with choices
_WARMED_UP = ("PercentilePruner", "ThresholdPruner")
_HALVING = ("SuccessiveHalvingPruner", "HyperbandPruner")


def check_sampler(kind: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError, "key: ...", unless a study may have this sampler with these arguments."""
    _check_options("sampler", options)
    if kind in OUR_SAMPLERS:
        if options and kind == "qmc":
            raise ValueError("sampler.options: must be empty for qmc, which has none")
    else:
        _check_kind("sampler", kind, SAMPLERS, (*OUR_SAMPLERS, "cmaes"))
        if find_spec("cmaes") is None and _name(kind, SAMPLERS) == "CmaEsSampler":
            raise ValueError(
                "sampler.kind: cmaes needs a package that is not installed; "
                "pip install 'squen-sweep[cmaes]'"
            )
    if kind != "qmc":
        _try("sampler", lambda: make_sampler(kind, options, seed=0, startup_trials=0))


def check_pruner(kind: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError, "key: ...", unless a study may have this pruner with these arguments."""
    _check_options("pruner", options)
    if kind in OUR_PRUNERS:
        if options:
            raise ValueError(f"pruner.options: must be empty for {kind}, which has none")
        return
    _check_kind("pruner", kind, PRUNERS, (*OUR_PRUNERS, *PRUNERS))
    _try("pruner", lambda: make_pruner(kind, options, startup_trials=1, first_step=1, last_step=9))


def make_sampler(
    kind: str, options: Mapping[str, Any], seed: int, startup_trials: int
) -> BaseSampler:
    """Make a sampler of Optuna's.

    Args:
        kind: A key of SAMPLERS, or "optuna.samplers.<class>".
        options: Arguments of the class, in place of its defaults.
        seed: For one proposal.
        startup_trials: Of an arm.
    """
    name = _name(kind, SAMPLERS)
    given: dict[str, Any] = {"seed": seed}
    if name in _STARTUP:
        given["n_startup_trials"] = startup_trials
    if name in _INDEPENDENT:
        given["warn_independent_sampling"] = False
    return cast(BaseSampler, _made(getattr(optuna.samplers, name), given | dict(options)))


def make_pruner(
    kind: str, options: Mapping[str, Any], startup_trials: int, first_step: int, last_step: int
) -> BasePruner:
    """Make a pruner of Optuna's.

    Args:
        kind: A key of PRUNERS, or "optuna.pruners.<class>".
        options: Arguments of the class, in place of its defaults.
        startup_trials: Complete trials of an arm before any is stopped.
        first_step: At which trials may be stopped.
        last_step: Of a complete trial.
    """
    name = _name(kind, PRUNERS)
    given: dict[str, Any] = {}
    if name in _WARMED_UP:
        given["n_warmup_steps"] = first_step
    if name == "PercentilePruner":
        given |= {"percentile": 25.0, "n_startup_trials": startup_trials}
    if name in _HALVING:
        given["min_resource"] = max(1, first_step)
    if name == "HyperbandPruner":
        given["max_resource"] = last_step
    if name == "PatientPruner":
        given["wrapped_pruner"] = MedianPruner(startup_trials, n_warmup_steps=first_step)
        given["patience"] = 2
    return cast(BasePruner, _made(getattr(optuna.pruners, name), given | dict(options)))


def _made(make: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Make one without Optuna's warning that it is experimental, which its user has chosen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return make(**arguments)


def _name(kind: str, known: Mapping[str, str]) -> str:
    return known[kind] if kind in known else kind.rpartition(".")[2]


def _check_kind(table: str, kind: str, known: Mapping[str, str], shown: tuple[str, ...]) -> None:
    """Raise ValueError if a kind names no class, or one that cannot work."""
    module, base = (
        (optuna.samplers, BaseSampler) if table == "sampler" else (optuna.pruners, BasePruner)
    )
    name = _name(kind, known)
    found = getattr(module, name, None)
    named = kind in known or kind == f"optuna.{table}s.{name}"
    if not named or not isinstance(found, type) or not issubclass(found, base) or found is base:
        raise ValueError(
            f"{table}.kind: must be one of {', '.join(shown)}, or a class such as "
            f"optuna.{table}s.{SAMPLERS['tpe'] if table == 'sampler' else PRUNERS['hyperband']}, "
            f"but got {kind!r}{nearest(kind, shown)}"
        )
    if name in IMPOSSIBLE:
        raise ValueError(f"{table}.kind: {name} cannot work within an arm: {IMPOSSIBLE[name]}")


def _check_options(table: str, options: Mapping[str, Any]) -> None:
    for name in options:
        if name in OPTIONS_OF_OURS:
            raise ValueError(
                f"{table}.options.{name}: must not be set here: {OPTIONS_OF_OURS[name]}"
            )


def _try(table: str, make: Callable[[], object]) -> None:
    """Make one, so that a wrong argument is found before anything is written."""
    try:
        make()
    except (TypeError, ValueError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{table}.options: must be arguments of the class, but: {said}") from None
