"""Compare arms over several searches: tuned with so many trials, which is better?

Each search has a winner for each arm, and the mean difference of a pair of winners over their
seeds. These means are independent of each other, for no two searches share a seed, so their t
interval has both levels in it: the luck of the search and that of the seeds. It is the interval of
a balanced nested analysis of variance. tests/benchmarks/searches.json has what others are worth.

Source:
    Bouthillier et al. (2021), "Accounting for Variance in Machine Learning Benchmarks",
    arXiv:2103.03098: the choice of hyperparameters is a source of variance as seeds are; Sivaprasad
    et al. (2020), "Optimizer Benchmarking Needs to Account for Hyperparameter Tuning",
    arXiv:1910.11758: what is compared is an arm with its budget; Wen et al. (2025), "Fantastic
    Pretraining Optimizers and Where to Find Them", arXiv:2509.02046: unequal tuning makes
    optimizers look 1.4 to 2 times as fast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.storages import RDBStorage

from sweep.analysis.study_reader import rows_of
from sweep.verdict.budget import ledger_table
from sweep.verdict.compare import Comparison, Verdict, judge, of_arm_to_reference
from sweep.verdict.interim.ledger import (
    extended,
    of_searches,
    search_analysis,
    stored_analyses,
)
from sweep.verdict.request import VerdictRequest
from sweep.verdict.searches.plan import progress
from sweep.verdict.searches.run import request_of
from sweep.verdict.statistics import (
    ERROR_RATE,
    Difference,
    SettingsAnswer,
    adjusted,
    answers,
    paired_difference,
    search_error_rate,
)


@dataclass(frozen=True)
class SearchesComparison:
    """One arm against the reference, each as tuned by all searches."""

    arm: str
    reference: str
    answer: SettingsAnswer  # about the arms with this budget
    analysis: int  # this is the nth analysis of the two arms over searches
    analysed_searches: list[int]  # of all their analyses so far, this one included
    lost_pairs: int  # of all searches, see compare.Comparison
    difference: Difference  # nats per token; of the searches, not of seeds
    p_adjusted: float
    ratio: float
    ratio_low: float
    ratio_high: float
    only_analysis: tuple[
        float, float
    ]  # interval of the ratio, as though there were no other analysis
    between_searches: float  # deviation of the true differences of winners, nats
    between_seeds: float  # deviation of pairs within a search


@dataclass(frozen=True)
class SearchesVerdict:
    """The answer over searches, and what each of them found."""

    searches: int
    trials: int  # of each search, all arms together
    arms: int  # that shared them
    seeds: int  # that confirm the winners of each
    comparisons: list[SearchesComparison]
    of_each: list[dict[str, Any]]  # search, study, confirmed, comparisons
    ledger: list[dict[str, Any]]  # budget.ledger_table of each, with the search


def judge_searches(request: VerdictRequest, storage: RDBStorage, searches: int) -> SearchesVerdict:
    """Compare each arm with the first over searches and seeds.

    Raises:
        InputError: a run is missing.
    """
    requests = [request_of(request, storage, number) for number in range(1, searches + 1)]
    verdicts = [judge(one, storage) for one in requests]
    _, total = progress(request.study)
    return SearchesVerdict(
        searches=searches,
        trials=total,
        arms=len(request.spec.arms),
        seeds=request.seeds,
        comparisons=_comparisons(request, verdicts, total),
        of_each=[_of_search(number, verdict) for number, verdict in enumerate(verdicts, start=1)],
        ledger=[
            {"search": number, **row}
            for number, one in enumerate(requests, start=1)
            for row in rows_of(ledger_table(one.study, one.spec, storage))
        ],
    )


def _comparisons(
    request: VerdictRequest, verdicts: Sequence[Verdict], trials: int
) -> list[SearchesComparison]:
    reference, *others = request.arms
    margin = math.log1p(request.spec.verdict.margin)
    pairs = [[verdict.comparisons[index] for verdict in verdicts] for index in range(len(others))]
    lost = [sum(one.lost_pairs for one in of_arm) for of_arm in pairs]
    means = [[one.difference.mean for one in of_arm] for of_arm in pairs]
    nothing = [0.0] * len(verdicts)
    ledgers = [_place(request, arm, verdicts, trials) for arm in others]
    differences = [
        paired_difference(of_arm, nothing, None if both else margin, search_error_rate(nth))
        for of_arm, both, (nth, _) in zip(means, lost, ledgers, strict=True)
    ]
    corrected = adjusted([difference.p for difference in differences], differences)
    said = of_arm_to_reference(request, answers(differences))
    return [
        _comparison(arm, reference, answer, ledger, difference, p, of_arm)
        for arm, answer, ledger, difference, p, of_arm in zip(
            others, said, ledgers, differences, corrected, pairs, strict=True
        )
    ]


def _comparison(
    arm: str,
    reference: str,
    answer: SettingsAnswer,
    ledger: tuple[int, list[int]],
    difference: Difference,
    p: float,
    pairs: Sequence[Comparison],
) -> SearchesComparison:
    once = paired_difference(difference.per_seed, [0.0] * len(pairs), error_rate=ERROR_RATE)
    within = float(np.mean([one.difference.sd**2 for one in pairs]))
    seeds = pairs[0].difference.seeds
    return SearchesComparison(
        arm=arm,
        reference=reference,
        answer=answer,
        analysis=ledger[0],
        analysed_searches=ledger[1],
        lost_pairs=sum(one.lost_pairs for one in pairs),
        difference=difference,
        p_adjusted=p,
        ratio=math.exp(difference.mean),
        ratio_low=math.exp(difference.low),
        ratio_high=math.exp(difference.high),
        only_analysis=(math.exp(once.low), math.exp(once.high)),
        between_searches=math.sqrt(max(0.0, difference.sd**2 - within / seeds)),
        between_seeds=math.sqrt(within),
    )


def _place(
    request: VerdictRequest, arm: str, verdicts: Sequence[Verdict], trials: int
) -> tuple[int, list[int]]:
    """Return which analysis this is, from 1 on, and the searches of all."""
    winners = [{one.arm: one.trial for one in verdict.confirmed} for verdict in verdicts]
    this = search_analysis(winners, arm, request.arms[0], request.seeds, trials)
    known = of_searches(extended(stored_analyses(request.study), [this]), this)
    return known.index(this) + 1, [one["searches"] for one in known]


def _of_search(number: int, verdict: Verdict) -> dict[str, Any]:
    ratios = {one.arm: one.ratio for one in verdict.comparisons}
    return {
        "search": number,
        "study": verdict.study,
        "winners": [
            {
                "arm": one.arm,
                "trial": one.trial,
                "params": one.params,
                "perplexity": one.perplexity,
                "ratio": ratios.get(one.arm),
            }
            for one in verdict.confirmed
        ],
    }
