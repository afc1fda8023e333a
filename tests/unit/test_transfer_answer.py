"""The answer of a transfer check, of losses by hand."""

from pathlib import Path

import pytest
from stored_studies import StoredStudy

from sweep.export.transfer import answer_in_words, assess, plan_transfer


@pytest.mark.parametrize(("lead", "answer"), [(0.05, "the ranking holds"), (0.07, "do not trust")])
def test_the_lead_that_is_allowed_is_the_one_that_is_said(tmp_path: Path, lead: float, answer: str):
    stored = StoredStudy(tmp_path)
    for end in (50.0, 51.0, 52.0, 53.0):
        stored.add("cross_entropy", [end])
    plan = plan_transfer(stored.study, {"steps": 4000}, "cross_entropy", top=2, sizes=1)
    losses = [3.0, 3.0 - lead, 3.2, 3.4]
    numbers = [trial.number for trial in plan.trials]
    first = {n: [loss, loss + 0.03] for n, loss in zip(numbers, sorted(losses), strict=True)}
    larger = {n: [loss - 0.2] for n, loss in zip(numbers, losses, strict=True)}
    words = answer_in_words(plan, assess(plan, [first, larger]))
    assert words.startswith(answer)
    assert "more than 0.060" in words  # 2 sqrt(2) times 0.03 / sqrt(2)
