import json

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from optuna_dashboard import save_note
from plotly.colors import sequential
from stored_studies import BUILT_IN, StoredStudy

from sweep import visualization as plots
from sweep.analysis.importance import dashboard_importances
from sweep.analysis.study_reader import heading, read_study
from sweep.analysis.trial_stories import quoted, stories_by_trial
from sweep.report.page_data import _apart, axes, curve_units, kinds, study_json
from sweep.report.tables import all_table
from sweep.study.format import change, column_format, on_log_scale
from sweep.study.metric import Metric
from sweep.visualization.contour import contour_data, most_important
from sweep.visualization.style import (
    FADED,
    FADED_ON_DARK,
    ON_DARK,
    PALETTE,
    empty_figure,
    log_ticks,
)

SPACE = {
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "n_layer": IntDistribution(1, 5),
    "dropout": FloatDistribution(0.0, 0.4),
    "optimizer": CategoricalDistribution(["adamw", "muon"]),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """Only read by the tests."""
    stored = StoredStudy(tmp_path_factory.mktemp("stored"))
    stored.add("cross_entropy", [200.0, 50.0], learning_rate=9e-4)
    stored.add("squentropy", [250.0, 80.0], learning_rate=1.2e-2 / 10, square_weight=0.5)
    stored.add("squentropy", [3e5], outcome="diverged", learning_rate=1e-2)
    return stored


def test_an_axis_of_one_value_has_it_between_its_ends():
    for value in (-2.0, -0.5, 0.0, 3.0):
        low, high = _apart(value, value)
        assert low < value < high


# Numbers of one column


@pytest.mark.parametrize(
    ("values", "log", "written"),
    [
        ([0.01122, 9.05e-3, 0.03], True, ["1.12e-02", "9.05e-03", "3.00e-02"]),
        ([0.0, 0.1, 0.2345], False, ["0.000", "0.100", "0.234"]),
        ([0.5, 2.0], True, ["0.500", "2.000"]),
        ([12.0, 345.6], False, ["12", "346"]),
        ([0.0, 2e-5], False, ["0.0", "2.00e-05"]),
        ([1, 12], False, ["1", "12"]),
        (["adamw", True], False, ["adamw", "True"]),
    ],
)
def test_all_numbers_of_a_column_are_written_alike(values, log, written):
    write = column_format(values, log=log)
    assert [write(value) for value in values] == written


def test_choices_that_span_powers_of_ten_are_written_as_a_logarithmic_range_is():
    rates = CategoricalDistribution([6e-6, 6e-4, 6e-2])
    write = column_format(rates.choices, log=on_log_scale(rates))
    assert [write(rate) for rate in rates.choices] == ["6.00e-06", "6.00e-04", "6.00e-02"]
    assert not on_log_scale(CategoricalDistribution([0.0, 0.1, 0.2]))
    assert not on_log_scale(CategoricalDistribution(["adamw", 1, True]))
    assert [on_log_scale(FloatDistribution(1e-3, 1.0, log=log)) for log in (True, False)] == [1, 0]


def test_every_table_writes_a_parameter_as_the_others_do(stored):
    reader = read_study(stored.storage, stored.study)
    table = all_table(reader)
    column = table.names.index("learning_rate")
    assert [row[column].text for row in table.rows] == ["9.00e-04", "1.20e-03", "1.00e-02"]


def test_a_ratio_is_a_change_in_percent():
    assert (change(1.131), change(0.9), change(0.9999999)) == ("+13.1%", "-10.0%", "+0.0%")


# The title and the text that a study trained on


def test_a_study_on_the_built_in_stories_does_not_ask_its_question_of_them(stored, tmp_path):
    reader = read_study(stored.storage, stored.study)
    assert heading(reader) == ("Which loss is <b>better</b>?", None)
    built_in = StoredStudy(tmp_path, **BUILT_IN)
    title, left_open = heading(read_study(built_in.storage, built_in.study))
    assert title == "cross_entropy or squentropy, on the built-in stories"
    assert "Which loss is <b>better</b>?" in left_open


# Colours and axes


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def faded(colour: str, page: str, opacity: float) -> str:
    mixed = (
        round(opacity * int(colour[i : i + 2], 16) + (1 - opacity) * int(page[i : i + 2], 16))
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)


@pytest.mark.parametrize(
    ("palette", "page", "opacity", "least"),
    [(PALETTE, "#fdfcfa", FADED, 1.5), (ON_DARK, "#15171a", FADED_ON_DARK, 3.0)],
)
def test_trials_that_ended_early_are_seen_on_light_and_dark_pages(palette, page, opacity, least):
    for colour in palette:
        light, dark = sorted([luminance(faded(colour, page, opacity)), luminance(page)])[::-1]
        assert (light + 0.05) / (dark + 0.05) >= least, colour


@pytest.mark.parametrize("high", [1.5, 3, 9.9, 12, 19, 50, 300, 1e4, 1e9])
@pytest.mark.parametrize("most", [2.5, 3.5])
def test_a_logarithmic_axis_never_labels_every_digit(high, most):
    """plotly.js labels every digit, and moves the decades, at 0.3 decades a tick or fewer."""
    decades = np.log10(high)
    assert decades < 1 or decades / log_ticks(1, high, most) > 0.3


# What the scripts of the page need


def test_axes_are_the_arm_the_parameters_and_the_result(stored):
    found = axes(read_study(stored.storage, stored.study))
    assert [axis.name for axis in found] == [
        *("arm", "learning_rate", "n_layer", "square_weight", "perplexity")
    ]
    assert (found[0].low, found[0].high, found[0].choices) == (
        *(-0.5, 1.5, ["cross_entropy", "squentropy"]),
    )
    assert (found[1].low, found[1].high, found[1].log) == (1e-4, 1e-2, True)
    assert (found[-1].low, found[-1].high, found[-1].log) == (50.0, 80.0, False)


def test_an_axis_on_which_all_trials_are_equal_has_an_extent(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [50.0])
    assert axes(read_study(stored.storage, stored.study))[-1].high > 50


def test_tables_and_axes_name_the_metric_of_a_program(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [0.25, 0.75])
    metric = {"name": "accuracy", "direction": "maximize", "unit": None}
    stored.study.set_user_attr("spec", stored.spec.model_dump() | {"trainer": {"metric": metric}})
    reader = read_study(stored.storage, stored.study)
    assert axes(reader)[-1].name == "accuracy"
    table = all_table(reader)
    assert (table.names[2], table.columns[2], table.rows[0][2].text) == (
        *("accuracy", "accuracy", "0.750"),
    )
    assert not {"perplexity", "story"} & set(table.names)


def test_trials_are_filtered_by_what_tells_them_apart(stored):
    assert kinds(read_study(stored.storage, stored.study)) == {
        "arm": ["cross_entropy", "squentropy"],
        "outcome": ["complete", "diverged"],
    }


def test_curves_have_seconds_and_operations_where_every_trial_has(stored):
    reader = read_study(stored.storage, stored.study)
    facts = json.loads(study_json(reader, axes(reader)))
    assert facts["seconds"]["0"] == [2.0, 4.0]
    assert facts["flops"]["0"] == facts["flops"]["1"] > 0
    assert list(curve_units(reader)) == ["tokens", "seconds", "flops"]
    reader.trials.loc[0, "n_params"] = pd.NA
    assert list(curve_units(reader)) == ["tokens", "seconds"]


def test_nothing_in_the_page_data_can_end_its_script_element(tmp_path):
    stored = StoredStudy(tmp_path)
    spec = stored.study.user_attrs["spec"]
    spec["search"]["loss"]["choices"] = ["</script>", "b"]
    stored.study.set_user_attr("spec", spec)
    reader = read_study(stored.storage, stored.study)
    assert "<" not in study_json(reader, axes(reader))
    assert "</script>" in json.loads(study_json(reader, axes(reader)))["arms"]


def test_a_figure_without_anything_to_see_says_why():
    assert empty_figure("No trial.").layout.meta == {"empty": "No trial."}


# Stories


def test_the_story_of_a_trial_is_read_from_the_note_that_holds_it(tmp_path):
    stored = StoredStudy(tmp_path)
    for _ in range(2):
        stored.add("cross_entropy", [50.0])
    story = 'Tom said: "a *b* [c]"\n\nThe end.'
    note = "\n".join(["**arm**", "", *quoted(story)])
    save_note(Trial(stored.study, stored.study.trials[1]._trial_id), note)
    assert stories_by_trial(stored.study, {0, 1}) == {1: story}


# Contour, importances


def surface(trials: pd.DataFrame, x: str, y: str) -> np.ndarray:
    return contour_data(trials, x, y, SPACE)[2]


def on_a_plane(n: int) -> pd.DataFrame:
    """Trials whose log perplexity is a plane over the logarithm of one parameter and the other."""
    rng = np.random.default_rng(0)
    corners = [(a, b) for a in (0.0, 1.0) for b in (0.0, 1.0)]
    unit = np.array([*corners, *rng.random((n, 2))])
    return pd.DataFrame(
        {
            "number": range(len(unit)),
            "arm": "a",
            "outcome": "complete",
            "learning_rate": 1e-4 * 100 ** unit[:, 0],
            "dropout": 0.4 * unit[:, 1],
            "perplexity": np.exp(2 + unit[:, 0] - 0.5 * unit[:, 1]),
        }
    )


def test_a_contour_is_interpolated_on_the_scales_of_the_search():
    x, y, z = contour_data(on_a_plane(20), "learning_rate", "dropout", SPACE)
    expected = 2 + np.log(x / 1e-4)[None, :] / np.log(100) - 0.5 * y[:, None] / 0.4
    assert np.allclose(z, expected, atol=1e-9)


def test_a_contour_of_trials_on_one_line_or_of_few_knows_nothing():
    line = on_a_plane(20).assign(dropout=0.1)
    assert np.isnan(surface(line, "learning_rate", "dropout")).all()
    assert np.isnan(surface(on_a_plane(0).head(2), "learning_rate", "dropout")).all()
    assert np.isnan(surface(on_a_plane(0).head(0), "learning_rate", "dropout")).all()


def test_a_contour_is_over_the_two_numeric_parameters_that_matter_most_in_the_arm():
    rows = [("optimizer", 0.5), ("dropout", 0.3), ("n_layer", 0.05), ("learning_rate", 0.15)]
    table = pd.DataFrame(rows, columns=["parameter", "importance"]).assign(arm="a")
    assert most_important(table, "a", SPACE) == ["dropout", "learning_rate"]
    assert most_important(table, "b", SPACE) == []
    figure = plots.plot_contour(on_a_plane(9), table, ["a", "b"], SPACE)
    assert [trace.type for trace in figure.data] == ["contour", "scatter"]
    assert figure.layout.xaxis.title.text == "dropout"


def test_a_contour_of_a_metric_to_be_maximized_is_dark_where_it_is_high():
    trials = on_a_plane(9).assign(perplexity=lambda table: -np.log(table["perplexity"]))
    rows = [("dropout", 0.3), ("learning_rate", 0.15)]
    table = pd.DataFrame(rows, columns=["parameter", "importance"]).assign(arm="a")
    accuracy = Metric("accuracy", maximize=True, is_perplexity=False)
    colours = plots.plot_contour(trials, table, ["a"], SPACE, accuracy).layout.coloraxis
    assert colours.cmax == trials["perplexity"].max()  # below 0, so not in logarithms
    assert colours.colorscale[-1][1] == sequential.Cividis[0]  # the darkest


def test_the_importances_of_the_dashboard_are_over_all_arms_together(tmp_path):
    stored = StoredStudy(tmp_path)
    assert dashboard_importances(stored.study) == {}
    for i in range(20):
        arm = ("cross_entropy", "squentropy")[i % 2]
        stored.add(arm, [50.0 + i % 2 * 100 + i], learning_rate=1e-3 * (1 + i % 5))
    found = dashboard_importances(stored.study)
    assert {"loss", "learning_rate"} <= set(found)
    assert sum(found.values()) == pytest.approx(1)
