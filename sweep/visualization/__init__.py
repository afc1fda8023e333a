"""Plots: tables in, plotly figures out; saving and showing are the caller's.

Each plot is drawn from a table that is tested by value: a `..._data` function beside it, or a table
of sweep.analysis. Add a plot by adding such a pair; sweep/visualization/figures.py gives it a name
and a position in the report.
"""

from sweep.visualization.calibration import plot_calibration
from sweep.visualization.confirm import plot_confirm_runs, plot_forest
from sweep.visualization.contour import plot_contour
from sweep.visualization.cost import plot_cost
from sweep.visualization.grid import plot_grid
from sweep.visualization.machine import plot_memory, plot_slots, plot_speed, plot_time
from sweep.visualization.trials import plot_curves, plot_importances, plot_slice
from sweep.visualization.tuning_curve import plot_tuning_curve

__all__ = [
    "plot_calibration",
    "plot_confirm_runs",
    "plot_contour",
    "plot_cost",
    "plot_curves",
    "plot_forest",
    "plot_grid",
    "plot_importances",
    "plot_memory",
    "plot_slice",
    "plot_slots",
    "plot_speed",
    "plot_time",
    "plot_tuning_curve",
]
