import math

import pandas as pd
import pytest
from scipy import stats

from sweep import visualization as plots
from sweep.visualization.confirm import confirm_data, confirm_means
from sweep.visualization.style import PALETTE

ARMS = ["cross_entropy", "squentropy"]


def runs_of(*rows: tuple[str, str, int, int, str, float]) -> pd.DataFrame:
    """Phase, arm, of_trial, seed, outcome and perplexity of each run, by number."""
    columns = ["phase", "arm", "of_trial", "seed", "outcome", "perplexity"]
    return pd.DataFrame(rows, columns=columns).assign(number=range(len(rows)))


RUNS = runs_of(
    ("screening", "cross_entropy", 1, 1001, "complete", 40.0),
    ("confirm", "cross_entropy", 1, 2001, "complete", 50.0),  # chosen once, and no longer
    ("confirm", "cross_entropy", 4, 2002, "complete", 60.0),
    ("confirm", "squentropy", 7, 2002, "complete", 64.0),
    ("confirm", "squentropy", 7, 2001, "complete", 66.0),
    ("confirm", "cross_entropy", 4, 2001, "complete", 62.0),
)


def trace_of(figure, name: str):
    (found,) = [trace for trace in figure.data if trace.name == name and trace.x]
    return found


def test_confirm_data_has_the_seeds_of_the_configuration_that_was_chosen_last():
    data = confirm_data(RUNS)
    assert [tuple(row) for row in data[["arm", "of_trial", "seed", "perplexity"]].to_numpy()] == [
        ("cross_entropy", 4, 2001, 62.0),
        ("cross_entropy", 4, 2002, 60.0),
        ("squentropy", 7, 2001, 66.0),
        ("squentropy", 7, 2002, 64.0),
    ]


def test_confirm_data_of_a_verdict_are_the_runs_that_it_compared():
    confirmed = [{"arm": "cross_entropy", "trial": 1}, {"arm": "squentropy", "trial": 7}]
    data = confirm_data(RUNS, {"confirmed": confirmed, "seeds": [2001]})
    assert [tuple(row) for row in data[["arm", "of_trial", "seed", "perplexity"]].to_numpy()] == [
        ("cross_entropy", 1, 2001, 50.0),
        ("squentropy", 7, 2001, 66.0),
    ]


def test_confirm_means_are_geometric_with_a_t_interval_over_seeds():
    first = confirm_means(confirm_data(RUNS)).iloc[0]
    nats = [math.log(60), math.log(62)]
    assert first["perplexity"] == pytest.approx(math.sqrt(60 * 62))
    half = stats.t.ppf(0.975, 1) * abs(nats[1] - nats[0]) / 2
    assert math.log(first["high"]) == pytest.approx(sum(nats) / 2 + half)
    assert math.log(first["low"]) == pytest.approx(sum(nats) / 2 - half)


def test_an_arm_with_a_run_that_diverged_has_no_mean_and_shows_it():
    runs = pd.concat([RUNS, runs_of(("confirm", "squentropy", 7, 2003, "diverged", math.nan))])
    runs["number"] = range(len(runs))
    assert list(confirm_means(confirm_data(runs))["arm"]) == ["cross_entropy"]
    figure = plots.plot_confirm_runs(runs, ARMS)
    seeds, lost = (trace for trace in figure.data if trace.name == "squentropy")
    assert (seeds.marker.symbol, seeds.y) == ("diamond", (66.0, 64.0))
    assert (lost.marker.symbol, lost.yaxis) == ("x", "y2")  # not on the axis of perplexity
    assert "diverged" in lost.text[0]


def test_every_seed_is_a_point_and_pairs_are_joined():
    figure = plots.plot_confirm_runs(RUNS, ARMS)
    seeds = trace_of(figure, "squentropy")
    assert (seeds.x, seeds.y) == ((1.0, 1.0), (66.0, 64.0))
    assert seeds.marker.color == PALETTE[1]
    pairs = trace_of(figure, "same seed")
    assert pairs.x == (0.0, 1.0, None, 0.0, 1.0, None)
    assert pairs.y == (62.0, 66.0, None, 60.0, 64.0, None)
    assert figure.layout.xaxis.ticktext == tuple(ARMS)


def test_the_mean_of_each_arm_has_its_interval_and_one_entry_in_the_legend():
    figure = plots.plot_confirm_runs(RUNS, ARMS)
    means = [trace for trace in figure.data if trace.name == "mean and 95% interval"]
    assert [trace.y[0] for trace in means] == pytest.approx(
        [math.sqrt(60 * 62), math.sqrt(64 * 66)]
    )
    assert [trace.showlegend for trace in means] == [True, False]
    low = means[0].y[0] - means[0].error_y.arrayminus[0]
    assert low == pytest.approx(confirm_means(confirm_data(RUNS))["low"][0])


def test_arms_keep_their_colour_where_only_some_were_confirmed():
    figure = plots.plot_confirm_runs(RUNS[RUNS["arm"] == "squentropy"], ARMS)
    assert trace_of(figure, "squentropy").marker.color == PALETTE[1]
    difference = {"mean": 0.1, "low": 0.0, "high": 0.2, "per_seed": [0.1, 0.1]}
    pair = {"arm": "c", "reference": "b", "difference": difference, "bootstrap": None}
    record = {"margin": 0.01, "arms": ["b", "c"], "comparisons": [pair | {"other_metrics": []}]}
    whisker = plots.plot_forest(record, ["a", "b", "c"]).data[0]
    assert whisker.line.color == PALETTE[2]


def test_without_confirm_runs_the_figures_say_what_makes_them():
    for figure in (plots.plot_confirm_runs(RUNS[:1], ARMS), plots.plot_forest(None, ARMS)):
        assert "squen-sweep verdict" in figure.layout.annotations[0].text
