"""Every number that a figure draws equals the stored one, for every figure of a report."""

import json
import math
from collections.abc import Callable

import plotly.graph_objects as go
import pytest
from stored_studies import PROGRAM, STUDY
from stored_verdicts import Judged, ends

from sweep.analysis.calibration import calibration_table
from sweep.analysis.importance import OF_THE_BEST, OVER_THE_RANGE, importances_table
from sweep.analysis.machine import machine_table, time_table
from sweep.analysis.phases import CONFIRM, SCREENING
from sweep.analysis.study_reader import StudyReader, read_study
from sweep.analysis.tuning_curve import tuning_curve_table
from sweep.dashboard.notes import dashboard_figures
from sweep.verdict.record import keep, make_record
from sweep.visualization.confirm import confirm_data, confirm_means, forest_data
from sweep.visualization.contour import most_important
from sweep.visualization.cost import cost_data
from sweep.visualization.figures import figures
from sweep.visualization.grid import grid_data
from sweep.visualization.trials import slice_data

DROPOUT = "[search.dropout]\nlow = 0.0\nhigh = 0.3\n[search.loss]"
Pairs = list[tuple[float, float]]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> StudyReader:
    """All outcomes, perplexities from 80 to 50,000, confirm runs and a verdict."""
    folder = tmp_path_factory.mktemp("judged")
    judged = Judged(folder, STUDY.replace("[search.loss]", DROPOUT))
    stored = judged.stored
    judged.run(SCREENING, {"cross_entropy": [82.0] * 3, "squentropy": [80.0] * 3})
    judged.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    keep(stored.study, make_record(judged.request, stored.storage))
    bins = [{"count": 9, "confidence": 0.2 * i, "accuracy": 0.15 * i} for i in range(5)]
    for i in range(12):
        for arm in stored.spec.arms:
            outcome = {9: "pruned", 10: "diverged", 11: "running"}.get(i, "complete")
            last = {7: 367.0, 8: 5000.0, 9: 50_000.0}.get(i, 81.0 + i)
            settings = {"learning_rate": 8e-4 * (1 + i), "n_layer": 1 + i % 6, "dropout": 0.02 * i}
            settings |= {"square_weight": 0.5 + 0.1 * i} if arm == "squentropy" else {}
            origin = "baseline:original" if i == 7 else "sampler"
            number = stored.add(arm, [900.0 + i, last], outcome, origin, **settings)
            run_dir = folder / "tiny" / str(number)
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "calibration.json").write_text(json.dumps(bins))
    return read_study(stored.storage, stored.study)


def points(figure: go.Figure) -> Pairs:
    """Every point of a figure that is a result: not on the lane at the upper edge, not a rule."""
    rules = (
        "baseline",
        "original study",
        "same seed",
        "Pareto front",
        "as often right as it is sure",
    )
    return [
        (x, y)
        for trace in figure.data
        if trace.yaxis != "y2"
        and trace.name not in rules
        and trace.line.dash != "dash"
        and trace.fill is None
        for x, y in zip(trace.x, trace.y, strict=True)
        if x is not None
    ]


def values(table, x: str, y: str) -> Pairs:
    return [(row[x], row[y]) for row in table.dropna(subset=[x, y]).to_dict("records")]


def same(drawn: Pairs, stored: Pairs) -> bool:
    """Equal but for the six digits of curves and the shift that keeps arms apart at an integer."""
    drawn, stored = sorted(drawn), sorted(stored)
    return len(drawn) == len(stored) and all(
        x == pytest.approx(a, rel=1e-12) and y == pytest.approx(b, rel=1e-5)
        for (x, y), (a, b) in zip(drawn, stored, strict=True)
    )


def frame_of(drawn: go.Figure) -> tuple[float, float]:
    low, high = drawn.layout.yaxis.range
    return (10**low, 10**high) if drawn.layout.yaxis.type == "log" else (low, high)


def curves(reader: StudyReader, drawn: go.Figure) -> bool:
    return same(points(drawn), values(reader.evaluations, "tokens", "perplexity"))


def tuning_curve(reader: StudyReader, drawn: go.Figure) -> bool:
    table = tuning_curve_table(reader.trials, reader.arms)
    bands = {round(y, 9) for trace in drawn.data if trace.fill for y in trace.y}
    frame = {round(end, 9) for end in frame_of(drawn)}  # drawn for an end that nothing bounds
    bounds = [*table["high"][table["high"] < math.inf], *table["low"][table["low"] > 0]]
    found = table[table["perplexity"] < math.inf]
    return bands - frame == {round(end, 9) for end in bounds} - frame and same(
        points(drawn), values(found, "cost", "perplexity")
    )


def slice_by(name: str) -> Callable[[StudyReader, go.Figure], bool]:
    def equal(reader: StudyReader, drawn: go.Figure) -> bool:
        table = slice_data(reader.trials, name)
        found = points(drawn)
        if name == "n_layer":
            found = [(round(x), y) for x, y in found]
        return same(found, values(table, "value", "perplexity"))

    return equal


def importances(question: str) -> Callable[[StudyReader, go.Figure], bool]:
    def equal(reader: StudyReader, drawn: go.Figure) -> bool:
        table = importances_table(reader.study, reader.arms)
        table = table[table["question"] == question]
        found = [(x, bar.name + y) for bar in drawn.data for x, y in zip(bar.x, bar.y, strict=True)]
        rows = table.itertuples()
        return sorted(found) == sorted((row.importance, row.arm + row.parameter) for row in rows)

    return equal


def grid(reader: StudyReader, drawn: go.Figure) -> bool:
    table = grid_data(reader.trials, "dropout", "n_layer", reader.parameters)
    cells = (z for map_ in drawn.data if map_.type == "heatmap" for row in map_.z for z in row)
    found = sorted(10**z for z in cells if z is not None)
    return found == pytest.approx(sorted(table["best"].dropna()))


def cost(reader: StudyReader, drawn: go.Figure) -> bool:
    table = cost_data(reader.trials, reader.evaluations)
    return same(points(drawn), values(table, "seconds", "perplexity"))


def calibration(reader: StudyReader, drawn: go.Figure) -> bool:
    best = list(reader.complete.drop_duplicates("arm")["number"])
    table = calibration_table(reader.study, best)
    return same(points(drawn), values(table, "confidence", "accuracy"))


def confirm_runs(reader: StudyReader, drawn: go.Figure) -> bool:
    runs = confirm_data(reader.confirm_runs)
    means = confirm_means(runs)
    bars = [trace for trace in drawn.data if trace.error_y.array]
    upper = [trace.y[0] + trace.error_y.array[0] for trace in bars]
    lower = [trace.y[0] - trace.error_y.arrayminus[0] for trace in bars]
    found = sorted(y for _, y in points(drawn))
    return (
        found == pytest.approx(sorted([*runs["perplexity"], *means["perplexity"]]))
        and upper == pytest.approx(list(means["high"]))
        and lower == pytest.approx(list(means["low"]))
    )


def confirm_ratios(reader: StudyReader, drawn: go.Figure) -> bool:
    table = forest_data(reader.verdict)
    seeds = [seed for row in table["seeds"] for seed in row]
    stored = [*table["ratio"], *table["low"], *table["high"], *seeds]
    return sorted(x for x, _ in points(drawn)) == pytest.approx(sorted(stored))


def contour(reader: StudyReader, drawn: go.Figure) -> bool:
    trials = [trace for trace in drawn.data if trace.type == "scatter"]
    found = [list(trace.customdata) for trace in trials]
    table = importances_table(reader.study, reader.arms)
    table = table[table["question"] == OVER_THE_RANGE]
    stored = []
    for arm in reader.arms:
        pair = most_important(table, arm, reader.parameters)
        of_arm = reader.complete[reader.complete["arm"] == arm].dropna(subset=pair)
        stored.append(sorted(of_arm["number"]))
    return [sorted(numbers) for numbers in found] == stored


def by_trial(column: str, unit: int) -> Callable[[StudyReader, go.Figure], bool]:
    def equal(reader: StudyReader, drawn: go.Figure) -> bool:
        table = machine_table(reader.study, reader.evaluations)
        return same(points(drawn), values(table.assign(y=table[column] / unit), "number", "y"))

    return equal


def slots(reader: StudyReader, drawn: go.Figure) -> bool:
    table = machine_table(reader.study, reader.evaluations)
    found = [(x, base) for bar in drawn.data for x, base in zip(bar.x, bar.base, strict=True)]
    minutes = [((row.end - row.start) / 60, row.start / 60) for row in table.itertuples()]
    return sorted(found) == sorted(minutes)


def time(reader: StudyReader, drawn: go.Figure) -> bool:
    table = time_table(reader.study, machine_table(reader.study, reader.evaluations))
    found = {(bar.name, y): x for bar in drawn.data for x, y in zip(bar.x, bar.y, strict=True)}
    stored = {(row.kind, f"slot {row.slot}"): row.share for row in table.itertuples()}
    return {key: found[key] for key in stored} == stored


EQUAL = {
    "curves": curves,
    "tuning-curve": tuning_curve,
    "confirm-runs": confirm_runs,
    "confirm-ratios": confirm_ratios,
    "slice-learning_rate": slice_by("learning_rate"),
    "slice-n_layer": slice_by("n_layer"),
    "slice-dropout": slice_by("dropout"),
    "slice-square_weight": slice_by("square_weight"),
    "importances": importances(OVER_THE_RANGE),
    "importances-best": importances(OF_THE_BEST),
    "contour": contour,
    "grid": grid,
    "cost-time": cost,
    "calibration": calibration,
    "time": time,
    "slots": slots,
    "speed": by_trial("tokens_per_second", 1),
    "memory": by_trial("peak_memory_bytes", 2**20),
}


def test_every_figure_draws_the_stored_numbers(reader: StudyReader):
    checked = {figure.name: EQUAL[figure.name](reader, figure.draw()) for figure in figures(reader)}
    assert checked == dict.fromkeys(EQUAL, True)


def test_no_point_is_outside_of_a_logarithmic_frame_but_of_curves(reader: StudyReader):
    for figure in figures(reader):
        drawn = figure.draw()
        if figure.name != "curves" and drawn.layout.yaxis.type == "log":
            low, high = frame_of(drawn)
            assert all(low <= y <= high for _, y in points(drawn)), figure.name


def test_the_dashboards_figures_draw_the_stored_numbers(reader: StudyReader):
    drawn = dashboard_figures(reader)
    assert EQUAL["curves"](reader, drawn["curves-by-arm"])
    assert EQUAL["tuning-curve"](reader, drawn["tuning-curve-by-arm"])
    assert EQUAL["slice-learning_rate"](reader, drawn["learning-rate-by-arm"])
    assert EQUAL["confirm-runs"](reader, drawn["confirm-runs"])


def test_hover_texts_have_a_programs_figures_in_three_digits_and_names_as_they_are(tmp_path):
    text = PROGRAM.replace('"accuracy"', '"val_perplexity"').replace('"sgd"', '"low perplexity"')
    judged = Judged(tmp_path, text)
    judged.run(CONFIRM, dict.fromkeys(judged.request.arms, [0.00012] * 5))
    keep(judged.stored.study, make_record(judged.request, judged.stored.storage))
    for _ in range(2):
        judged.stored.add("muon", [0.00012])
    reader = read_study(judged.stored.storage, judged.stored.study)
    drawn = {each.name: str(each.draw().to_json()) for each in figures(reader)}
    for name in ("tuning-curve", "slice-n_layer", "cost-time", "confirm-runs"):
        assert "1.20e-04" in drawn[name], name
    assert "val_perplexity %{y:.4~g}" in drawn["curves"]
    assert "low perplexity" in drawn["curves"]
    assert not any("val_val" in text for text in drawn.values())
