"""From finished runs to the answer and its words, without training."""

import math
from pathlib import Path

import numpy as np
import pytest
from stored_studies import STUDY
from stored_verdicts import OWN, Judged, ends

from gpt.errors import InputError
from sweep.analysis import results
from sweep.verdict.compare import YARDSTICKS
from sweep.verdict.confirm_plan import CONFIRM, SCREENING
from sweep.verdict.confirm_results import phase_runs
from sweep.verdict.record import make_record
from sweep.verdict.selection_bias import curse_table
from sweep.verdict.summary_text import paragraph
from sweep.visualization import forest_data, plot_forest


@pytest.fixture
def judged(tmp_path: Path) -> Judged:
    return Judged(tmp_path)


@pytest.mark.parametrize(
    ("factor", "answer"), [(1.05, "worse"), (0.95, "better"), (1.0, "equivalent")]
)
def test_an_arm_is_judged_by_its_pairs(judged: Judged, factor: float, answer: str):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(factor)})
    verdict = judged.verdict()
    (found,) = verdict.comparisons
    assert found.answer == answer
    assert found.ratio == pytest.approx(factor)
    assert found.difference.per_seed == pytest.approx([math.log(factor) + own for own in OWN])
    assert found.bootstrap is None  # no run left its stories
    assert verdict.confirmed[0].perplexity == pytest.approx(60.0)
    assert verdict.confirmed[1].params == {"learning_rate": 1e-3, "n_layer": 2}


def test_an_open_question_says_how_many_seeds_would_settle_it(judged: Judged):
    wild = [0.05, -0.04, 0.03, -0.03, 0.04]
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.01, wild)})
    verdict = judged.verdict()
    assert verdict.comparisons[0].answer == "inconclusive"
    more = verdict.comparisons[0].further_seeds
    assert more is not None
    assert more > 5
    said = paragraph(verdict, (40, 40), None, [5])
    assert "stays open" in said
    assert f"About {more} more seeds" in said


def test_bits_per_byte_are_compared_as_a_difference_of_every_pair(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    readings = {one.yardstick: one for one in judged.verdict().comparisons[0].readings}
    bits = readings["bits per byte"]
    assert bits.answer == "worse"
    assert bits.difference.mean == pytest.approx(math.log(1.05) / math.log(2) / 4)
    assert {stick.name for stick in YARDSTICKS} >= set(readings)


def test_a_diverged_run_counts_as_guessing_uniformly_and_is_named(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1)}, blown_up=1)
    verdict = judged.verdict()
    assert verdict.confirmed[1].blown_up == [verdict.seeds[-1]]
    assert verdict.confirmed[1].unstable is None  # it has been named
    assert verdict.confirmed[1].perplexities[-1] == pytest.approx(300.0)  # the vocabulary
    said = paragraph(verdict, (40, 40), None, [5])
    assert f"1 of the 5 runs of squentropy (seed {verdict.seeds[-1]}) diverged" in said


def test_a_seed_that_ended_far_above_the_others_is_named_and_counts(judged: Judged):
    wild = [0.01, 0.012, 0.008, 0.9, 0.011]
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1, wild)})
    verdict = judged.verdict()
    assert [one.unstable for one in verdict.confirmed] == [None, verdict.seeds[3]]
    assert verdict.comparisons[0].difference.mean == pytest.approx(np.mean(wild))
    said = paragraph(verdict, (40, 40), None, [5])
    assert f"squentropy is not stable at these settings: seed {verdict.seeds[3]} ended at" in said
    assert "Without it the change would be +1.0%." in said
    assert verdict.comparisons[0].answer == "inconclusive"
    assert "more seeds should settle it" in said


def test_a_missing_run_is_refused(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1)[:4], "squentropy": ends(1)[:4]})
    with pytest.raises(InputError, match="every run must be finished"):
        judged.verdict()


def test_before_any_run_a_phase_is_empty(judged: Judged):
    assert phase_runs(judged.question, judged.stored.storage, CONFIRM).empty
    with pytest.raises(InputError, match="every run must be finished"):
        judged.verdict()


THREE = STUDY.replace('["cross_entropy", "squentropy"]', "[1, 2, 3]").replace(
    "[search.loss]", "[search.batch_size]"
)
THREE = THREE.replace('compare = "loss"', 'compare = "batch_size"').replace(
    'when = { loss = "squentropy" }', ""
)


def test_of_three_arms_each_is_compared_with_the_first_and_corrected(tmp_path: Path):
    text = THREE.replace("[search.square_weight]\nlow = 0.1\nhigh = 2.0\n", "")
    judged = Judged(tmp_path, text)
    assert judged.question.arms == ["1", "2", "3"]
    weak = [0.021, 0.004, 0.010, 0.016, 0.026]
    judged.run(CONFIRM, {"1": ends(1, [0] * 5), "2": ends(1, weak), "3": ends(1.2)})
    second, third = judged.verdict().comparisons
    assert (second.arm, second.reference, third.reference) == ("2", "1", "1")
    assert third.answer == "worse"
    assert third.p_holm == pytest.approx(2 * third.difference.p)
    assert second.p_holm == pytest.approx(second.difference.p)


def test_the_words_say_what_is_known_and_warn_of_what_is_not(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    said = paragraph(judged.verdict(), (30, 40), "NOT TinyStories", [3, 5])
    assert said.startswith("squentropy is worse than cross_entropy: its perplexity is 5.0% above")
    assert (
        "By perplexity under the loss's own link and bits per byte the answer is the same" in said
    )
    assert "By top-1 accuracy the question stays open (0.4000 against 0.4000)." in said
    assert "cross_entropy 60.00 (the settings of trial 0)" in said
    assert "the luck of the search is not in them" in said
    assert "not finished: 30 of 40 trials" in said
    assert "answered before, with 3 seeds" in said
    assert said.endswith("Note: NOT TinyStories.")


def test_confirm_runs_are_one_row_each_with_their_last_evaluation(judged: Judged):
    empty = results.confirm_runs_table(judged.stored.storage, judged.stored.study)
    judged.run(SCREENING, {"cross_entropy": [82.0], "squentropy": [80.0]})
    judged.run(CONFIRM, {"cross_entropy": [60.0, 61.0], "squentropy": [66.0, 67.0]}, blown_up=1)
    table = results.confirm_runs_table(judged.stored.storage, judged.stored.study)
    assert empty.empty
    assert list(empty.dtypes) == list(table.dtypes)
    assert list(table["phase"]) == ["screening"] * 2 + ["confirm"] * 4
    assert list(table["number"]) == [0, 1, 0, 1, 2, 3]
    assert list(table["arm"]) == ["cross_entropy", "squentropy"] * 3
    assert list(table["of_trial"]) == [0, 1] * 3
    assert list(table["seed"]) == [2337, 2337, 3337, 3337, 3338, 3338]
    assert list(table["perplexity"][:5]) == pytest.approx([82, 80, 60, 66, 61])
    assert table["cross_entropy"][2] == pytest.approx(math.log(60))
    assert table.loc[5, "outcome"] == "diverged"
    assert table.loc[5, ["perplexity", "accuracy", "step"]].isna().all()


def test_the_winners_curse_is_the_search_against_fresh_seeds_on_the_same_stories(judged: Judged):
    judged.run(SCREENING, {"cross_entropy": [82.0, 84.0, 86.0], "squentropy": [80.0, 80.0, 80.0]})
    first, second = curse_table(judged.question, judged.stored.storage).to_dict("records")
    assert (first["searched"], first["confirmed"]) == (
        80.0,
        pytest.approx((82 * 84 * 86) ** (1 / 3)),
    )
    assert second["ratio"] == pytest.approx(1.0)


def test_the_forest_has_a_ring_per_seed_and_a_diamond_at_the_mean(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    record = make_record(judged.question, judged.stored.storage)
    data = forest_data(record)
    assert list(data["primary"]) == [True, *[False] * (len(data) - 1)]
    assert data["seeds"][0] == pytest.approx([1.05 * math.exp(own) for own in OWN])
    figure = plot_forest(record, record["arms"])
    rings = [trace for trace in figure.data if trace.marker.symbol == "circle-open"]
    assert list(rings[0].x) == pytest.approx(data["seeds"][0])
    margins = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (margins[0].x0, margins[0].x1) == (pytest.approx(1 / 1.01), 1.01)
