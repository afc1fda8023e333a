"""From finished runs to the answer and its words, without training."""

import html
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from stored_studies import PROGRAM, STUDY
from stored_verdicts import OWN, Judged, ends

from gpt.errors import InputError
from gpt.events import STORIES_FILE
from sweep.analysis import phases
from sweep.analysis.study_reader import read_study
from sweep.dashboard.notes import dashboard_figures
from sweep.report.report import write_report
from sweep.report.verdict_section import make_section
from sweep.storage.reader import load_study
from sweep.storage.tables import evaluations
from sweep.verdict.compare import COMPARED_METRICS
from sweep.verdict.confirm_plan import CONFIRM, SCREENING
from sweep.verdict.confirm_results import chosen_trials, phase_runs
from sweep.verdict.record import keep, make_record
from sweep.verdict.request import make_request
from sweep.verdict.selection_bias import curse_table
from sweep.verdict.statistics import error_rate
from sweep.verdict.summary_text import SEARCH_LUCK, paragraph, table_columns, table_rows
from sweep.visualization import plot_forest
from sweep.visualization.confirm import forest_data
from sweep.visualization.figures import figure

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


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
    assert found.settings_answer == answer
    assert found.ratio == pytest.approx(factor)
    assert found.difference.per_seed == pytest.approx([math.log(factor) + own for own in OWN])
    assert found.bootstrap is None  # no run left its stories
    assert verdict.confirmed[0].perplexity == pytest.approx(60.0)
    assert verdict.confirmed[1].params == {"learning_rate": 1e-3, "n_layer": 2}


def test_an_open_comparison_says_how_many_seeds_would_settle_it_and_their_price(judged: Judged):
    wild = [0.05, -0.04, 0.03, -0.03, 0.04]
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.01, wild)})
    verdict = judged.verdict()
    assert verdict.comparisons[0].settings_answer == "inconclusive"
    more = verdict.comparisons[0].further_seeds
    assert more is not None
    assert more > 5
    said = paragraph(verdict, (40, 40), None)
    assert "it stays open whether squentropy is better than cross_entropy" in said
    assert f"About {more} more seeds" in said
    level = f"{100 * (1 - error_rate(5 + more, 5)):.4g}%"
    assert f"The interval with {5 + more} seeds is of {level}" in said


@pytest.mark.parametrize("factor", [1.0, 1.006, 1.05])
def test_bits_per_byte_have_the_answer_of_the_perplexity_that_they_are_a_unit_of(
    judged: Judged, factor: float
):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(factor)})
    (found,) = judged.verdict().comparisons
    bits = next(one for one in found.other_metrics if one.metric == "bits per byte")
    assert bits.settings_answer == found.settings_answer
    assert bits.difference.p_equivalent == pytest.approx(found.difference.p_equivalent)
    assert bits.difference.mean == pytest.approx(math.log(factor) / math.log(2) / 4)
    assert bits.margin == pytest.approx(math.log(1.01) / math.log(2) / 4)


def test_without_a_margin_of_its_own_a_metric_never_says_equivalent(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1)})
    (found,) = judged.verdict().comparisons
    assert found.settings_answer == "equivalent"
    assert {one.name for one in COMPARED_METRICS} >= {one.metric for one in found.other_metrics}
    without = {one.metric: one for one in found.other_metrics if one.margin is None}
    assert set(without) == {"top-1 accuracy", "calibration error"}  # equal in all runs
    assert {one.settings_answer for one in without.values()} == {"inconclusive"}
    assert {one.difference.p_equivalent for one in without.values()} == {None}
    said = paragraph(judged.verdict(), (40, 40), None)
    assert "By top-1 accuracy (0.4000 against 0.4000) and calibration error" in said
    assert "none is ruled out, for want of a margin" in said


def test_a_diverged_run_counts_as_guessing_uniformly_and_is_named(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1)}, diverged=1)
    verdict = judged.verdict()
    assert verdict.confirmed[1].lost_seeds == [verdict.seeds[-1]]
    assert verdict.confirmed[1].outlier_seed is None  # it has been named
    assert verdict.confirmed[1].perplexities[-1] == pytest.approx(300.0)  # the vocabulary
    said = paragraph(verdict, (40, 40), None)
    assert f"1 of the 5 runs of squentropy (seed {verdict.seeds[-1]}) diverged" in said


@pytest.mark.parametrize("diverged", [10, 6])
def test_pairs_that_were_lost_in_both_arms_are_no_agreement(judged: Judged, diverged: int):
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1)}, diverged=diverged)
    (found,) = judged.verdict().comparisons
    assert found.lost_pairs == diverged // 2
    assert (found.settings_answer, found.further_seeds) == ("inconclusive", None)
    (sentence,) = make_record(judged.request, judged.stored.storage)["headline"]
    assert sentence.startswith(f"{diverged // 2} of 5 pairs of runs")


def test_a_program_whose_seeds_all_end_alike_is_warned_of(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": [61.0] * 5})
    said = paragraph(judged.verdict(), (40, 40), None)
    assert said.count("check that the program uses its seed") == 1
    assert "All 5 runs of squentropy ended at the same perplexity" in said


def test_a_seed_that_ended_far_above_the_others_is_named_and_counts(judged: Judged):
    wild = [0.01, 0.012, 0.008, 0.9, 0.011]
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1, wild)})
    verdict = judged.verdict()
    assert [one.outlier_seed for one in verdict.confirmed] == [None, verdict.seeds[3]]
    assert verdict.comparisons[0].difference.mean == pytest.approx(np.mean(wild))
    said = paragraph(verdict, (40, 40), None)
    assert f"squentropy is not stable at these settings: seed {verdict.seeds[3]} ended at" in said
    assert "Without it the change would be +1.03%." in said
    assert verdict.comparisons[0].settings_answer == "inconclusive"
    assert "more seeds should settle it" in said


def test_a_missing_run_is_refused(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1)[:4], "squentropy": ends(1)[:4]})
    with pytest.raises(InputError, match="every run must be finished"):
        judged.verdict()


def test_the_answer_says_on_how_many_stories_it_rests(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1)})
    for folder in phase_runs(judged.request, judged.stored.storage, CONFIRM)["run_dir"]:
        Path(folder).mkdir(parents=True)
        (Path(folder) / STORIES_FILE).write_text('{"nats": [40.0, 80.0], "tokens": [10, 20]}')
    verdict = judged.verdict()
    assert (verdict.held_back_stories, verdict.held_back_tokens) == (2, 30)
    assert "30 tokens of 2 validation stories" in paragraph(verdict, (40, 40), None)


def test_the_budget_of_an_arm_counts_trials_that_took_too_long(judged: Judged):
    judged.stored.add("squentropy", [], outcome="timeout")
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1)})
    record = make_record(judged.request, judged.stored.storage)
    for one in record["ledger"]:
        del one["oom"]  # as an old record
    section = make_section(record)
    assert section is not None
    budget = next(table for table in section.tables if "budget" in table.caption)
    counts = dict(zip(budget.columns, budget.rows[1], strict=True))
    assert (counts["asked"], counts["timeout"], counts["oom"]) == ("2", "1", "0")


def test_before_any_run_a_phase_is_empty(judged: Judged):
    assert phase_runs(judged.request, judged.stored.storage, CONFIRM).empty
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
    assert judged.request.arms == ["1", "2", "3"]
    weak = [0.021, 0.004, 0.010, 0.016, 0.026]
    judged.run(CONFIRM, {"1": ends(1, [0] * 5), "2": ends(1, weak), "3": ends(1.2)})
    second, third = judged.verdict().comparisons
    assert (second.arm, second.reference, third.reference) == ("2", "1", "1")
    assert third.settings_answer == "worse"
    assert third.p_adjusted == pytest.approx(2 * 0.05 / 0.03 * third.difference.p)
    assert second.p_adjusted == pytest.approx(0.05 / 0.03 * second.difference.p)


def test_an_open_answer_of_several_says_why_its_interval_seems_to_settle_it(tmp_path: Path):
    text = THREE.replace("[search.square_weight]\nlow = 0.1\nhigh = 2.0\n", "")
    judged = Judged(tmp_path, text)
    weak = [0.026, 0.003, 0.013, 0.020, 0.032]  # p = 0.02, and 0.02 again of the other arm
    judged.run(CONFIRM, {"1": ends(1, [0] * 5), "2": ends(1, weak), "3": ends(1, weak[::-1])})
    record = make_record(judged.request, judged.stored.storage)
    for one in record["comparisons"]:
        assert one["settings_answer"] == "inconclusive"
        assert one["ratio_low"] > 1
    assert record["answer"].count("corrected for 2 comparisons it does not") == 2
    section = make_section(record)
    assert section is not None
    metrics = section.tables[0]
    of_p = [float(row[metrics.columns.index("corrected p value")]) for row in metrics.rows]
    assert min(of_p) > 0.05  # as the answers
    (pair,) = make_record(make_request(judged.stored.study, ["1", "2"]), judged.stored.storage)[
        "comparisons"
    ]
    assert pair["settings_answer"] == "worse"


FOUND = "With the settings that this search found,"


@pytest.mark.parametrize("factor", [1.05, 0.95, 1.0, 1.008])
def test_every_answer_is_said_of_settings_alone(judged: Judged, factor: float):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(factor)})
    record = make_record(judged.request, judged.stored.storage)
    (sentence,) = record["headline"]
    assert sentence.startswith(FOUND)
    assert record["answer"].startswith(sentence)
    assert record["answers_are_about"] == "settings"
    assert record["search_luck"]["in_the_intervals"] is False
    assert "the luck of the search is not in the intervals" in record["answer"]
    (comparison,) = record["comparisons"]
    assert "answer" not in comparison
    section = make_section(record)
    assert section is not None
    for columns in (table_columns({}), section.answer.columns, section.tables[0].columns):
        assert "these settings are" in columns
    assert comparison["settings_answer"] in section.answer.rows[1]


def test_the_luck_of_the_search_is_quoted_as_it_was_simulated():
    simulated = json.loads((BENCHMARKS / "verdict.json").read_text())
    said = simulated["cases"]["no difference"]["answers_with_the_luck_of_the_search"]
    assert said["better"] + said["worse"] == pytest.approx(SEARCH_LUCK, abs=0.005)


def test_the_words_say_what_is_known_and_warn_of_what_is_not(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    said = paragraph(judged.verdict(), (30, 40), "NOT TinyStories")
    assert said.startswith(f"{FOUND} squentropy is worse than cross_entropy: its perplexity is 5.0")
    assert "function, bits per byte" not in said
    assert "link function and bits per byte the answer is the same" in said
    assert "cross_entropy 60.00 (the settings of the search's trial 0)" in said
    assert "not finished: 30 of 40 trials" in said
    assert said.endswith("Note: NOT TinyStories.")


def test_the_table_has_the_reference_and_a_change_with_interval_and_answer(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    record = make_record(judged.request, judged.stored.storage)
    reference, other = table_rows(record)
    assert reference == ["cross_entropy", "0", "60.00", "", "", "", "the reference"]
    low, high = (record["comparisons"][0][f"ratio_{end}"] for end in ("low", "high"))
    once = record["comparisons"][0]["only_analysis"]
    assert other == [
        *("squentropy", "1", "63.00", "+5.00%"),
        f"{low - 1:+.2%} to {high - 1:+.2%} (97%)",
        f"{once[0] - 1:+.2%} to {once[1] - 1:+.2%} (95%)",
        "worse",
    ]
    assert low < once[0] < once[1] < high
    assert f"its 95% interval is {once[0] - 1:+.2%} to" in record["answer"]


# --- interim analyses ------------------------------------------------------------------------


def asked(judged: Judged, seeds: int, arms: list[str] | None = None) -> dict[str, Any]:
    """Answer with so many seeds, and keep it as the command does."""
    study = load_study(judged.stored.storage, "tiny")
    record = make_record(make_request(study, arms, seeds), judged.stored.storage)
    keep(study, record)
    return record


def open_ends(factor: float, seeds: int) -> list[float]:
    return [60 * factor * math.exp(0.03 * math.sin(7 * seed)) for seed in range(seeds)]


def test_asking_of_other_arms_in_between_hides_no_analysis(tmp_path: Path):
    text = THREE.replace("[search.square_weight]\nlow = 0.1\nhigh = 2.0\n", "")
    judged = Judged(tmp_path, text)
    judged.run(CONFIRM, {arm: open_ends(1 + 0.01 * int(arm), 12) for arm in ("1", "2", "3")})
    asked(judged, 5, ["1", "2"])
    asked(judged, 9, ["1", "2"])
    asked(judged, 9)
    asked(judged, 9, ["3", "2"])
    record = asked(judged, 12, ["2", "1"])  # the other way round it is the same pair
    (comparison,) = record["comparisons"]
    assert comparison["analysed_seeds"] == [5, 9, 12]
    assert comparison["difference"]["error_rate"] == pytest.approx(error_rate(12, 5))
    assert "analysed 3 times, with 5, 9 and 12 seeds" in record["answer"]
    ledger = judged.stored.study.user_attrs["interim_analyses"]
    assert [one["arms"] for one in ledger].count(["1", "2"]) == 3


def test_the_same_analysis_again_is_the_same_answer(judged: Judged):
    ends = {"cross_entropy": open_ends(1, 9), "squentropy": open_ends(1.01, 9)[::-1]}
    judged.run(CONFIRM, ends)
    first, second = asked(judged, 5), asked(judged, 9)
    assert asked(judged, 9) == second
    again = asked(judged, 5)["comparisons"][0]
    assert again["difference"] == first["comparisons"][0]["difference"]
    assert (again["analysis"], again["analysed_seeds"]) == (1, [5, 9])


def test_other_settings_of_the_same_arms_are_one_more_analysis(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": open_ends(1, 5), "squentropy": open_ends(1.01, 5)})
    asked(judged, 5)
    judged.stored.add("squentropy", [70.0])  # the search went on and found better ones
    judged.request = make_request(judged.stored.study, top=1)
    judged.run(CONFIRM, {"cross_entropy": open_ends(1, 5), "squentropy": open_ends(1.02, 5)})
    (comparison,) = judged.verdict().comparisons
    assert (comparison.analysis, comparison.question) == (2, 2)
    assert comparison.difference.error_rate == error_rate(5, 5, question=2)


def test_fewer_seeds_than_at_first_are_another_question(judged: Judged):
    ends = {"cross_entropy": open_ends(1, 9), "squentropy": open_ends(1.01, 9)[::-1]}
    judged.run(CONFIRM, ends)
    asked(judged, 9)
    (comparison,) = asked(judged, 5)["comparisons"]
    assert comparison["question"] == 2
    assert comparison["difference"]["error_rate"] == error_rate(5, 5, question=2)
    assert asked(judged, 9)["comparisons"][0]["question"] == 1


def test_analyses_that_an_earlier_version_noted_still_count(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": open_ends(1, 5), "squentropy": open_ends(1.01, 5)})
    pair = {"arm": "squentropy", "reference": "cross_entropy"}
    confirmed = [{"arm": "cross_entropy", "trial": 0}, {"arm": "squentropy", "trial": 1}]
    old = {"looks": [3, 4], "confirmed": confirmed, "comparisons": [pair]}
    judged.stored.study.set_user_attr("verdict", old)
    assert asked(judged, 5)["comparisons"][0]["analysed_seeds"] == [3, 4, 5]
    assert make_section(old) is None  # of such a record, the report shows the words alone


# --- the study's metric, the ends of ranges --------------------------------------------------


def test_the_studys_metric_screens_chooses_judges_and_measures_selection_bias(tmp_path: Path):
    judged = Judged(tmp_path, f'metric = "link_perplexity"\n{STUDY}')
    better = judged.stored.add("squentropy", [81.0])  # by its link function, on fresh seeds
    judged.request = make_request(judged.stored.study, top=2)
    softmax = {1: 90.0, better: 95.0}
    judged.links = {1: 0.5, better: 0.4}
    judged.screen(softmax)
    storage = judged.stored.storage
    assert chosen_trials(judged.request, storage)["squentropy"].number == better
    (curse,) = curse_table(judged.request, storage).to_dict("records")
    assert (curse["searched"], curse["confirmed"]) == (80.0, pytest.approx(45.0))
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.5)})
    verdict = judged.verdict()
    (found,) = verdict.comparisons
    assert verdict.metric == "perplexity under the loss's own link function"
    assert (found.settings_answer, found.ratio) == ("better", pytest.approx(1.5 * 0.4))
    by = {one.metric: one.settings_answer for one in found.other_metrics}
    assert by["perplexity"] == by["bits per byte"] == "worse"
    assert f"its {verdict.metric} is 40.00% below" in paragraph(verdict, (40, 40), None)


def test_figures_of_another_metric_draw_it_and_name_it(tmp_path: Path):
    judged = Judged(tmp_path, f'metric = "link_perplexity"\n{STUDY}')
    stored = judged.stored
    with stored.storage.engine.begin() as connection:  # twice as much under softmax
        connection.execute(sa.update(evaluations).values(perplexity=160.0))
    judged.links = {0: 0.5, 1: 0.5}
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1.05)})
    keep(stored.study, make_record(judged.request, stored.storage))
    reader = read_study(stored.storage, stored.study)
    assert "the variance of log link perplexity that" in figure(reader, "importances").caption
    curves = figure(reader, "curves").draw()
    assert {y for trace in curves.data for y in trace.y or () if y} == {80.0}
    assert curves.layout.yaxis.title.text == "validation link perplexity"
    runs = figure(reader, "confirm-runs").draw()
    seeds = next(trace for trace in runs.data if trace.name == "squentropy")
    assert list(seeds.y) == pytest.approx([0.5 * end for end in ends(1.05)])
    forest = figure(reader, "confirm-ratios").draw()
    names = [trace.y[0] for trace in forest.data if trace.marker.symbol == "diamond"]
    assert names == ["perplexity<br>under the loss's own link function", "perplexity"]


def test_the_figure_of_fresh_seeds_has_the_settings_of_the_verdict_beside_it(judged: Judged):
    stored = judged.stored
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1.05)})
    keep(stored.study, make_record(judged.request, stored.storage))
    stored.add("squentropy", [70.0])  # better in the search
    judged.request = make_request(stored.study, top=1)
    judged.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1.02)})
    reader = read_study(stored.storage, stored.study)
    drawn = (figure(reader, "confirm-runs").draw(), dashboard_figures(reader)["confirm-runs"])
    for runs in drawn:
        seeds = next(trace for trace in runs.data if trace.name == "squentropy")
        assert list(seeds.y) == pytest.approx(ends(1.05))


def test_the_interval_of_a_program_may_be_below_one(tmp_path: Path):
    judged = Judged(tmp_path, PROGRAM.replace('"maximize"', '"minimize"'))
    figures = [0.04, 0.05, 0.06, 0.07, 0.08]
    judged.run(CONFIRM, dict.fromkeys(judged.request.arms, figures))
    reader = read_study(judged.stored.storage, judged.stored.study)
    for runs in (figure(reader, "confirm-runs").draw(), dashboard_figures(reader)["confirm-runs"]):
        mean = next(trace for trace in runs.data if trace.error_y.array)
        assert 0.03 < mean.y[0] - mean.error_y.arrayminus[0] < 0.05


def test_a_program_whose_figure_is_not_above_zero_is_refused_before_its_runs(tmp_path: Path):
    judged = Judged(tmp_path, PROGRAM)
    request = judged.request
    assert request.arms == ["adamw", "muon", "sgd"]
    ends = {"adamw": [0.5] * 5, "muon": [0.6] * 5, "sgd": [-0.1] * 5}
    judged.run(CONFIRM, ends)
    with pytest.raises(InputError, match=r"values above 0.* accuracy -0\.1"):
        judged.verdict()
    judged.request = make_request(judged.stored.study, ["adamw", "muon"])
    assert judged.verdict().comparisons[0].ratio == pytest.approx(1.2)
    judged.stored.add("sgd", [-80.0])  # among the best 3 all the same
    with pytest.raises(InputError, match=r"values above 0.* accuracy -80"):
        make_request(judged.stored.study)


def test_a_setting_at_an_end_of_its_range_is_named_beside_the_answer(judged: Judged):
    judged.stored.add("squentropy", [70.0], n_layer=6)
    judged.request = make_request(judged.stored.study, top=1)
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1)})
    said = paragraph(judged.verdict(), (40, 40), None)
    assert "squentropy are at the end of what was searched: n_layer 6 (the most)" in said


def test_confirm_runs_are_one_row_each_with_their_last_evaluation(judged: Judged):
    empty = phases.confirm_runs_table(judged.stored.storage, judged.stored.study)
    judged.run(SCREENING, {"cross_entropy": [82.0], "squentropy": [80.0]})
    judged.run(CONFIRM, {"cross_entropy": [60.0, 61.0], "squentropy": [66.0, 67.0]}, diverged=1)
    table = phases.confirm_runs_table(judged.stored.storage, judged.stored.study)
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
    first, second = curse_table(judged.request, judged.stored.storage).to_dict("records")
    assert (first["searched"], first["confirmed"]) == (
        80.0,
        pytest.approx((82 * 84 * 86) ** (1 / 3)),
    )
    assert second["ratio"] == pytest.approx(1.0)


def test_the_forest_has_a_ring_per_seed_and_a_diamond_at_the_mean(judged: Judged):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    record = make_record(judged.request, judged.stored.storage)
    data = forest_data(record)
    assert list(data["primary"]) == [True, *[False] * (len(data) - 1)]
    assert data["seeds"][0] == pytest.approx([1.05 * math.exp(own) for own in OWN])
    figure = plot_forest(record, record["arms"])
    rings = [trace for trace in figure.data if trace.marker.symbol == "circle-open"]
    assert list(rings[0].x) == pytest.approx(data["seeds"][0])
    margins = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (margins[0].x0, margins[0].x1) == (pytest.approx(1 / 1.01), 1.01)


def test_a_report_leads_with_the_answer_and_has_its_forest(judged: Judged, tmp_path: Path):
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    stored = judged.stored
    record = make_record(judged.request, stored.storage)
    keep(stored.study, record)
    out = write_report(stored.storage, stored.study, tmp_path / "report.html")
    page = html.unescape(out.read_text())
    first, *others = record["answer"].replace(record["headline"][0], "").split(". ")
    for sentence in (record["headline"][0], first.strip(), *others):
        assert sentence in page
    assert 'id="figure-confirm-runs"' in page
    assert 'id="figure-confirm-ratios"' in page
    assert "Not confirmed" not in page
