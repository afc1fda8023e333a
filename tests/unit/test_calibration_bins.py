import json

from stored_studies import StoredStudy

from sweep import visualization as plots
from sweep.analysis.calibration import calibration_table
from sweep.visualization.style import PALETTE

ARMS = ["cross_entropy", "squentropy"]


def stored_bins(tmp_path) -> StoredStudy:
    """Trial 0 has left bins, the file of trial 1 is torn, that of 2 is gone."""
    bins = [
        {"count": 5, "confidence": 0.9, "accuracy": 0.6},
        {"count": 5, "confidence": 0.3, "accuracy": 0.2},
    ]
    stored = StoredStudy(tmp_path)
    for number, text in enumerate((json.dumps(bins), "[{")):
        run_dir = tmp_path / "tiny" / str(number)
        run_dir.mkdir(parents=True)
        (run_dir / "calibration.json").write_text(text)
        stored.add(ARMS[number], [50.0])
    stored.add("squentropy", [60.0])
    return stored


def test_calibration_bins_come_by_confidence_from_where_there_are_any(tmp_path):
    table = calibration_table(stored_bins(tmp_path).study, [0, 1, 2])
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        (0, "cross_entropy", 5, 0.3, 0.2),
        (0, "cross_entropy", 5, 0.9, 0.6),
    ]


def test_plot_calibration_has_a_line_per_trial_beside_the_diagonal(tmp_path):
    table = calibration_table(stored_bins(tmp_path).study, [0])
    diagonal, line = plots.plot_calibration(table, ARMS).data
    assert (diagonal.x, diagonal.y) == ((0, 1), (0, 1))
    assert (line.x, line.y) == ((0.3, 0.9), (0.2, 0.6))
    assert line.line.color == PALETTE[0]
    assert "sure 90.0%, right 60.0%" in line.text[1]


def test_plot_calibration_without_bins_says_so(tmp_path):
    table = calibration_table(StoredStudy(tmp_path).study, [])
    assert "No trial" in plots.plot_calibration(table, ARMS).layout.annotations[0].text
