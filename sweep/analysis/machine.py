"""Use of the machine by a sweep: slots, speed and memory of each trial, and where the time went."""

import math
from collections.abc import Mapping
from typing import Any

import optuna
import pandas as pd

from gpt.config import TrainConfig
from sweep.analysis.results import trials_table
from sweep.storage.schema import study_attrs

TIME_KINDS = (  # of a slot's time, in the order in which they are drawn
    "training, complete trials",
    "training, trials that ended early",
    "evaluation",
    "starting and ending trials",
    "no trial",
)


def machine_table(study: optuna.Study, evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trial that has started, by number.

    Slots are found again from the times: a trial takes the slot that has been free for the shortest
    time. Training time follows from tokens and speed at each evaluation, if a trial counts tokens;
    what else it measured is evaluation, and what it did not measure is the start and the end of its
    process.

    Args:
        study: The study.
        evaluations: results.evaluations_table.

    Returns:
        number             int64
        arm, outcome       string   as in results.trials_table
        slot               int64    1, 2, ...: trials that ran at the same time have different ones
        start, end         float64  seconds since the first trial started
        training           float64  seconds of optimiser steps; NaN where no speed was measured
        evaluation         float64  seconds of measuring, and of writing checkpoints
        other              float64  seconds in which it had its slot and did neither
        tokens_per_second  float64  of training, over the whole trial
        peak_memory_bytes  float64  of the device; of the process on the CPU
    """
    clock = {
        trial.number: (trial.datetime_start.timestamp(), trial.datetime_complete)
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_start is not None
    }
    begin = min((start for start, _ in clock.values()), default=0.0)
    table = trials_table(study).set_index("number")[["arm", "outcome"]].loc[list(clock)]
    measured = _measured(evaluations).reindex(table.index)
    ends = [end.timestamp() - begin if end else math.nan for _, end in clock.values()]
    table["start"] = [start - begin for start, _ in clock.values()]
    running = table["start"] + measured["elapsed"].fillna(0.0)  # as far as it is known
    table["end"] = pd.Series(ends, index=table.index, dtype="float64").fillna(running)
    table["slot"] = _slots(table)
    table["training"] = measured["training"]
    table["evaluation"] = (measured["elapsed"] - measured["training"]).clip(lower=0)
    taken = table["end"] - table["start"]
    table["other"] = (taken - measured["elapsed"].fillna(0.0)).clip(lower=0)
    table["tokens_per_second"] = measured["tokens"] / measured["training"]
    table["peak_memory_bytes"] = measured["memory"]
    columns = ["number", "arm", "outcome", "slot", "start", "end", "training", "evaluation"]
    columns += ["other", "tokens_per_second", "peak_memory_bytes"]
    return table.reset_index().astype({"slot": "int64"})[columns]


def _measured(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Sum up the evaluations of each trial: training and elapsed seconds, tokens, memory."""
    ordered = evaluations.sort_values(["trial_number", "step"]).astype({"tokens": "float64"})
    trial = ordered["trial_number"]
    speed = ordered["tokens_per_second"].where(ordered["tokens_per_second"] > 0)
    new = ordered["tokens"] - ordered.groupby(trial)["tokens"].shift(fill_value=0.0)
    ordered = ordered.assign(training=new / speed)
    of_trial = ordered.groupby(trial)
    table = pd.DataFrame(
        {
            "training": of_trial["training"].sum(min_count=1),
            "elapsed": of_trial["elapsed_seconds"].last(),
            "tokens": of_trial["tokens"].last(),
            "memory": of_trial["peak_memory_bytes"].max(),
        }
    ).astype("float64")
    table["training"] = table["training"].fillna(table["elapsed"])  # of programs without tokens
    known = table[["tokens", "memory"]]
    table[["tokens", "memory"]] = known.where(known > 0)
    return table


def _slots(table: pd.DataFrame) -> list[int]:
    """Number the slots of trials, whose index is their number."""
    free_since: list[float] = []  # by slot
    found: dict[Any, int] = {}
    ordered = table.sort_values("start", kind="stable")
    for number, start, end in zip(ordered.index, ordered["start"], ordered["end"], strict=True):
        free = [slot for slot, since in enumerate(free_since) if since <= start]
        slot = max(free, key=lambda one: free_since[one], default=len(free_since))
        free_since[slot : slot + 1] = [end]
        found[number] = slot + 1
    return [found[number] for number in table.index]


def time_table(study: optuna.Study, machine: pd.DataFrame) -> pd.DataFrame:
    """Divide the time of each slot among TIME_KINDS; `machine` is machine_table.

    A sweep's time is that of all its calls together, where it is known, else from its first start
    to its last end.

    Returns:
        slot, kind, seconds, share (of the slot's time). Every slot has every kind.
    """
    if machine.empty:
        return pd.DataFrame(columns=["slot", "kind", "seconds", "share"])
    wall = study_attrs(study).wall_seconds or float(machine["end"].max())
    rows: list[tuple[int, str, float, float]] = []
    for slot in sorted(machine["slot"].unique()):
        of_slot = machine[machine["slot"] == slot]
        complete = of_slot["outcome"] == "complete"
        seconds = [
            of_slot["training"][complete].sum(),
            of_slot["training"][~complete].sum(),
            of_slot["evaluation"].sum(),
            of_slot["other"].sum(),
        ]
        seconds.append(max(0.0, wall - sum(seconds)))
        total = sum(seconds) or 1.0
        rows += [
            (int(slot), kind, float(one), float(one / total))
            for kind, one in zip(TIME_KINDS, seconds, strict=True)
        ]
    return pd.DataFrame(rows, columns=["slot", "kind", "seconds", "share"])


def flops_per_token(params: Mapping[str, Any], train: Mapping[str, Any], n_params: float) -> float:
    """Return the floating-point operations that training spends on a token.

    6 N + 12 L C T, of N weights, L layers of C columns and T tokens of context.

    Args:
        params: Parameters of the trial.
        train: The study's fields of TrainConfig, which hold for what is not searched.
        n_params: Weights of the model, without the position embedding.

    Source:
        Chowdhery et al. (2022), "PaLM", arXiv:2204.02311, appendix B; nanoGPT's estimate_mfu.
    """
    L, C, T = (
        float(params.get(name, train.get(name, TrainConfig.model_fields[name].default)))
        for name in ("n_layer", "n_embd", "block_size")
    )
    return 6 * n_params + 12 * L * C * T
