"""Settings at an end of what was searched are named wherever the best trial is."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from stored_studies import StoredStudy

from sweep.analysis.study_reader import best_of_arms, read_study
from sweep.export.trial import export
from sweep.report.status_table import study_status
from sweep.study.range_ends import ends_of_trial, range_ends
from sweep.study.search_space import Parameter

SEARCH = {
    "learning_rate": Parameter(low=1e-4, high=1e-2, log=True),
    "n_layer": Parameter(low=1, high=6),
    "square_weight": Parameter(low=0.1, high=2.0),
}


@pytest.mark.parametrize(
    ("params", "ends"),
    [
        ({"learning_rate": 3e-3, "n_layer": 1}, {"n_layer": "least"}),
        (
            {"n_layer": 6, "square_weight": 0.1 + 1e-17},
            {"n_layer": "most", "square_weight": "least"},
        ),
        ({"learning_rate": 1.1e-4, "n_layer": 5, "square_weight": 1.9}, {}),
        ({"learning_rate": 9.9e-3}, {"learning_rate": "most"}),  # the range is logarithmic
    ],
)
def test_a_number_within_one_per_cent_of_its_range_is_at_an_end(params, ends):
    assert {end.parameter: end.end for end in range_ends(SEARCH, params)} == ends


def test_of_choices_only_the_least_and_the_most_of_three_are_ends():
    for choices, ends in (([6e-6, 6e-4, 6e-2], ["least", None, "most"]), ([1.0, 2.0], [None] * 2)):
        search = {"learning_rate": Parameter(choices=choices)}
        found = [[*range_ends(search, {"learning_rate": rate})] for rate in choices]
        assert [one[0].end if one else None for one in found] == ends


def test_the_compared_parameter_seeds_and_another_programs_study_have_no_ends():
    grid = {"choices": [1, 2, 4]}
    spec = {"compare": "n_layer", "search": {"n_layer": grid, "n_head": grid, "seed": grid}}
    params = {"n_layer": 4, "n_head": 1, "seed": 4}
    assert ends_of_trial(spec, params) == "n_head 1 (the least)"
    assert ends_of_trial(None, {"n_layer": 4}) == ""


def test_status_report_and_export_name_the_ends_of_the_best_trial(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [50.0], n_layer=6)
    stored.add("cross_entropy", [60.0], n_layer=1)  # not the best
    stored.add("squentropy", [70.0], n_layer=3, square_weight=0.5)
    console = Console(file=io.StringIO(), width=160)
    console.print(*study_status(stored.study, 160), sep="\n")
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "cross_entropy n_layer 6 (the most)" in shown
    assert "(the least)" not in shown
    best, other = best_of_arms(read_study(stored.storage, stored.study))
    assert (best.range_ends, other.range_ends) == ("n_layer 6 (the most)", "")
    assert "n_layer 6 (the most)" in export(stored.study)[1].line()
    assert "searched" not in export(stored.study, "squentropy")[1].line()
