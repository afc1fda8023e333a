"""Compare finished runs: the chosen settings of each arm against the reference's, by every metric.

The study's metric decides, as a ratio of perplexities. The other metrics repeat the comparison for
a reader who suspects that an arm loses only by the probabilities that softmax gives its logits.
Every answer is about the settings that one search found, not about all that an arm could be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from optuna.storages import RDBStorage

from sweep.analysis.phases import CONFIRM
from sweep.analysis.results import metric_of_study
from sweep.study.range_ends import RangeEnd, range_ends
from sweep.study.spec import StudySpec
from sweep.verdict.confirm_plan import seeds_of
from sweep.verdict.confirm_results import NATS, by_seed, chosen_trials, phase_runs, story_nats
from sweep.verdict.interim.ledger import (
    extended,
    make_analysis,
    of_pair,
    question_of,
    stored_analyses,
)
from sweep.verdict.request import VerdictRequest
from sweep.verdict.statistics import (
    ERROR_RATE,
    Difference,
    SettingsAnswer,
    adjusted,
    answers,
    error_rate,
    further_seeds,
    outlier,
    paired_difference,
    two_level_bootstrap,
)


@dataclass(frozen=True)
class ComparedMetric:
    """A figure of a run's last evaluation, and how two arms are compared by it."""

    column: str
    name: str
    is_perplexity: bool = False  # compared as a ratio, with the margin of the study
    unit_of: str | None = None  # a perplexity whose logarithm it is in another unit
    higher_is_better: bool = False


# A metric that is neither a perplexity nor the unit of one has no margin: no equivalence is claimed
# by it. Add one by adding a line.
COMPARED_METRICS = (
    ComparedMetric("perplexity", "perplexity", is_perplexity=True),
    ComparedMetric(
        "link_perplexity", "perplexity under the loss's own link function", is_perplexity=True
    ),
    ComparedMetric(
        "temperature_perplexity", "perplexity at the best temperature", is_perplexity=True
    ),
    ComparedMetric("bits_per_byte", "bits per byte", unit_of="perplexity"),
    ComparedMetric("accuracy", "top-1 accuracy", higher_is_better=True),
    ComparedMetric("calibration_error", "calibration error"),
)


@dataclass(frozen=True)
class MetricComparison:
    """One comparison by one metric besides the study's."""

    metric: str
    is_perplexity: bool
    margin: float | None  # of the difference, in its unit; None: no equivalence is claimed
    arm_mean: float  # over the seeds; of perplexities, the geometric mean
    reference_mean: float
    difference: Difference  # of perplexities, in nats
    p_adjusted: float  # as that of Comparison
    settings_answer: SettingsAnswer


@dataclass(frozen=True)
class Comparison:
    """The chosen settings of one arm against those of the reference."""

    arm: str
    reference: str
    settings_answer: SettingsAnswer
    analysis: int  # this is the nth interim analysis of the two arms
    analysed_seeds: list[int]  # of all their analyses so far, this one included
    question: int  # this is the nth of their questions, see statistics.error_rate
    lost_pairs: int  # seeds whose runs of both arms were lost: no difference, nor its absence
    difference: Difference  # nats per token; below 0 the arm is better, unless it is maximised
    p_adjusted: float  # for the numbers of arms and of interim analyses
    ratio: float  # of perplexities, arm to reference, and the ends of its interval
    ratio_low: float
    ratio_high: float
    only_analysis: tuple[
        float, float
    ]  # interval of the ratio, as though there were no other analysis
    further_seeds: int | None  # where inconclusive: None is more than anybody would run
    next_error_rate: float  # of the interval with that many more seeds
    bootstrap: tuple[float, float] | None  # a second interval of the ratio, seeds and stories
    other_metrics: list[MetricComparison]


@dataclass(frozen=True)
class ConfirmedArm:
    """The settings that stand for an arm: a configuration of the sweep, trained on fresh seeds."""

    arm: str
    trial: int  # the search's number
    params: dict[str, Any]
    range_ends: list[RangeEnd]
    perplexities: list[float]  # on held-back stories, by seed; the study's metric
    perplexity: float  # their geometric mean: exp of the mean nats
    lost_seeds: list[int]  # whose runs diverged, ran out of memory or took too long
    outlier_seed: int | None  # that ended far above all others, where none is lost


@dataclass(frozen=True)
class Verdict:
    """The answer to a request."""

    study: str
    metric: str  # the study's, in words
    is_perplexity: bool
    is_program: bool  # a program of the user's, which keeps no stories back
    margin: float  # of perplexity
    seeds: list[int]
    held_back_stories: int | None
    held_back_tokens: int | None
    confirmed: list[ConfirmedArm]
    comparisons: list[Comparison]


def judge(request: VerdictRequest, storage: RDBStorage) -> Verdict:
    """Compare each arm with the first.

    Raises:
        InputError: a run is missing.
    """
    runs = phase_runs(request, storage, CONFIRM)
    seeds = seeds_of(request.spec, CONFIRM, request.seeds)
    trials = chosen_trials(request, storage)
    chosen = {arm: trial.number for arm, trial in trials.items()}
    maximize = _primary(request).higher_is_better
    confirmed = [
        _confirmed(request.spec, arm, trial.number, trial.params, runs, seeds, maximize)
        for arm, trial in trials.items()
    ]
    stories = story_nats(runs, chosen[request.arms[0]], seeds)
    return Verdict(
        study=request.study.study_name,
        metric=_primary(request).name,
        is_perplexity=metric_of_study(request.study).is_perplexity,
        is_program=request.spec.trainer is not None,
        margin=request.spec.verdict.margin,
        seeds=seeds,
        held_back_stories=len(stories[1]) if stories else None,
        held_back_tokens=int(stories[1].sum()) if stories else None,
        confirmed=confirmed,
        comparisons=_comparisons(request, runs, chosen, seeds),
    )


def _primary(request: VerdictRequest) -> ComparedMetric:
    column = request.spec.metric
    if request.spec.trainer is None:
        return next(metric for metric in COMPARED_METRICS if metric.column == column)
    metric = metric_of_study(request.study)  # compared as a ratio, whatever its unit
    return ComparedMetric(column, metric.name, True, higher_is_better=metric.maximize)


# --- what stands for an arm ------------------------------------------------------------------


def _confirmed(
    spec: StudySpec,
    arm: str,
    trial: int,
    params: Mapping[str, Any],
    runs: pd.DataFrame,
    seeds: Sequence[int],
    maximize: bool,
) -> ConfirmedArm:
    nats = by_seed(runs, trial, seeds, NATS)
    lost = _lost_seeds(runs, trial, seeds)
    far = None if lost else outlier([-value for value in nats] if maximize else nats)
    shown = {name: value for name, value in params.items() if name != spec.compare}
    return ConfirmedArm(
        arm=arm,
        trial=trial,
        params=shown,
        range_ends=list(range_ends(spec.search, shown)),
        perplexities=[math.exp(value) for value in nats],
        perplexity=math.exp(float(np.mean(nats))),
        lost_seeds=lost,
        outlier_seed=None if far is None else seeds[far],
    )


def _lost_seeds(runs: pd.DataFrame, trial: int, seeds: Sequence[int]) -> list[int]:
    mine = runs[(runs["of_trial"] == trial) & runs["seed"].isin(seeds)]
    return sorted(int(seed) for seed in mine[mine["outcome"] != "complete"]["seed"])


# --- comparisons -----------------------------------------------------------------------------


def _comparisons(
    request: VerdictRequest, runs: pd.DataFrame, chosen: dict[str, int], seeds: Sequence[int]
) -> list[Comparison]:
    reference, *others = request.arms
    margin = math.log1p(request.spec.verdict.margin)
    places = [_place(request, chosen, arm, reference) for arm in others]
    rates = [place.error_rate(request.seeds) for place in places]
    nats = {arm: by_seed(runs, trial, seeds, NATS) for arm, trial in chosen.items()}
    lost = {arm: set(_lost_seeds(runs, trial, seeds)) for arm, trial in chosen.items()}
    lost_pairs = [len(lost[arm] & lost[reference]) for arm in others]
    differences = [  # two lost runs count the same, but are not known to be
        paired_difference(nats[arm], nats[reference], None if both else margin, rate)
        for arm, rate, both in zip(others, rates, lost_pairs, strict=True)
    ]
    judging = runs[runs["of_trial"].isin(chosen.values()) & runs["seed"].isin(seeds)]
    by_metric = [
        _by_metric(metric, judging, chosen, seeds, margin, rates)
        for metric in _measured(request.spec, judging)
    ]
    corrected = adjusted([difference.p for difference in differences], differences)
    # Runs leave their stories under softmax.
    softmax = request.spec.metric == "perplexity" and request.spec.trainer is None
    found = []
    said = of_arm_to_reference(request, answers(differences))
    for index, (arm, answer) in enumerate(zip(others, said, strict=True)):
        difference, place = differences[index], places[index]
        once = paired_difference(nats[arm], nats[reference], margin, ERROR_RATE)
        more: int | None = 0
        if answer == "inconclusive" and lost_pairs[index]:
            more = None
        elif answer == "inconclusive":
            more = further_seeds(difference, margin, place.first, place.question, len(others))
        found.append(
            Comparison(
                arm=arm,
                reference=reference,
                settings_answer=answer,
                analysis=place.analysis,
                analysed_seeds=place.analysed_seeds,
                question=place.question,
                lost_pairs=lost_pairs[index],
                difference=difference,
                p_adjusted=corrected[index],
                ratio=math.exp(difference.mean),
                ratio_low=math.exp(difference.low),
                ratio_high=math.exp(difference.high),
                only_analysis=(math.exp(once.low), math.exp(once.high)),
                further_seeds=more,
                next_error_rate=place.error_rate(request.seeds + (more or 1)),
                bootstrap=_bootstrap(runs, chosen[arm], chosen[reference], seeds, rates[index])
                if softmax
                else None,
                other_metrics=[of_metric[index] for of_metric in by_metric],
            )
        )
    return found


def of_arm_to_reference(
    request: VerdictRequest, lower_is: Sequence[SettingsAnswer]
) -> list[SettingsAnswer]:
    """Turn answers around where the study's metric is maximised."""
    if _primary(request).higher_is_better:
        return [_turned(answer) for answer in lower_is]
    return list(lower_is)


@dataclass(frozen=True)
class _Place:
    """The place of an analysis in the ledger."""

    analysis: int
    analysed_seeds: list[int]
    question: int
    first: int  # seeds of the question's first analysis

    def error_rate(self, seeds: int) -> float:
        """Error rate of the interval with so many seeds."""
        return error_rate(seeds, self.first, self.question)


def _place(request: VerdictRequest, chosen: Mapping[str, int], arm: str, reference: str) -> _Place:
    this = make_analysis(chosen, arm, reference, request.seeds)
    analyses = of_pair(extended(stored_analyses(request.study), [this]), this)
    question, first = question_of(analyses, this)
    seeds = [one["seeds"] for one in analyses]
    return _Place(analyses.index(this) + 1, seeds, question, first)


def _measured(spec: StudySpec, runs: pd.DataFrame) -> list[ComparedMetric]:
    """Return the metrics beside the study's that every one of these runs was measured by."""
    others = [metric for metric in COMPARED_METRICS if metric.column != spec.metric]
    known = [metric for metric in others if metric.column in runs]
    return [metric for metric in known if runs[metric.column].notna().all()]


def _by_metric(
    metric: ComparedMetric,
    runs: pd.DataFrame,
    chosen: Mapping[str, int],
    seeds: Sequence[int],
    margin: float,
    rates: Sequence[float],
) -> list[MetricComparison]:
    """Compare each arm with the first by one metric; `margin` is in nats."""
    reference, *others = chosen
    figures = {arm: _figures(runs, trial, seeds, metric) for arm, trial in chosen.items()}
    own_margin = _margin(metric, runs, margin)
    differences = [
        paired_difference(figures[arm], figures[reference], own_margin, rate)
        for arm, rate in zip(others, rates, strict=True)
    ]
    corrected = adjusted([difference.p for difference in differences], differences)
    return [
        MetricComparison(
            metric=metric.name,
            is_perplexity=metric.is_perplexity,
            margin=own_margin,
            arm_mean=_mean(figures[arm], metric),
            reference_mean=_mean(figures[reference], metric),
            difference=difference,
            p_adjusted=p,
            settings_answer=_turned(answer) if metric.higher_is_better else answer,
        )
        for arm, difference, p, answer in zip(
            others, differences, corrected, answers(differences), strict=True
        )
    ]


def _margin(metric: ComparedMetric, runs: pd.DataFrame, margin: float) -> float | None:
    """Return the margin in the metric's unit, of a metric that has one.

    What is a perplexity's logarithm in another unit is the same number, and so has its margin.
    """
    if metric.is_perplexity:
        return margin
    if metric.unit_of is None:
        return None
    return margin * float(runs[metric.column].mean() / np.log(runs[metric.unit_of]).mean())


def _figures(
    runs: pd.DataFrame, trial: int, seeds: Sequence[int], metric: ComparedMetric
) -> list[float]:
    figures = by_seed(runs, trial, seeds, metric.column)
    return [math.log(figure) for figure in figures] if metric.is_perplexity else figures


def _mean(figures: list[float], metric: ComparedMetric) -> float:
    mean = float(np.mean(figures))
    return math.exp(mean) if metric.is_perplexity else mean


def _turned(answer: SettingsAnswer) -> SettingsAnswer:
    turned: dict[SettingsAnswer, SettingsAnswer] = {"better": "worse", "worse": "better"}
    return turned.get(answer, answer)


def _bootstrap(
    runs: pd.DataFrame, trial: int, reference: int, seeds: Sequence[int], rate: float
) -> tuple[float, float] | None:
    """Return the second interval of the ratio, where every run left its stories."""
    mine, other = story_nats(runs, trial, seeds), story_nats(runs, reference, seeds)
    if mine is None or other is None:
        return None
    low, high = two_level_bootstrap(mine[0], other[0], mine[1], rate)
    return math.exp(low), math.exp(high)
