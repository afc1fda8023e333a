import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stored_studies import PROGRAM, StoredStudy

from sweep import visualization as plots
from sweep.analysis import results
from sweep.analysis.study_reader import read_study
from sweep.analysis.tuning_curve import band, tuning_curve_table
from sweep.study.metric import Metric
from sweep.visualization.figures import figure
from sweep.visualization.style import PALETTE

ARMS = ["cross_entropy", "squentropy"]


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    """Three complete trials of each arm; of squentropy one was pruned and one diverged as well."""
    stored = StoredStudy(tmp_path)
    for end in (53.0, 56.0, 59.0):
        stored.add("cross_entropy", [end])
        stored.add("squentropy", [end + 10])
    stored.add("squentropy", [61.0], outcome="pruned")
    stored.add("squentropy", [90.0], outcome="diverged")
    stored.add("squentropy", [90.0], outcome="failed")  # the machine's fault
    stored.add("squentropy", [90.0], outcome="running")
    return stored


def of_arm(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    return table[table["arm"] == arm].reset_index(drop=True)


def test_the_tuning_curve_is_the_median_of_the_best_of_n(stored):
    table = of_arm(tuning_curve_table(results.trials_table(stored.study), ARMS), ARMS[0])
    assert list(table["n"]) == [1, 2, 3]
    # half of all single draws from {53, 56, 59} reach 56; the best of 2 reaches 53 in 5 of 9
    assert list(table["perplexity"]) == [pytest.approx(56.0), pytest.approx(53.0), 53.0]


def test_pruned_and_diverged_trials_count_as_worse_than_complete_ones(stored):
    table = of_arm(tuning_curve_table(results.trials_table(stored.study), ARMS), ARMS[1])
    assert len(table) == 5
    assert table["perplexity"][0] == 69.0  # the third of 63, 66, 69, worse, worse


def drawn(perplexities: np.ndarray) -> pd.DataFrame:
    """Complete trials of one arm that a sampler drew."""
    columns = {"arm": "a", "outcome": "complete", "origin": "sampler"}
    return pd.DataFrame(columns | {"perplexity": perplexities})


@pytest.mark.parametrize("sampler", ["gp", "tpe", "qmc", None])
def test_trials_of_a_sampler_that_learns_have_a_curve_and_no_band(stored, sampler: str | None):
    table = tuning_curve_table(results.trials_table(stored.study), ARMS, sampler)
    assert table["perplexity"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)
    figure = plots.plot_tuning_curve(table, ARMS)
    assert [trace.name for trace in figure.data] == ARMS
    assert "band" not in figure.data[0].text[0]


def test_baselines_and_sobol_points_are_no_random_draws():
    trials = pd.concat([drawn(np.array([60.0, 62.0, 64.0])), drawn(np.array([50.0, 51.0]))])
    trials["origin"] = ["sampler"] * 3 + ["baseline:nanogpt", "sobol"]
    table = tuning_curve_table(trials, ["a"], "random")
    assert (len(table), table["perplexity"].min()) == (3, 60.0)


def test_the_band_never_reaches_below_the_floor():
    trials = drawn(np.linspace(8.0, 12.0, 20))
    assert tuning_curve_table(trials, ["a"], "random")["low"].min() == 1.0  # of any perplexity
    assert tuning_curve_table(trials, ["a"], "random", floor=7.5)["low"].min() == 7.5


def test_band_holds_the_whole_true_curve_in_95_of_100_samples():
    n, rng = 12, np.random.default_rng(1)
    truth = [1 - 0.5 ** (1 / k) for k in range(1, n + 1)]  # of uniform trials
    held = 0
    for draw in rng.random((400, n)):
        trials = drawn(draw)
        table = tuning_curve_table(trials, ["a"], "random", floor=0.0)
        held += bool(((table["low"] <= truth) & (truth <= table["high"])).all())
    assert 0.93 <= held / 400 <= 1.0


def test_band_for_one_value_is_the_interval_of_a_uniform():
    below, above = band(1)
    assert (below[0], above[0]) == (pytest.approx(0.025, abs=2e-3), pytest.approx(0.975, abs=2e-3))


def test_of_a_maximised_metric_what_no_draw_reaches_is_not_drawn():
    accuracy = Metric("accuracy", maximize=True, is_perplexity=False)
    trials = drawn(np.array([0.5, 0.3, 0.2, 0.1]))
    trials["outcome"] = ["complete", *["pruned"] * 3]
    table = tuning_curve_table(trials, ["a"], metric=accuracy)
    assert list(table["perplexity"]) == [-math.inf, -math.inf, 0.5, 0.5]
    figure = plots.plot_tuning_curve(table, ["a"])
    assert [y for trace in figure.data for y in trace.y] == [0.5, 0.5]


def test_a_curve_without_a_band_is_not_called_one_of_random_draws(tmp_path: Path):
    sampler = '[sampler]\nkind = "random"\n'
    stored = StoredStudy(tmp_path, f"{PROGRAM}{sampler}")
    stored.add("adamw", [0.5])
    caption = figure(read_study(stored.storage, stored.study), "tuning-curve").caption
    assert "band for all n" not in caption


def test_the_band_of_a_program_may_be_below_one(tmp_path: Path):
    of_loss = PROGRAM.replace('direction = "maximize"', 'direction = "minimize"')
    stored = StoredStudy(tmp_path, f'{of_loss}[sampler]\nkind = "random"\n')
    for end in (0.5, 0.6, 0.7):
        stored.add("adamw", [end])
    curve = figure(read_study(stored.storage, stored.study), "tuning-curve").draw()
    (band_of_arm,) = [trace for trace in curve.data if trace.fill]
    assert min(band_of_arm.y) < 0.5


def test_an_arm_without_a_complete_trial_has_no_row(stored):
    table = tuning_curve_table(results.trials_table(stored.study), ["cross_entropy", "mse"])
    assert set(table["arm"]) == {"cross_entropy"}
    assert tuning_curve_table(results.trials_table(stored.study), []).empty


def test_the_cost_is_that_of_n_average_trials_of_the_arm_and_ends_with_its_trials():
    trials = pd.concat(
        [
            drawn(np.array([60.0, 62.0, 64.0])).assign(tokens=[100.0, 300.0, 200.0]),
            drawn(np.array([61.0, 63.0])).assign(arm="b", tokens=[50.0, math.nan]),
        ]
    )
    trials.loc[trials["tokens"].isna(), "outcome"] = "pruned"  # before its first evaluation
    table = tuning_curve_table(trials, ["a", "b"], "random")
    assert list(of_arm(table, "a")["cost"]) == [200.0, 400.0, 600.0]
    assert list(of_arm(table, "b")["cost"]) == [25.0, 50.0]
    figure = plots.plot_tuning_curve(table, ["a", "b"])
    curves = [trace for trace in figure.data if not trace.fill]
    assert list(curves[0].x) == [200.0, 400.0, 600.0]
    assert "3 trials, 600 tokens: 60.00" in curves[0].text[2]
    assert "tokens" in figure.layout.xaxis.title.text


# The figure


def test_the_tuning_curve_is_drawn_within_its_band(stored):
    table = tuning_curve_table(results.trials_table(stored.study), ARMS, "random")
    figure = plots.plot_tuning_curve(table, ARMS)
    first, second, curve, other = figure.data
    assert list(curve.y) == list(of_arm(table, "cross_entropy")["perplexity"])
    assert (curve.name, other.name) == tuple(ARMS)
    assert (curve.line.color, other.line.color) == PALETTE[:2]
    assert first.fill == second.fill == "toself"
    assert len(first.x) == 2 * len(curve.x)
    low, high = figure.layout.yaxis.range
    if figure.layout.yaxis.type == "log":
        low, high = 10**low, 10**high
    assert all(low <= y <= high for y in first.y)  # cut at the frame where nothing bounds it


@pytest.mark.parametrize("floor", [None, 7.5])
def test_no_band_is_drawn_under_the_lowest_possible_perplexity(floor):
    trials = drawn(np.array([8.0, 9.0, 300.0]))  # so the frame is wide, and reaches lower
    figure = plots.plot_tuning_curve(
        tuning_curve_table(trials, ["a"], "random", floor), ["a"], floor
    )
    (area,) = [trace for trace in figure.data if trace.fill]
    assert min(area.y) >= (floor or 1.0)


def test_hovering_says_when_so_few_trials_bound_nothing(stored):
    figure = plots.plot_tuning_curve(
        tuning_curve_table(results.trials_table(stored.study), ARMS, "random"), ARMS
    )
    assert "1 trials: 56.00<br>95% band not bounded" in figure.data[2].text[0]


def test_a_curve_of_five_hundred_trials_has_few_points_and_its_ends():
    perplexities = 50 + np.arange(500) / 10
    trials = drawn(perplexities)
    figure = plots.plot_tuning_curve(tuning_curve_table(trials, ["a"], "random"), ["a"])
    curve = figure.data[-1]
    assert (curve.x[0], curve.x[-1]) == (1, 500)
    assert len(curve.x) <= 40
    assert len(json.dumps(figure.to_plotly_json()["data"], default=list)) < 10_000


def test_without_a_complete_trial_the_figure_says_so():
    none = pd.DataFrame({"arm": ["a"], "outcome": ["pruned"], "perplexity": [math.nan]})
    figure = plots.plot_tuning_curve(tuning_curve_table(none, ["a"]), ["a"])
    assert figure.layout.annotations[0].text == "No complete trial yet."
