"""From finished runs to answers: each arm against the reference, on every yardstick. Reads only.

The primary yardstick is cross-entropy under softmax in nats per token, shown as a ratio of
perplexities. The others repeat the question for whoever suspects that an arm loses only by the
probabilities that softmax gives its logits. All use the configurations that screening chose.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from optuna.storages import RDBStorage

from sweep.analysis.results import CONFIRM
from sweep.verdict.confirm_plan import seeds_of
from sweep.verdict.confirm_results import by_seed, chosen_trials, phase_runs, story_nats
from sweep.verdict.request import Question
from sweep.verdict.statistics import (
    Answer,
    Difference,
    answers,
    further_seeds,
    holm,
    outlying,
    paired_difference,
    two_level_bootstrap,
)


@dataclass(frozen=True)
class Yardstick:
    """A figure of a run's last evaluation, and how two arms are compared by it."""

    column: str
    name: str
    is_perplexity: bool = False  # compared as a ratio, with the margin of the study
    higher_is_better: bool = False


YARDSTICKS = (
    Yardstick("perplexity", "perplexity", is_perplexity=True),
    Yardstick("link_perplexity", "perplexity under the loss's own link", is_perplexity=True),
    Yardstick("temperature_perplexity", "perplexity at the best temperature", is_perplexity=True),
    Yardstick("bits_per_byte", "bits per byte"),
    Yardstick("accuracy", "top-1 accuracy", higher_is_better=True),
    Yardstick("calibration_error", "calibration error"),
)


@dataclass(frozen=True)
class Reading:
    """One comparison by one yardstick."""

    yardstick: str
    is_perplexity: bool
    arm_mean: float  # over the seeds; of perplexities, the geometric mean
    reference_mean: float
    difference: Difference  # of perplexities, in nats
    answer: Answer


@dataclass(frozen=True)
class Comparison:
    """One arm against the reference."""

    arm: str
    reference: str
    answer: Answer
    difference: Difference  # nats per token; below 0 the arm is better
    p_holm: float
    ratio: float  # of perplexities, arm to reference, and the ends of its interval
    ratio_low: float
    ratio_high: float
    further_seeds: int | None  # where inconclusive: None is more than anybody would run
    bootstrap: tuple[float, float] | None  # a second interval of the ratio, seeds and stories
    readings: list[Reading]  # by the other yardsticks


@dataclass(frozen=True)
class Confirmed:
    """What stands for an arm: a configuration of the sweep, trained on fresh seeds."""

    arm: str
    trial: int  # the sweep's number
    params: dict[str, Any]
    perplexities: list[float]  # on held-back stories, by seed
    perplexity: float  # their geometric mean: exp of the mean cross-entropy
    blown_up: list[int]  # seeds whose runs diverged, ran out of memory or took too long
    unstable: int | None  # a seed that ended far above all others, if none blew up


@dataclass(frozen=True)
class Verdict:
    """The answer to a question."""

    study: str
    margin: float  # of perplexity
    seeds: list[int]
    held_back_stories: int | None
    held_back_tokens: int | None
    confirmed: list[Confirmed]
    comparisons: list[Comparison]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)


def judge(question: Question, storage: RDBStorage) -> Verdict:
    """Compare each arm with the first.

    Raises:
        InputError: a run is missing.
    """
    runs = phase_runs(question, storage, CONFIRM)
    seeds = seeds_of(question.spec, CONFIRM, question.seeds)
    trials = chosen_trials(question, storage)
    chosen = {arm: trial.number for arm, trial in trials.items()}
    confirmed = [
        _confirmed(arm, trial.number, _shown(question, trial.params), runs, seeds)
        for arm, trial in trials.items()
    ]
    stories = story_nats(runs, chosen[question.arms[0]], seeds)
    return Verdict(
        study=question.study.study_name,
        margin=question.spec.verdict.margin,
        seeds=seeds,
        held_back_stories=len(stories[1]) if stories else None,
        held_back_tokens=int(stories[1].sum()) if stories else None,
        confirmed=confirmed,
        comparisons=_comparisons(question, runs, chosen, seeds),
    )


def _shown(question: Question, params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != question.spec.compare}


def _confirmed(
    arm: str, trial: int, params: dict[str, Any], runs: pd.DataFrame, seeds: Sequence[int]
) -> Confirmed:
    nats = by_seed(runs, trial, seeds, "cross_entropy")
    mine = runs[(runs["of_trial"] == trial) & runs["seed"].isin(seeds)]
    blown_up = sorted(int(seed) for seed in mine[mine["outcome"] != "complete"]["seed"])
    far = None if blown_up else outlying(nats)
    return Confirmed(
        arm=arm,
        trial=trial,
        params=params,
        perplexities=[math.exp(value) for value in nats],
        perplexity=math.exp(float(np.mean(nats))),
        blown_up=blown_up,
        unstable=None if far is None else seeds[far],
    )


def _comparisons(
    question: Question, runs: pd.DataFrame, chosen: dict[str, int], seeds: Sequence[int]
) -> list[Comparison]:
    reference, *others = question.arms
    margin = math.log1p(question.spec.verdict.margin)
    nats = {arm: by_seed(runs, trial, seeds, "cross_entropy") for arm, trial in chosen.items()}
    differences = [paired_difference(nats[arm], nats[reference], margin) for arm in others]
    judging = runs[runs["of_trial"].isin(chosen.values()) & runs["seed"].isin(seeds)]
    readings = [
        _readings(runs, chosen, reference, others, seeds, stick, margin) for stick in _used(judging)
    ]
    corrected = holm([difference.p for difference in differences])
    return [
        Comparison(
            arm=arm,
            reference=reference,
            answer=answer,
            difference=difference,
            p_holm=p,
            ratio=math.exp(difference.mean),
            ratio_low=math.exp(difference.low),
            ratio_high=math.exp(difference.high),
            further_seeds=further_seeds(difference, margin, len(others))
            if answer == "inconclusive"
            else 0,
            bootstrap=_bootstrap(runs, chosen[arm], chosen[reference], seeds),
            readings=[of_stick[index] for of_stick in readings],
        )
        for index, (arm, difference, answer, p) in enumerate(
            zip(others, differences, answers(differences), corrected, strict=True)
        )
    ]


def _used(runs: pd.DataFrame) -> list[Yardstick]:
    """The yardsticks beside the primary one that every one of these runs was measured by."""
    known = [stick for stick in YARDSTICKS[1:] if stick.column in runs]
    return [stick for stick in known if runs[stick.column].notna().all()]


def _readings(
    runs: pd.DataFrame,
    chosen: dict[str, int],
    reference: str,
    others: list[str],
    seeds: Sequence[int],
    stick: Yardstick,
    margin: float,
) -> list[Reading]:
    """One yardstick, each arm against the reference."""
    read = {arm: _figures(runs, trial, seeds, stick) for arm, trial in chosen.items()}
    margin = margin if stick.is_perplexity else 0.0
    differences = [paired_difference(read[arm], read[reference], margin) for arm in others]
    return [
        Reading(
            yardstick=stick.name,
            is_perplexity=stick.is_perplexity,
            arm_mean=_mean(read[arm], stick),
            reference_mean=_mean(read[reference], stick),
            difference=difference,
            answer=_turned(answer) if stick.higher_is_better else answer,
        )
        for arm, difference, answer in zip(others, differences, answers(differences), strict=True)
    ]


def _figures(runs: pd.DataFrame, trial: int, seeds: Sequence[int], stick: Yardstick) -> list[float]:
    figures = by_seed(runs, trial, seeds, stick.column)
    return [math.log(figure) for figure in figures] if stick.is_perplexity else figures


def _mean(figures: list[float], stick: Yardstick) -> float:
    mean = float(np.mean(figures))
    return math.exp(mean) if stick.is_perplexity else mean


def _turned(answer: Answer) -> Answer:
    turned: dict[Answer, Answer] = {"better": "worse", "worse": "better"}
    return turned.get(answer, answer)


def _bootstrap(
    runs: pd.DataFrame, trial: int, reference: int, seeds: Sequence[int]
) -> tuple[float, float] | None:
    """The second interval, of the ratio of perplexities, where every run left its stories."""
    mine, other = story_nats(runs, trial, seeds), story_nats(runs, reference, seeds)
    if mine is None or other is None:
        return None
    low, high = two_level_bootstrap(mine[0], other[0], mine[1])
    return math.exp(low), math.exp(high)
