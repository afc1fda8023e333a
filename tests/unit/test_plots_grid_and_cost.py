import math
from pathlib import Path

import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from stored_studies import StoredStudy

from sweep import visualization as plots
from sweep.analysis import results
from sweep.visualization.cost import cost_data
from sweep.visualization.grid import grid_data

ARMS = ["cross_entropy", "squentropy"]
SPACE = {
    "dropout": FloatDistribution(0.0, 0.3),
    "n_layer": IntDistribution(1, 3),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
}


def trials_of(*rows: tuple[str, str, float, int, float]) -> pd.DataFrame:
    """Arm, outcome, dropout, n_layer and perplexity of each trial."""
    columns = ["arm", "outcome", "dropout", "n_layer", "perplexity"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(number=range(len(table)), last_step=100, learning_rate=1e-2)


GRID = trials_of(
    ("cross_entropy", "complete", 0.01, 1, 60.0),
    ("cross_entropy", "complete", 0.04, 1, 50.0),
    ("cross_entropy", "pruned", 0.3, 3, 10.0),
    ("squentropy", "running", 0.1, 2, 5.0),
)


def test_grid_data_counts_trials_and_takes_the_best_complete_one_of_a_cell():
    data = grid_data(GRID, "dropout", "n_layer", SPACE)
    rows = [tuple(row) for row in data.itertuples(index=False)]
    assert rows[0] == ("cross_entropy", "0–0.05", "1", 2, 50.0)
    assert rows[1][:4] == ("cross_entropy", "0.25–0.3", "3", 1)  # the upper end is in
    assert math.isnan(rows[1][4])  # pruned: measured after fewer steps
    assert len(rows) == 2


def test_grid_data_cuts_a_logarithmic_range_by_its_logarithm():
    data = grid_data(GRID, "learning_rate", "n_layer", SPACE)
    assert set(data["x"]) == {"0.01–0.032"}  # half a decade each


def test_grid_data_takes_choices_as_they_are():
    space = SPACE | {"dropout": CategoricalDistribution([0.01, 0.04, 0.3])}
    assert set(grid_data(GRID, "dropout", "n_layer", space)["x"]) == {"0.01", "0.04", "0.3"}


def test_an_integer_among_real_choices_is_a_cell_of_the_grid():
    space = SPACE | {"dropout": CategoricalDistribution([0, 0.1])}
    trials = GRID.assign(dropout=[0.0, 0.0, 0.1, 0.1])  # of such choices the column is real
    data = grid_data(trials, "dropout", "n_layer", space)
    assert list(zip(data["x"], data["count"], strict=True)) == [("0", 2), ("0.1", 1)]


def test_plot_grid_has_a_map_per_arm_with_counts_on_one_scale():
    figure = plots.plot_grid(GRID, "dropout", "n_layer", ARMS, SPACE)
    first, without, second, _ = figure.data
    assert first.text[0][0] == "<b>50.0</b><br>2 trials"
    assert (without.x, without.y, without.text) == (("0.25–0.3",), ("3",), ("–<br>1 trial",))
    assert first.z[0][0] == pytest.approx(math.log10(50))
    assert all(text == "" for line in second.text for text in line)
    assert first.coloraxis == second.coloraxis == "coloraxis"


# Cost


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """Trials 0 to 4; only read by the tests."""
    stored = StoredStudy(Path(tmp_path_factory.mktemp("stored")))
    stored.add("cross_entropy", [200.0, 50.0], learning_rate=1e-3)
    stored.add("squentropy", [250.0, 40.0, 30.0], learning_rate=2e-3, n_layer=3)
    stored.add("squentropy", [180.0], outcome="diverged", learning_rate=1e-2)
    stored.add("squentropy", [90.0], outcome="pruned")
    stored.add("cross_entropy", [80.0], outcome="running")
    return stored


def tables(stored: StoredStudy) -> tuple[pd.DataFrame, pd.DataFrame]:
    return results.trials_table(stored.study), results.evaluations_table(stored.storage, "tiny")


def test_cost_data_marks_the_pareto_front_of_complete_trials(stored):
    trials, evaluations = tables(stored)
    data = cost_data(trials, evaluations).set_index("number")
    assert data["seconds"].to_dict() == {0: 4.0, 1: 6.0, 3: 2.0, 4: 2.0}  # 2 has no perplexity
    assert data["front"].to_dict() == {0: True, 1: True, 3: False, 4: False}


def test_plot_cost_draws_the_front_and_fades_what_ended_early(stored):
    figure = plots.plot_cost(*tables(stored), ARMS, floor=20.0)
    front = figure.data[0]
    assert (front.x, front.y) == ((4.0, 6.0), (50.0, 30.0))
    squentropy = [trace for trace in figure.data if trace.name == "squentropy"]
    assert [trace.x for trace in squentropy] == [(6.0,), (2.0,)]
    assert squentropy[1].marker.opacity < squentropy[0].marker.opacity
    assert figure.data[-1].name == "lowest possible, 20.00"
