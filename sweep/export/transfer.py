"""A check before a long run: does the ranking of a sweep hold as its models grow?

The best configurations of one arm and two that are spread over its ranking train again, scaled as
the long run will be (sweep.trainers.long_run.scale): at the sweep's own size with two fresh seeds,
which also shows the noise, and at one or two sizes on the way to the long run, in equal ratios.
Each size is a study of its own beside the sweep, run by its tuner, so an interrupted check goes on.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import spearmanr

from gpt.config import TrainConfig
from gpt.errors import InputError
from gpt.model import num_params
from sweep.analysis import results
from sweep.analysis.phases import name_of_phase
from sweep.export.power_law import predict
from sweep.storage.rdb import stored_text
from sweep.storage.schema import trial_attrs
from sweep.study.search_space import Parameter
from sweep.study.spec import PrunerSpec, StudySpec
from sweep.trainers.long_run.prediction import PREDICTIONS, Prediction, keep_predictions
from sweep.trainers.long_run.scale import Scale, scaled
from sweep.trainers.memory import training_flops
from sweep.tuner.options import RunOptions
from sweep.tuner.summary import Summary
from sweep.verdict.confirm_plan import EVALUATIONS, PlannedRun, plan
from sweep.verdict.confirm_runs import MakeCallback, lock_sweep, run_beside
from sweep.verdict.request import VerdictRequest, sweep_spec

STEP_OF_WAY = 0.25  # of the way to the long run, from one size to the next: half of it is checked
SPREAD = (0.5, 0.9)  # of the ranking, at which the two other configurations stand
SEEDS_AT_BASE = 2
FIRST_SEED = 3_000  # above the study's own; those of a verdict are below
LEAST_NOISE = 0.003  # nats, between seeds
LEAST_CORRELATION = 0.5
FARTHEST = 100.0  # times the compute of the largest checked size

# Fields that are scaled by trial, with any value that one could have.
_RANGES: Mapping[str, Parameter] = {
    "warmup_steps": Parameter(low=0, high=10**12),
    "weight_decay": Parameter(low=0.0, high=1e6),
}
_SHAPE = ("n_layer", "n_embd", "n_head", "batch_size")
_BASE = ("base_n_layer", "base_n_embd", "base_n_head")


@dataclass(frozen=True)
class Size:
    """A size on the way, at which all configurations train."""

    scale: Scale  # empty: the sweep's own
    seeds: tuple[int, ...]
    configs: dict[int, TrainConfig]  # by the sweep's trial, before a seed is set
    compute: float  # of the chosen configuration, over that of the long run

    @property
    def phase(self) -> str:
        """Last part of the name of its study."""
        text = json.dumps(dict(self.scale), sort_keys=True)
        return f"transfer-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Transfer:
    """A transfer check that can be made."""

    study: optuna.Study  # the sweep's
    spec: StudySpec
    arm: str
    trials: list[FrozenTrial]  # the best first; that one is to be trained long
    sizes: list[Size]  # the sweep's own first
    final: dict[int, TrainConfig]  # the long run of each trial's configuration

    @property
    def relative_cost(self) -> float:
        """Compute of all runs of the check over that of the long run."""
        longest = training_flops(self.final[self.trials[0].number])
        runs = [
            len(size.seeds) * training_flops(config)
            for size in self.sizes
            for config in size.configs.values()
        ]
        return sum(runs) / longest


@dataclass(frozen=True)
class TransferCheck:
    """Outcome of a transfer check."""

    nats: list[dict[int, float]]  # by size and trial, the mean of the seeds; inf: it did not end
    noise: float  # nats, standard deviation between seeds
    correlations: list[float]  # of the ranking at each larger size with the sweep's own
    predictions: dict[int, Prediction]  # by trial
    doubts: list[str]  # reasons not to trust the ranking; none: it can be trusted


def plan_transfer(
    study: optuna.Study, scale: Scale, arm: str | None = None, top: int = 3, sizes: int = 2
) -> Transfer:
    """Choose configurations and sizes.

    Args:
        study: The sweep's.
        scale: Of the long run, see sweep.trainers.long_run.scale.read_scale.
        arm: Whose configurations; None: that of the best trial.
        top: How many of the best; two more are spread over the rest of the ranking.
        sizes: 1 or 2, between the sweep's and the long run's.

    Raises:
        InputError: one of these cannot be, a program trained the trials, or the scale is not above
            the sweep's size.
    """
    spec = sweep_spec(study)
    if spec.trainer is not None:
        raise InputError(
            "transfer must have a study of the built-in GPT, whose sizes it knows, but "
            f"{study.study_name!r} runs a program."
        )
    if spec.compare in (*_RANGES, *_SHAPE):
        raise InputError(
            f"transfer must have arms that a scale leaves as they are, but study "
            f"{study.study_name!r} compares {spec.compare}."
        )
    if top < 1:
        raise InputError(f"--top must be at least 1, but got {top}.")
    if sizes not in (1, 2):
        raise InputError(f"--sizes must be 1 or 2, but got {sizes}.")
    best = results.best_trial(study, arm)
    arm = results.arm_of(best)
    ranking = sorted(results.complete_trials(study, arm), key=results.rank_key(study))
    if len(ranking) < 3:
        raise InputError(
            f"transfer must rank at least 3 complete trials of {arm}, but study "
            f"{study.study_name!r} has {len(ranking)}; give the sweep more --trials."
        )
    rest = ranking[top:]
    places = sorted({round(share * (len(rest) - 1)) for share in SPREAD})
    chosen = ranking[:top] + [rest[place] for place in places if rest]
    text = stored_text(study, spec)
    base = {t.number: spec.train_config(t.params, text, "cpu", 1) for t in chosen}
    final = {number: scaled(config, scale) for number, config in base.items()}
    growth = training_flops(final[best.number]) / training_flops(base[best.number])
    if growth <= 1:
        raise InputError(
            f"--scale must lead to a longer run than the sweep's trials, but it takes "
            f"{growth:.2g} times their compute."
        )
    first, last = base[best.number], final[best.number]
    steps = [STEP_OF_WAY, 2 * STEP_OF_WAY] if sizes == 2 else [2 * STEP_OF_WAY]
    scales = [{}, *(_between(first, last, scale, share) for share in steps)]
    seed = spec.seed + FIRST_SEED
    return Transfer(
        study,
        spec,
        arm,
        chosen,
        [
            _size(base, one, seed, SEEDS_AT_BASE if not one else 1, training_flops(last), best)
            for one in scales
        ],
        final,
    )


def _size(
    base: dict[int, TrainConfig], scale: Scale, seed: int, seeds: int, longest: float, best: Any
) -> Size:
    configs = {number: scaled(config, scale) for number, config in base.items()}
    compute = training_flops(configs[best.number]) / longest
    return Size(scale, tuple(range(seed, seed + seeds)), configs, compute)


def _between(first: TrainConfig, last: TrainConfig, scale: Scale, share: float) -> dict[str, int]:
    """Return the scale that lies so far on the way, in ratios; widths divide into heads."""

    def at(name: str) -> float:
        start, end = getattr(first, name), getattr(last, name)
        return float(start ** (1 - share) * end**share)

    fields = {name: "max_steps" if name == "steps" else name for name in scale}
    found = {name: max(1, round(at(field))) for name, field in fields.items()}
    if "n_embd" in found:
        unit = found.get("n_head", first.n_embd // first.n_head)
        found["n_embd"] = max(1, round(at("n_embd") / unit)) * unit
    return found


def run_transfer(
    transfer: Transfer,
    storage: RDBStorage,
    options: RunOptions,
    make_callback: MakeCallback,
) -> Summary:
    """Train what is missing, the smallest size first.

    Returns:
        The summary of the last size that ran; it may be interrupted.

    Raises:
        InputError: see sweep.tuner.run.run.
        BusyError: another process runs the sweep, its verdict or this check.
    """
    spec = transfer.spec
    request = VerdictRequest(transfer.study, spec, [transfer.arm], 1, 1)
    with lock_sweep(request, options, make_callback):
        for size in transfer.sizes:
            summary = run_beside(
                request,
                storage,
                replace(options, wait=False),
                make_callback,
                size.phase,
                size_spec(spec, size),
                plan_all=partial(plan, runs=_runs_of(transfer, size)),
            )
            if summary.interrupted:
                break
    return summary


def _runs_of(transfer: Transfer, size: Size) -> list[PlannedRun]:
    return [
        PlannedRun(transfer.arm, number, params_of(transfer, size, number, seed), seed)
        for seed in size.seeds
        for number in size.configs
    ]


def size_spec(spec: StudySpec, size: Size) -> StudySpec:
    """Return the study of a size: the sweep's, unpruned, whose trials have fields of their own."""
    config = next(iter(size.configs.values()))
    own = own_fields(spec, size)
    common = {name for name in (*_SHAPE, *_BASE) if name not in own}
    search = {name: p for name, p in spec.search.items() if name not in common} | own
    train = {name: value for name, value in spec.train.items() if name not in own}
    train |= {
        "parametrization": config.parametrization,
        "max_steps": config.max_steps,
        "eval_interval": -(-config.max_steps // EVALUATIONS),
        **{name: value for name in common if (value := getattr(config, name)) is not None},
    }
    seeds = Parameter(low=min(size.seeds), high=min(size.seeds) + FIRST_SEED)
    return spec.model_copy(
        update={
            "name": f"{spec.name}.{size.phase}",
            "train": train,
            "search": {**search, "seed": seeds},
            "baselines": [],
            "pruner": PrunerSpec(kind="none"),
        }
    )


def own_fields(spec: StudySpec, size: Size) -> dict[str, Parameter]:
    """Return the fields that each configuration of a size has for itself, with their ranges.

    Those of the shape are what the sweep searched and the scale does not set, and the base of what
    it searched.
    """
    own = dict(_RANGES)
    for name in (*_SHAPE, *_BASE):
        values = {getattr(config, name) for config in size.configs.values()}
        if name.removeprefix("base_") in spec.search and values != {None}:
            parameter = spec.search[name.removeprefix("base_")]
            if all(parameter.contains(value) for value in values):
                own[name] = parameter
        if len(values) > 1 and name not in own:  # heads of several sizes
            own[name] = Parameter(low=min(values), high=max(values))
    return own


def params_of(transfer: Transfer, size: Size, number: int, seed: int) -> dict[str, Any]:
    """Return the parameters of a run of a size: the trial's, scaled, and a seed."""
    trial = next(trial for trial in transfer.trials if trial.number == number)
    own = own_fields(transfer.spec, size)
    kept = {n: v for n, v in trial.params.items() if n not in _SHAPE or n in own}
    return {**kept, **{name: getattr(size.configs[number], name) for name in own}, "seed": seed}


def judge_transfer(transfer: Transfer, storage: RDBStorage) -> TransferCheck:
    """Compare the rankings of the sizes, and predict the long runs.

    Raises:
        InputError: a run is missing.
    """
    return assess(transfer, [_losses(transfer, size, storage) for size in transfer.sizes])


def assess(transfer: Transfer, losses: list[dict[int, list[float]]]) -> TransferCheck:
    """Return what losses say; see TransferCheck.

    Args:
        transfer: The check.
        losses: In nats, by size, trial and seed; inf: the run did not end.
    """
    nats = [{number: float(np.mean(of)) for number, of in size.items()} for size in losses]
    pairs = [of for size in losses for of in size.values() if len(of) == SEEDS_AT_BASE]
    finite = [a - b for a, b in pairs if math.isfinite(a - b)]
    noise = max(LEAST_NOISE, math.sqrt(np.mean(np.square(finite)) / 2) if finite else 0.0)
    correlations = [_correlation(nats[0], of) for of in nats[1:]]
    doubts = _doubts(transfer, nats, noise, correlations)
    predictions = {}
    for number, config in transfer.final.items():
        measured = [of[number] for of in nats]
        compute = [training_flops(size.configs[number]) for size in transfer.sizes]
        if all(map(math.isfinite, measured)):  # a run that did not end has no loss to go by
            median, low, high = predict(compute, measured, noise, training_flops(config))
            predictions[number] = Prediction(median, low, high, trusted=not doubts)
    return TransferCheck(nats, noise, correlations, predictions, doubts)


def _losses(transfer: Transfer, size: Size, storage: RDBStorage) -> dict[int, list[float]]:
    """Return the losses of a size by trial, in the order of the seeds."""
    name = name_of_phase(storage, transfer.study, size.phase)
    found: dict[tuple[int | None, int], float] = {}
    if name in optuna.get_all_study_names(storage):
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        for run in optuna.load_study(study_name=name, storage=storage).get_trials(False, ended):
            complete = run.state == TrialState.COMPLETE and run.value is not None
            loss = math.log(run.value) if complete else math.inf  # type: ignore[arg-type]
            found[trial_attrs(run).of_trial, run.params["seed"]] = loss
    missing = [key for n in size.configs for seed in size.seeds if (key := (n, seed)) not in found]
    if missing:
        raise InputError(
            f"every run must be finished before a transfer check can answer, but that of trial "
            f"{missing[0][0]} with seed {missing[0][1]} is missing; run the same command again."
        )
    return {n: [found[n, seed] for seed in size.seeds] for n in size.configs}


def _correlation(base: dict[int, float], larger: dict[int, float]) -> float:
    """Spearman's rank correlation of two rankings of the same configurations."""
    numbers = list(base)
    return float(spearmanr([base[n] for n in numbers], [larger[n] for n in numbers]).statistic)


def _doubts(
    transfer: Transfer, nats: list[dict[int, float]], noise: float, correlations: list[float]
) -> list[str]:
    best = transfer.trials[0].number
    doubts = [
        f"at {in_words(size)} the rank correlation with the sweep's size is {correlation:.2f}"
        for size, correlation in zip(transfer.sizes[1:], correlations, strict=True)
        if not correlation >= LEAST_CORRELATION
    ]
    last = nats[-1]
    lead, winner = min((value, number) for number, value in last.items())
    if last[best] - lead > _allowed(noise):
        doubts.append(
            f"at {in_words(transfer.sizes[-1])} trial {winner} is better than trial {best} by "
            f"{last[best] - lead:.3f} nats, more than {_allowed(noise):.3f}, two standard errors; "
            f"check it with more seeds, or export --trial {winner}"
        )
    lost = [number for number, value in last.items() if not math.isfinite(value)]
    if best in lost:
        doubts.append(f"trial {best} did not end at {in_words(transfer.sizes[-1])}")
    if 1 / transfer.sizes[-1].compute > FARTHEST:
        doubts.append(
            f"the long run takes {1 / transfer.sizes[-1].compute:,.0f} times the compute of the "
            f"largest checked size, beyond {FARTHEST:g}"
        )
    return doubts


def _allowed(noise: float) -> float:
    """Two standard errors of the difference of two runs, in nats."""
    return 2 * math.sqrt(2) * noise


def in_words(size: Size) -> str:
    """Return a size as people write it: 4 layers of 128, 800 steps."""
    config = next(iter(size.configs.values()))
    layers = "1 layer" if config.n_layer == 1 else f"{config.n_layer} layers"
    return f"{layers} of {config.n_embd}, {config.max_steps:,} steps"


def keep_check(transfer: Transfer, check: TransferCheck, runs: Path) -> Path:
    """Write the predictions where `train` finds them; return the file."""
    path = runs / transfer.study.study_name / PREDICTIONS
    known = [(transfer.final[number], value) for number, value in check.predictions.items()]
    keep_predictions(path, known)
    return path


def answer_in_words(transfer: Transfer, check: TransferCheck) -> str:
    """Return the answer in a line: the ranking holds, or why it should not be trusted."""
    shown = ", ".join(f"{value:.2f}" for value in check.correlations)
    if check.doubts:
        return f"do not trust this ranking: {'; '.join(check.doubts)}."
    return (
        f"the ranking holds: rank correlation {shown} over {len(transfer.trials)} configurations, "
        f"and at the largest checked size none is better than trial {transfer.trials[0].number} "
        f"by more than {_allowed(check.noise):.3f} nats, two standard errors of a difference of "
        f"two runs."
    )


def parameters(transfer: Transfer) -> int:
    """Parameters of the long run's model."""
    return num_params(transfer.final[transfer.trials[0].number])
