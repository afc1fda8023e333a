"""Tables in, plotly figures out; saving and showing are the caller's. Knows no storage, no files.

Each plot is drawn from a table that is tested by value: a `..._data` function beside it, or a table
of sweep.results, sweep.importances, sweep.expected_best or sweep.sessions. Add a plot by adding
such a pair; sweep/figures.py gives it a name, and so a place in the report.
"""

from sweep.plots.calibration import plot_calibration
from sweep.plots.confirm import (
    confirm_data,
    confirm_means,
    forest_data,
    plot_confirm_runs,
    plot_forest,
)
from sweep.plots.cost import cost_data, plot_cost, plot_timeline
from sweep.plots.expected_best import plot_expected_best
from sweep.plots.landscape import frontier_data, grid_data, plot_frontier, plot_grid
from sweep.plots.trials import (
    curves_data,
    plot_best_so_far,
    plot_curves,
    plot_importances,
    plot_outcomes,
    plot_slice,
    slice_data,
)

__all__ = [
    "confirm_data",
    "confirm_means",
    "cost_data",
    "curves_data",
    "forest_data",
    "frontier_data",
    "grid_data",
    "plot_best_so_far",
    "plot_calibration",
    "plot_confirm_runs",
    "plot_cost",
    "plot_curves",
    "plot_expected_best",
    "plot_forest",
    "plot_frontier",
    "plot_grid",
    "plot_importances",
    "plot_outcomes",
    "plot_slice",
    "plot_timeline",
    "slice_data",
]
