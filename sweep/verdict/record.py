"""The record of a verdict as plain values: for JSON, the study and the report.

The study keeps it as its attribute "verdict", and sweep.analysis.study_reader shows its words.
"""

from dataclasses import asdict
from typing import Any

import optuna
from optuna.storages import RDBStorage

from sweep.storage.schema import set_study_attrs, study_attrs
from sweep.study.format import json_values
from sweep.verdict.budget import baseline_table, ledger_table, shadow_table, taken_over
from sweep.verdict.compare import judge
from sweep.verdict.interim.ledger import extended, make_analysis, search_analysis, stored_analyses
from sweep.verdict.request import VerdictRequest
from sweep.verdict.searches import words
from sweep.verdict.searches.compare import judge_searches
from sweep.verdict.searches.plan import progress
from sweep.verdict.selection_bias import curse_table
from sweep.verdict.summary_text import LUCK_IS_LEFT_OUT, SEARCH_LUCK, headline, paragraph

Record = dict[str, Any]


def make_record(request: VerdictRequest, storage: RDBStorage) -> Record:
    """Judge, and put the answer into words.

    Returns:
        answer (the paragraph), headline (its sentences that answer, one per comparison),
        answers_are_about (the settings, not the arms), search_luck (searches of each arm, whether
        their luck is in the intervals, and how often that makes equal arms look unequal), arms,
        text (the name of what was trained on), the fields of compare.Verdict, background (of the
        study file), and the tables ledger, winners_curse, shadows and baselines as lists of rows. A
        figure that is missing or infinite is None.

    Raises:
        InputError: a run is missing.
    """
    study = request.study
    verdict = judge(request, storage)
    finished, _ = progress(study)
    attrs = study_attrs(study)
    data = attrs.data or {}
    search = (finished, attrs.n_trials or finished)
    earlier = taken_over(study)
    record = {
        "answer": paragraph(verdict, search, data.get("notice"), earlier),
        "headline": headline(verdict),
        "answers_are_about": "settings",
        "search_luck": {
            "searches": 1,
            "in_the_intervals": False,
            "equal_arms_said_better_or_worse": SEARCH_LUCK,
        },
        "arms": request.arms,
        "text": data["name"],
        **asdict(verdict),
        "background": request.spec.background,
        "ledger": ledger_table(study, request.spec, storage).to_dict("records"),
        "winners_curse": curse_table(request, storage).to_dict("records"),
        "shadows": shadow_table(study, request.arms, request.top).to_dict("records"),
        "baselines": baseline_table(study, request.arms).to_dict("records"),
    }
    return dict(json_values(record))


def add_searches(
    record: Record, request: VerdictRequest, storage: RDBStorage, searches: int
) -> Record:
    """Return a record that answers over searches first, and then as before.

    Args:
        record: make_record's, of the first search.
        request: Its request.
        storage: Of all searches.
        searches: At least 2; all are finished and confirmed.

    Raises:
        InputError: a run is missing.
    """
    found = json_values(asdict(judge_searches(request, storage, searches)))
    answers = words.sentences(found, record["metric"], record["margin"])
    of_settings = record["answer"].replace(f" {LUCK_IS_LEFT_OUT}", "")
    return record | {
        "answer": " ".join([*answers, *words.basis(found), of_settings]),
        "headline": answers,
        "answers_are_about": "arms",
        "search_luck": {"searches": searches, "in_the_intervals": True},
        "searches": found,
        "ledger": found["ledger"],
    }


def keep(study: optuna.Study, record: Record) -> None:
    """Store a record with its study, whose answer it then is everywhere; first its analyses.

    The ledger of interim analyses only grows, whichever arms were compared before.
    """
    ledger = extended(stored_analyses(study), _analyses(record))
    if ledger:
        set_study_attrs(study, interim_analyses=ledger)
    set_study_attrs(study, verdict=record)


def kept(study: optuna.Study) -> Record | None:
    """Return the last record that was stored with the study."""
    return study_attrs(study).verdict


def _analyses(record: Record) -> list[dict[str, Any]]:
    trials = {one["arm"]: one["trial"] for one in record.get("confirmed", [])}
    found = [
        make_analysis(trials, one["arm"], one["reference"], len(record["seeds"]))
        for one in record.get("comparisons", [])
    ]
    if (over := record.get("searches")) is None:
        return found
    winners = [{one["arm"]: one["trial"] for one in each["winners"]} for each in over["of_each"]]
    return found + [
        search_analysis(winners, one["arm"], one["reference"], over["seeds"], over["trials"])
        for one in over["comparisons"]
    ]
