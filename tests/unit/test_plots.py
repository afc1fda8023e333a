import math
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from stored_studies import StoredStudy

from sweep import visualization as plots
from sweep.analysis import results
from sweep.analysis.importance import (
    MIN_TRIALS,
    OF_THE_BEST,
    OVER_THE_RANGE,
    importances_table,
)
from sweep.visualization.style import (
    PALETTE,
    add_floor,
    arm_colours,
    arm_dashes,
    arm_patterns,
    arm_symbols,
    frame,
    plain,
)
from sweep.visualization.trials import curves_data, slice_data

ARMS = ["cross_entropy", "squentropy"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """Only read by the tests."""
    return filled(tmp_path_factory.mktemp("stored"))


def filled(folder: Path) -> StoredStudy:
    """Two arms: complete, pruned, diverged and running trials, and a baseline of each arm."""
    stored = StoredStudy(folder)
    stored.add("cross_entropy", [200.0, 100.0], origin="baseline:usual", learning_rate=6e-4)
    stored.add("squentropy", [210.0, 120.0], origin="baseline:usual", learning_rate=6e-4)
    stored.add("cross_entropy", [150.0, 60.0], learning_rate=3e-3, n_layer=4)
    stored.add("squentropy", [250.0], outcome="pruned", learning_rate=2e-4)
    stored.add("squentropy", [180.0, 5e6], outcome="diverged", learning_rate=1e-2)
    stored.add("cross_entropy", [90.0], outcome="running")
    return stored


def tables(stored: StoredStudy) -> tuple[pd.DataFrame, pd.DataFrame]:
    return results.evaluations_table(stored.storage, "tiny"), results.trials_table(stored.study)


def trace_of(figure, name: str, **properties):
    """The one trace with this name, points and these properties."""
    found = [
        trace
        for trace in figure.data
        if trace.name == name and len(trace.x) and all(trace[k] == v for k, v in properties.items())
    ]
    assert len(found) == 1
    return found[0]


# The axis of perplexity


def test_the_axis_is_logarithmic_from_a_decade_on():
    assert not frame([50, 100, 450]).log
    assert frame([50, 100, 550]).log


def test_the_frame_holds_every_value_and_the_floor():
    shown = frame([50.0, 60.0, 70.0, 5e6], floor=8.0)
    assert shown.low < 8.0
    assert shown.high > 5e6


def test_a_floor_far_below_every_value_does_not_flatten_them():
    shown = frame([50.0, 60.0, 70.0], floor=1.3)
    assert shown == frame([50.0, 60.0, 70.0])
    figure = go.Figure()
    add_floor(figure, 1.3, [0, 1], shown)
    assert figure.data[0].name == "lowest possible, 1.30 (below the frame)"


def test_a_fenced_frame_is_not_flattened_by_one_diverged_curve_but_holds_ordinary_ones():
    assert frame([8.0, 8.5, 9.0, 9.5, 10.0, 367.0], fenced=True).high > 367
    assert 70 < frame([50.0, 55.0, 60.0, 65.0, 70.0, 1e9], fenced=True).high < 20_000


def test_the_frame_passes_over_values_that_are_not_finite_and_needs_none():
    assert frame([50.0, math.inf, math.nan, 60.0]) == frame([50.0, 60.0])
    empty = frame([])
    assert 0 < empty.low < empty.high


def test_the_frame_of_equal_values_has_an_extent():
    shown = frame([50.0, 50.0])
    assert shown.low < 50 < shown.high


def test_arms_keep_colour_and_symbol_by_their_position_in_the_study():
    assert arm_colours(ARMS) == {"cross_entropy": PALETTE[0], "squentropy": PALETTE[1]}
    assert arm_colours(["a"])["a"] == arm_colours(["a", "b"])["a"]
    assert len(set(arm_symbols(ARMS).values())) == 2


def test_arms_beyond_the_palette_differ_in_symbol_dash_and_pattern():
    arms = [str(i) for i in range(2 * len(PALETTE))]
    assert arm_colours(arms)["7"] == arm_colours(arms)["0"]  # the palette is used up
    assert len(set(arm_symbols(arms).values())) == len(arms)
    lines = zip(arm_colours(arms).values(), arm_dashes(arms).values(), strict=True)
    bars = zip(arm_colours(arms).values(), arm_patterns(arms).values(), strict=True)
    assert len(set(lines)) == len(set(bars)) == len(arms)
    assert arm_dashes(arms)["0"] == "solid"


def test_lines_and_bars_of_the_eighth_arm_are_told_from_those_of_the_first():
    arms = [str(i) for i in range(8)]
    trials = pd.DataFrame({"arm": arms, "outcome": "complete", "perplexity": 50.0})
    evaluations = pd.DataFrame({"trial_number": range(8), "step": 100, "tokens": 100})
    evaluations["perplexity"] = 50.0
    drawn = plots.plot_curves(evaluations, trials.assign(number=range(8)), arms).data
    first, *_, eighth = (line for line in drawn if line.line.width == 3.5)
    assert (first.line.color, first.line.dash) == (eighth.line.color, "solid")
    assert eighth.line.dash == "dash"
    importances = pd.DataFrame({"arm": arms, "parameter": "n_layer", "importance": 1.0})
    first, *_, eighth = plots.plot_importances(importances, arms).data
    assert (first.marker.pattern.shape, eighth.marker.pattern.shape) == ("", "/")


def test_plain_turns_missing_values_into_none_and_numpy_into_python():
    values = plain(pd.Series([1, None], dtype="Int64"))
    assert values == [1, None]
    assert type(values[0]) is int


# Curves


def test_curves_data_marks_the_best_complete_trial_of_each_arm(stored):
    data = curves_data(*tables(stored))
    assert data.groupby("number")["best"].first().to_dict() == {
        0: False, 1: True, 2: True, 3: False, 4: False, 5: False
    }  # fmt: skip
    assert data[data["number"] == 2]["tokens"].tolist() == [1000, 2000]
    assert data[data["number"] == 2]["perplexity"].tolist() == [150.0, 60.0]


def test_curves_data_leaves_out_what_has_no_finite_perplexity(stored):
    evaluations, trials = tables(stored)
    evaluations.loc[evaluations["trial_number"] == 4, "perplexity"] = [math.inf, math.nan]
    assert 4 not in set(curves_data(evaluations, trials)["number"])


def test_plot_curves_draws_the_best_thick_and_separates_trials_by_gaps(stored):
    figure = plots.plot_curves(*tables(stored), ARMS)
    best = trace_of(figure, "cross_entropy", showlegend=True)
    assert best.y == (150.0, 60.0, None)
    early = next(t for t in figure.data if t.name == "squentropy" and t.opacity is not None)
    assert early.y == (250.0, None, 180.0, 5e6, None)
    assert early.line.width < best.line.width
    assert best.line.color == PALETTE[0]


def test_plot_curves_marks_a_diverged_trial_along_the_upper_edge(stored):
    cross = trace_of(plots.plot_curves(*tables(stored), ARMS), "squentropy", mode="markers")
    assert (cross.marker.symbol, cross.yaxis) == ("x", "y2")  # not on the axis of perplexity
    assert cross.x == (2000,)
    assert "then diverged" in cross.text[0]


def test_plot_curves_ranges_are_in_powers_of_ten_on_a_logarithmic_axis(stored):
    axis = plots.plot_curves(*tables(stored), ARMS, floor=7.5).layout.yaxis
    assert axis.type == "log"
    assert axis.range[0] < math.log10(7.5)
    assert math.log10(250) < axis.range[1] < math.log10(5e6)  # which leaves the frame


def test_floor_is_a_level_line_over_the_whole_figure(stored):
    figure = plots.plot_curves(*tables(stored), ARMS, floor=7.5)
    line = trace_of(figure, "lowest possible, 7.50")
    assert line.y == (7.5, 7.5)
    assert line.x == (0, 2000)
    count = len(figure.data)
    add_floor(figure, None, [0, 1], frame([1.0]))
    assert len(figure.data) == count


# Slices


def test_slice_data_has_every_finished_trial_with_its_baseline(stored):
    data = slice_data(tables(stored)[1], "learning_rate")
    assert data["number"].tolist() == [0, 1, 2, 3, 4]
    assert data["value"].tolist() == [6e-4, 6e-4, 3e-3, 2e-4, 1e-2]
    assert plain(data["baseline"]) == ["usual", "usual", None, None, None]
    assert plain(data["perplexity"]) == [100.0, 120.0, 60.0, 250.0, None]


def test_slice_data_leaves_out_trials_without_the_parameter(tmp_path):
    stored = filled(tmp_path)
    stored.add("squentropy", [80.0], square_weight=0.5)
    data = slice_data(tables(stored)[1], "square_weight")
    assert data["number"].tolist() == [6]


def test_plot_slice_has_a_logarithmic_axis_where_the_range_has(stored):
    trials, space = tables(stored)[1], results.search_space(stored.study)
    learning_rate = plots.plot_slice(trials, "learning_rate", ARMS, space["learning_rate"])
    n_layer = plots.plot_slice(trials, "n_layer", ARMS, space["n_layer"])
    assert learning_rate.layout.xaxis.type == "log"
    assert learning_rate.layout.xaxis.tickformat == "~e"
    assert n_layer.layout.xaxis.type is None
    assert n_layer.layout.xaxis.dtick == 1


def test_plot_slice_spans_all_that_was_searched(stored):
    trials, space = tables(stored)[1], results.search_space(stored.study)
    rates = plots.plot_slice(trials, "learning_rate", ARMS, space["learning_rate"]).layout.xaxis
    assert rates.range[0] < -4 < -2 < rates.range[1]
    layers = plots.plot_slice(trials, "n_layer", ARMS, space["n_layer"]).layout.xaxis
    assert layers.range == (0.5, 6.5)


def test_plot_slice_shows_outcomes_by_size_symbol_and_ring(stored):
    trials, space = tables(stored)[1], results.search_space(stored.study)
    figure = plots.plot_slice(trials, "learning_rate", ARMS, space["learning_rate"])
    complete = trace_of(figure, "cross_entropy", showlegend=True)
    assert complete.x == (6e-4, 3e-3)
    assert complete.y == (100.0, 60.0)
    kinds = {t.marker.symbol: t for t in figure.data if t.name == "squentropy" and t.x}
    assert (kinds["x"].x, kinds["x"].yaxis) == ((1e-2,), "y2")
    assert "no perplexity" in kinds["x"].text[0]
    sizes = {t.x: t.marker.size for t in figure.data if t.name == "squentropy"}
    assert sizes[(2e-4,)] < sizes[(6e-4,)]
    assert trace_of(figure, "baseline").x == (6e-4, 6e-4)


def test_plot_slice_keeps_equal_integers_of_two_arms_apart(stored):
    trials, space = tables(stored)[1], results.search_space(stored.study)
    figure = plots.plot_slice(trials, "n_layer", ARMS, space["n_layer"])
    left, right = (trace_of(figure, arm, showlegend=True).x[0] for arm in ARMS)
    assert left < 2 < right
    assert right - left < 0.5


def test_plot_slice_of_choices_has_a_category_axis(stored):
    trials = tables(stored)[1].assign(kind=["a", "b", "a", "b", "a", "b"])
    figure = plots.plot_slice(trials, "kind", ARMS, CategoricalDistribution(["a", "b"]))
    assert figure.layout.xaxis.type == "category"


def test_an_axis_of_choices_has_all_of_them_in_the_order_of_the_study(stored):
    trials = tables(stored)[1].assign(dropout=[0.1, 0.0, 0.1, 0.1, 0.0, 0.1])
    space = CategoricalDistribution([0, 0.1, 0.2])
    axis = plots.plot_slice(trials, "dropout", ARMS, space).layout.xaxis
    assert (axis.categoryorder, axis.categoryarray) == ("array", (0, 0.1, 0.2))
    assert axis.range == (-0.5, 2.5)


# Importances


def test_importances_answer_two_questions_in_each_arm(tmp_path):
    stored = StoredStudy(tmp_path)
    for i in range(40):  # half of the learning rates ruin a run; among the others depth decides
        rate, depth = 10 ** (-4 + 2 * i / 39), 1 + (5 * i) % 6
        perplexity = 500.0 + i if rate < 1e-3 else 40 + 5 * depth + 0.01 * i
        stored.add("cross_entropy", [perplexity], learning_rate=rate, n_layer=depth)
        stored.add("squentropy", [100.0 + 50 * depth], learning_rate=rate, n_layer=depth)
    table = importances_table(stored.study, ARMS)
    first = table.drop_duplicates(["arm", "question"]).set_index(["arm", "question"])["parameter"]
    assert first.to_dict() == {
        ("cross_entropy", OVER_THE_RANGE): "learning_rate",
        ("cross_entropy", OF_THE_BEST): "n_layer",
        ("squentropy", OVER_THE_RANGE): "n_layer",
        ("squentropy", OF_THE_BEST): "n_layer",
    }
    sums = table.groupby(["arm", "question"])["importance"].sum()
    assert sums.tolist() == pytest.approx([1, 1, 1, 1])


def test_importances_weigh_a_logarithmic_range_by_its_logarithm(tmp_path):
    stored = StoredStudy(tmp_path)
    for i in range(24):  # all that matters happens below 1e-3, a tenth of the range as it is
        rate = 10 ** (-4 + 2 * i / 23)
        perplexity = 50 * (1 + 10 * (rate < 3e-4)) * (1 + 0.3 * (i % 2))
        stored.add("cross_entropy", [perplexity], learning_rate=rate, n_layer=1 + 5 * (i % 2))
    table = importances_table(stored.study, ARMS).set_index(["question", "parameter"])
    assert table.loc[(OVER_THE_RANGE, "learning_rate"), "importance"] > 0.9


def test_importances_of_few_or_equal_trials_are_none_and_the_plot_says_so(tmp_path):
    stored = StoredStudy(tmp_path)
    for i in range(MIN_TRIALS - 1):
        stored.add("cross_entropy", [50.0 + i], n_layer=1 + i % 6)
    for i in range(MIN_TRIALS):
        stored.add("squentropy", [50.0], n_layer=1 + i % 6)
    table = importances_table(stored.study, ARMS)
    assert table.empty
    figure = plots.plot_importances(table, ARMS)
    assert f"{MIN_TRIALS} complete trials" in figure.layout.annotations[0].text


def test_plot_importances_has_a_bar_per_arm_that_has_any():
    rows = [("squentropy", "n_layer", 0.25), ("squentropy", "learning_rate", 0.75)]
    table = pd.DataFrame(rows, columns=["arm", "parameter", "importance"])
    figure = plots.plot_importances(table, ARMS)
    assert [bar.name for bar in figure.data] == ["squentropy"]
    assert figure.data[0].y == ("learning_rate", "n_layer")
    assert figure.data[0].marker.color == PALETTE[1]


# No data at all


def test_every_plot_of_an_empty_study_says_that_there_is_nothing_yet(tmp_path):
    stored = StoredStudy(tmp_path)
    evaluations, trials = tables(stored)
    trials["n_layer"] = pd.Series(dtype="Int64")
    figures = [
        plots.plot_curves(evaluations, trials, ARMS, floor=7.5),
        plots.plot_slice(trials, "n_layer", ARMS, IntDistribution(1, 6)),
        plots.plot_importances(importances_table(stored.study, ARMS), ARMS),
    ]
    for figure in figures:
        assert not figure.data
        assert figure.layout.annotations[0].text


def test_figures_are_transparent_and_readable_on_light_and_dark(stored):
    figure = plots.plot_slice(
        tables(stored)[1], "learning_rate", ARMS, FloatDistribution(1e-4, 1e-2, log=True)
    )
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.font.color == "#808080"
