"""The report as a reader meets it: in a real browser, without a network."""

from pathlib import Path

import pytest
from benchmarks.report_of_many import fill
from browsers import complaints_of, wait_for_figures
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from playwright.sync_api import Page
from stored_studies import STUDY, StoredStudy
from stored_verdicts import Judged, ends

from sweep.analysis.phases import CONFIRM, SCREENING
from sweep.analysis.study_reader import read_study
from sweep.report.report import write_report
from sweep.verdict.record import keep, make_record
from sweep.visualization.figures import figures

DROPOUT = "[search.dropout]\nlow = 0.0\nhigh = 0.3\n[search.loss]"


def opened(page: Page, report: Path) -> list[str]:
    complaints = complaints_of(page)
    page.goto(report.as_uri())
    wait_for_figures(page)
    return complaints


def column(page: Page, table: str, nth: int) -> list[str]:
    """The visible cells of a column."""
    return page.eval_on_selector_all(
        f"{table} tbody tr:not([hidden]) td:nth-child({nth})",
        "cells => cells.map((cell) => cell.textContent.trim())",
    )


def test_every_figure_is_drawn_with_its_traces_and_no_complaint(page, report, reported):
    assert opened(page, report) == []
    count = "all => all.map((f) => [f.id, f.querySelector('.plot').data.length])"
    drawn = page.eval_on_selector_all("figure", count)
    expected = [
        [f"figure-{figure.name}", len(figure.draw().data)]
        for figure in figures(read_study(reported.storage, reported.study))
        if figure.section != "verdict"  # there is none yet
    ]
    assert drawn == expected
    assert all(traces > 0 for _, traces in drawn)
    assert page.locator(".plot .point, .plot .lines, .plot .heatmaplayer").count() > 50


def test_a_report_with_a_verdict_draws_every_seed_and_its_pairs(page, tmp_path):
    judged = Judged(tmp_path)
    judged.run(SCREENING, {"cross_entropy": [82.0] * 3, "squentropy": [80.0] * 3})
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    study, storage = judged.stored.study, judged.stored.storage
    for arm, count in (("cross_entropy", 1), ("squentropy", 9)):
        for _ in range(count):
            judged.stored.add(arm, [900.0], outcome="pruned")
    keep(study, make_record(judged.request, storage))
    assert opened(page, write_report(storage, study, tmp_path / "report.html")) == []
    count = "all => all.map((f) => [f.id, f.querySelectorAll('.point').length])"
    drawn = dict(page.eval_on_selector_all("#verdict figure", count))
    assert drawn["figure-confirm-runs"] == 2 * 5 + 2  # every seed, and each arm's mean
    assert drawn["figure-confirm-ratios"] >= 5 + 1
    answer = page.locator("#answer .verdict").inner_text()
    assert "squentropy is worse than cross_entropy: its perplexity is 5.0" in answer
    table = page.locator("#answer tbody tr").all_inner_texts()  # before its paragraph
    assert [row.split("\t")[-1] for row in table] == ["the reference", "worse"]
    assert page.locator(".arm .value").all_inner_texts() == ["60.00", "63.00"]
    assert "best of the search\n80.00" in page.locator(".arm").first.inner_text()
    budget = page.get_by_role("region", name="The budget of each arm")
    budget.get_by_role("button", name="tokens").click()
    assert budget.locator("td:nth-last-child(2)").all_inner_texts() == ["2,000", "10,000"]


def test_a_heading_sorts_its_table_with_the_keyboard_as_well(page, report):
    opened(page, report)
    table = "#all-trials"
    heading = page.locator(f"{table} th", has_text="perplexity").get_by_role("button")
    heading.focus()
    page.keyboard.press("Enter")
    values = column(page, table, 3)
    numbers = [float(value) for value in values if value != "–"]
    assert numbers == sorted(numbers)
    assert values[len(numbers) :] == ["–"] * 2  # of the diverged
    heading.click()
    assert column(page, table, 3)[0] == max(values[: len(numbers)], key=float)


def test_the_filter_keeps_rows_with_all_words_and_comparisons(page, report):
    opened(page, report)
    page.locator("#filter").fill("squentropy complete n_layer>3 perplexity<88")
    assert column(page, "#all-trials", 2) == ["squentropy"] * 3
    assert column(page, "#all-trials", 1) == ["7", "9", "11"]
    assert page.locator("#found").text_content() == "3 of 22"
    page.locator("#filter").fill("lr<0.0015")  # its short name
    assert column(page, "#all-trials", 1) == ["0", "1"]
    page.locator("#filter").fill("depth>3")
    assert page.locator("#found").text_content() == "0 of 22; there is no column depth"
    page.locator("#filter").fill("")
    assert len(column(page, "#all-trials", 1)) == 22


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_never_scrolls_sideways(page, report, width):
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, report)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_figures_follow_the_reader_into_the_dark(page, report):
    opened(page, report)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')]"
        ".every((plot) => plot.layout.font.color === '#b9bec7')"
    )
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"


def test_every_control_is_reached_by_the_tab_key(page, report):
    opened(page, report)
    controls = page.locator("main a, main button, main input, main summary, .scroll").count()
    reached = set()
    for _ in range(controls + 5):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.outerHTML.slice(0, 300)"))
    assert len(reached) >= 40
    assert any('id="filter"' in html for html in reached)


# Studies of every size, and of any name


@pytest.mark.slow
def test_a_thousand_trials_of_a_hundred_evaluations_render_in_fifteen_megabytes(page, tmp_path):
    stored = StoredStudy(tmp_path, STUDY.replace("[search.loss]", DROPOUT))
    fill(stored)
    report = write_report(stored.storage, stored.study, tmp_path / "report.html")
    assert report.stat().st_size < 15_000_000
    assert opened(page, report) == []
    assert page.locator("#all-trials tbody tr").count() == 1000


def odd_names(folder: Path) -> StoredStudy:
    """Arms, text and reasons with markup, quotes and letters beyond ASCII."""
    stored = StoredStudy(folder, kind="hub", name="Märchen <b>\"größer\"</b> & 'mehr'")
    arms = ["a<b>", "\"größe\" & 'so'", "损失"]
    spec = stored.study.user_attrs["spec"]
    spec["search"]["loss"]["choices"] = arms
    stored.study.set_user_attr("spec", spec)
    for number, arm in enumerate(arms[:2]):
        stored.study.add_trial(
            create_trial(
                value=50.0 + number,
                params={"learning_rate": 1e-3},
                distributions={"learning_rate": FloatDistribution(1e-4, 1e-2, log=True)},
                user_attrs={"arm": arm, "outcome": "complete"},
                intermediate_values={100: 60.0, 200: 50.0},
            )
        )
    return stored


def one_trial(folder: Path) -> StoredStudy:
    stored = StoredStudy(folder)
    stored.add("squentropy", [90.0, 60.0])
    return stored


def nothing_complete(folder: Path) -> StoredStudy:
    stored = StoredStudy(folder)
    stored.add("squentropy", [90.0], outcome="pruned")
    stored.add("cross_entropy", [5e6], outcome="diverged")
    return stored


@pytest.mark.parametrize("make", [StoredStudy, one_trial, nothing_complete, odd_names])
def test_studies_of_every_kind_render_without_complaint(page, tmp_path, make):
    stored = make(tmp_path)
    report = write_report(stored.storage, stored.study, tmp_path / "report.html")
    assert opened(page, report) == []
    if make is odd_names:
        text = page.locator("main").inner_text()
        assert "a<b> reached the lowest validation perplexity, 50.00." in text
        assert "Märchen <b>\"größer\"</b> & 'mehr'" in text
        legend = page.locator("#figure-slice-learning_rate .legendtext").all_text_contents()
        assert legend[:2] == ["a<b>", "\"größe\" & 'so'"]
