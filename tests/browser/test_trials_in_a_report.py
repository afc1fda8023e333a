"""The report as a place to work: trials are brushed, filtered, chosen, compared, downloaded."""

import csv
import json
from pathlib import Path

import pytest
from browsers import complaints_of
from playwright.sync_api import Page
from stored_studies import PROGRAM, StoredStudy

from gpt.config import TrainConfig
from sweep.report.report import write_report

ROWS = "#all-trials tbody tr:not([hidden])"
SHOWN = f"all => [...document.querySelectorAll('{ROWS}')].map((r) => Number(r.dataset.trial))"
COMPLETE = [*range(16)]  # two arms, nth pair with learning rate 9e-4 n and n - 1 % 6 + 1 layers
LINE = "document.querySelectorAll('#coordinates .line.{state}').length"
CURVES = """() => document.querySelector('#figure-curves .plot').data
    .filter((trace) => trace.mode === 'lines' && trace.customdata && trace.opacity !== 0.15)
    .flatMap(({ customdata, y }) => customdata.filter((n, i) => n !== null && y[i] !== null))"""


@pytest.fixture
def trials(page: Page, report: Path) -> Page:
    """The report at its trials; nothing of it complained by the end of the test."""
    complaints = complaints_of(page)
    page.goto(report.as_uri())
    page.locator("#figure-curves").scroll_into_view_if_needed()
    page.wait_for_selector("#figure-curves .main-svg")
    yield page
    assert complaints == []


def shown(page: Page) -> list[int]:
    return page.evaluate(SHOWN)


def lines(page: Page, state: str) -> int:
    return page.evaluate(LINE.format(state=state))


def brush(page: Page, axis: str, start: float, end: float) -> None:
    """Drag along an axis, from one share of its height to another; 1 is the top."""
    page.locator("#coordinates").scroll_into_view_if_needed()
    box = page.locator(f'[data-axis="{axis}"]').bounding_box()
    assert box is not None
    x, low, height = box["x"] + box["width"] / 2, box["y"] + box["height"] - 6, box["height"] - 12
    page.mouse.move(x, low - start * height)
    page.mouse.down()
    page.mouse.move(x, low - end * height, steps=4)
    page.mouse.up()


def choose(page: Page, *numbers: int) -> None:
    for number in numbers:
        page.get_by_label(f"choose trial {number}", exact=True).check()


def wait_for_curves(page: Page, numbers: list[int]) -> None:
    page.wait_for_function(
        f"(wanted) => JSON.stringify([...new Set(({CURVES})())].sort((a, b) => a - b)) === wanted",
        arg=json.dumps(numbers, separators=(",", ":")),
    )


def test_figures_are_drawn_when_they_come_into_view(page, report):
    page.add_init_script("window.requestIdleCallback = () => {}")  # it never is
    page.goto(report.as_uri())
    assert page.evaluate("typeof Plotly") == "undefined"
    page.locator("#figure-memory").scroll_into_view_if_needed()
    page.wait_for_selector("#figure-memory .main-svg")
    assert page.locator("#figure-tuning-curve .main-svg").count() == 0


def test_the_page_leaves_the_texts_of_figures_visible(page, report):
    page.add_init_script("window.requestIdleCallback = () => {}")
    page.goto(report.as_uri())
    page.locator("#figure-grid").scroll_into_view_if_needed()
    page.wait_for_selector("#figure-grid .heatmap-label tspan")
    fills = page.eval_on_selector_all(
        "#figure-grid tspan", "all => all.map((one) => getComputedStyle(one).fill)"
    )
    assert fills
    assert "none" not in fills


def test_brushing_an_axis_shows_its_range_in_every_view(trials):
    assert len(shown(trials)) == 22
    brush(trials, "n_layer", 0.5, 1.0)  # 1 to 6 layers: from 3.5 on
    found = shown(trials)
    layers = trials.eval_on_selector_all(
        f"{ROWS} td:nth-child(6)", "all => all.map((cell) => Number(cell.textContent))"
    )
    assert found
    assert min(layers) == 4
    assert lines(trials, "off") == 22 - len(found)
    assert trials.locator("#found").inner_text() == f"{len(found)} of 22"
    low, high = (float(field.input_value()) for field in trials.locator("#ranges input").all())
    assert (low, high) == (pytest.approx(3.5, abs=0.05), 6)
    wait_for_curves(trials, found)
    brush(trials, "n_layer", 0.5, 0.5)  # a click frees it
    assert len(shown(trials)) == 22
    assert trials.locator("#ranges input").count() == 0


def test_real_choices_and_capital_letters_are_found(page, tmp_path):
    text = PROGRAM.replace('"accuracy"', '"BLEU"').replace(
        "low = 1e-4\nhigh = 1e-2\nlog = true", "choices = [6e-6, 0.0, 1]"
    )
    stored = StoredStudy(tmp_path, text, files={})
    for bleu, rate in enumerate((6e-6, 0.0, 1.0)):
        stored.add("muon", [10.0 + bleu], learning_rate=rate)
    page.goto(write_report(stored.storage, stored.study, tmp_path / "report.html").as_uri())
    places = "trials.map((trial) => placeOf('learning_rate', trial))"
    assert page.evaluate(places) == [0, 1, 2]
    brush(page, "learning_rate", 0.0, 1.0)
    assert shown(page) == [0, 1, 2]
    assert page.locator("#ranges .chip span").inner_text() == "6e-06, 0.0, 1"
    page.locator("#filter").fill("BLEU>10.5 LR=0")
    assert shown(page) == [1]
    assert page.locator("#found").inner_text() == "1 of 3"


def test_filters_by_arm_outcome_and_range_hold_together(trials):
    trials.locator("fieldset[data-kind=arm]").get_by_label("squentropy").check()
    trials.locator("fieldset[data-kind=outcome]").get_by_label("complete").check()
    assert shown(trials) == COMPLETE[1::2]
    trials.locator("#new-range").select_option("perplexity")
    trials.get_by_label("perplexity at most").fill("85")
    trials.get_by_label("perplexity at most").press("Enter")
    assert shown(trials) == [11, 13, 15]  # 85, 84, 83
    trials.locator("#clear").click()
    assert len(shown(trials)) == 22
    assert trials.locator("fieldset input:checked").count() == 0


def test_chosen_trials_are_marked_everywhere_and_compared(trials):
    choose(trials, 3, 5)
    assert lines(trials, "chosen") == 2
    assert lines(trials, "beside") == 20
    assert trials.locator("#all-trials tr.chosen").count() == 2
    wait_for_curves(trials, [3, 5])
    table = [row.split("\t") for row in trials.locator("#differences tr").all_inner_texts()]
    assert table[0] == ["what differs", "trial 3", "trial 5"]
    differences = {name: values for name, *values in table[1:]}
    assert differences["learning_rate"] == ["1.80e-03", "2.70e-03"]
    assert differences["perplexity"] == ["89.00", "88.00"]
    assert "arm" not in differences
    assert "arm squentropy" in trials.locator("#same").inner_text()
    trials.locator("#figure-slice-learning_rate").scroll_into_view_if_needed()
    trials.wait_for_selector("#figure-slice-learning_rate .main-svg")
    picked = trials.evaluate(
        "document.querySelector('#figure-slice-learning_rate .plot').data"
        ".flatMap((t) => (t.selectedpoints ?? []).map((n) => t.customdata[n]))"
    )
    assert picked == [3, 5]


def test_more_than_five_are_not_compared(trials):
    choose(trials, 0, 1, 2, 3, 4)
    assert trials.locator("#differences").is_visible()
    choose(trials, 5)
    assert not trials.locator("#differences").is_visible()
    assert "6 are chosen" in trials.locator("#compare-hint").inner_text()


def test_a_click_on_a_line_and_on_a_curve_chooses_its_trial(trials):
    trials.locator("#filter").fill("cross_entropy n_layer=4 complete")
    trials.locator("#coordinates").scroll_into_view_if_needed()
    (number,) = shown(trials)
    place = trials.evaluate(
        """(number) => {
            const points = lines.get(number).getAttribute('points').split(' ');
            const line = points.map((point) => point.split(','));
            const box = coordinates.getBoundingClientRect();
            return [0, 1].map((n) => (Number(line[1][n]) + Number(line[2][n])) / 2
                + [box.left, box.top][n]);
        }""",
        number,
    )
    trials.mouse.click(*place)
    assert trials.get_by_label(f"choose trial {number}", exact=True).is_checked()
    trials.mouse.click(*place)
    assert not trials.get_by_label(f"choose trial {number}", exact=True).is_checked()
    trials.evaluate(
        "pickPoint({ pointNumber: 0, data: { customdata: [7] } })"  # as plotly reports it
    )
    assert trials.get_by_label("choose trial 7", exact=True).is_checked()


def test_curves_switch_unit_and_scale_and_show_their_last_half(trials):
    axes = (
        "[document.querySelector('#figure-curves .plot').layout].map(({ xaxis, yaxis }) =>"
        " [xaxis.title.text, xaxis.range, yaxis.type, yaxis.range])[0]"
    )
    trials.locator("#curve-switches [name=unit]").select_option("seconds")
    trials.wait_for_function(f"({axes})[0].startsWith('seconds')")
    assert trials.evaluate(axes)[1] == [0, pytest.approx(4, rel=0.02)]  # 200 steps, 50 a second
    trials.locator("#curve-switches [name=unit]").select_option("flops")
    trials.wait_for_function(f"({axes})[0].startsWith('floating')")
    columns, context = (TrainConfig.model_fields[name].default for name in ("n_embd", "block_size"))
    most = 2000 * (6 * 1000 + 12 * 6 * columns * context)  # of the trials with six layers
    assert trials.evaluate(axes)[1] == [0, pytest.approx(most, rel=0.02)]
    trials.locator("#curve-switches [name=scale]").select_option("linear")
    trials.locator("#curve-switches [name=half]").check()
    trials.wait_for_function(f"({axes})[1][0] > 0 && ({axes})[2] === 'linear'")
    _, (start, _), _, (low, high) = trials.evaluate(axes)
    assert start == pytest.approx(most / 2, rel=0.02)
    assert low < 83  # and nothing of the first half, which is at 300
    assert high < 100


def test_downloads_hold_the_rows_and_columns_that_are_shown(trials):
    trials.locator("#filter").fill("squentropy complete lr<0.003")
    trials.locator("#columns summary").click()
    trials.locator("#columns").get_by_label("accuracy").check()
    trials.locator("#columns").get_by_label("origin").uncheck()
    with trials.expect_download() as saved:
        trials.locator("#csv").click()
    assert saved.value.suggested_filename == "tiny.csv"
    rows = list(csv.DictReader(Path(saved.value.path()).read_text().splitlines()))
    assert [row["number"] for row in rows] == ["1", "3", "5"]
    assert [float(row["learning_rate"]) for row in rows] == [9e-4, 1.8e-3, 9e-4 * 3]  # every digit
    assert {row["accuracy"] for row in rows} == {"0.4"}
    assert "origin" not in rows[0]
    assert rows[0]["reason"] == ""
    with trials.expect_download() as saved:
        trials.locator("#json").click()
    records = json.loads(Path(saved.value.path()).read_text())
    assert [record["perplexity"] for record in records] == [90.0, 89.0, 88.0]
    assert records[0]["reason"] is None


@pytest.mark.parametrize("width", [1400, 1800])
def test_no_column_of_the_trials_is_cut_on_a_wide_page(page, report, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri())
    for box in page.locator(".scroll:has(#all-trials), .scroll:has(#metrics)").all():
        assert box.evaluate("(box) => box.scrollWidth <= box.clientWidth")
