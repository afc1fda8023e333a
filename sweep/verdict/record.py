"""All that is said about a sweep's verdict, as plain values: for JSON, the study and the report.

The study keeps it as its attribute "verdict"; sweep.report.facts.answer reads its words there.
"""

import math
from typing import Any

import optuna
from optuna.storages import RDBStorage

from sweep.analysis import results
from sweep.verdict.budget import ledger_table, shadow_table
from sweep.verdict.compare import judge
from sweep.verdict.original_study import placements
from sweep.verdict.request import Question
from sweep.verdict.selection_bias import curse_table
from sweep.verdict.summary_text import headline, paragraph

ATTRIBUTE = "verdict"

Record = dict[str, Any]


def make_record(question: Question, storage: RDBStorage) -> Record:
    """Judge, and say it.

    Returns:
        answer (the paragraph), headline (its sentences that answer), arms, text (the name of what
        was trained on), looks (numbers of seeds of this answer and earlier ones), the fields of
        judge.Verdict, and the tables ledger, winners_curse, shadows and original as lists of rows.
        A figure that is missing or infinite is None.

    Raises:
        InputError: a run is missing.
    """
    study = question.study
    verdict = judge(question, storage)
    trials = results.trials_table(study)
    evaluations = results.evaluations_table(storage, study.study_name)
    finished = int((~trials["outcome"].isin(results.UNFINISHED)).sum())
    looks = _looks(study, question)
    notice = study.user_attrs["data"].get("notice")
    search = (finished, study.user_attrs.get("n_trials", finished))
    record = {
        "answer": paragraph(verdict, search, notice, looks),
        "headline": headline(verdict),
        "arms": question.arms,
        "text": study.user_attrs["data"]["name"],
        "looks": looks,
        **verdict.as_dict(),
        "ledger": ledger_table(trials, evaluations, question.spec).to_dict("records"),
        "winners_curse": curse_table(question, storage).to_dict("records"),
        "shadows": shadow_table(study, question.arms, question.top).to_dict("records"),
        "original": [vars(placed) for placed in placements(study)],
    }
    return dict(_plain(record))


def keep(study: optuna.Study, record: Record) -> None:
    """Store a record with its study; its words are then the study's answer everywhere."""
    study.set_user_attr(ATTRIBUTE, record)


def kept(study: optuna.Study) -> Record | None:
    """The last record that was stored with the study."""
    record: Record | None = study.user_attrs.get(ATTRIBUTE)
    return record


def _looks(study: optuna.Study, question: Question) -> list[int]:
    """With how many seeds this question has been answered, this time included."""
    before = kept(study)
    looks = list(before["looks"]) if before and before["arms"] == question.arms else []
    return looks if looks[-1:] == [question.seeds] else [*looks, question.seeds]


def _plain(value: Any) -> Any:
    """Values that JSON has: no numpy, no NaN, no tuples."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
