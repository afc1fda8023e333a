"""The page of benchmarks says what the measured files say."""

import json
import re

import pytest
from benchmarks.page import HERE, PAGE, page, share, spread


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run python -m tests.benchmarks.page"


def test_every_figure_is_followed_by_its_least_and_most():
    of = {"median": 1.256, "least": 1.0, "most": 2.5}
    assert spread(of, 2, " x") == "1.26 x (1.00 to 2.50)"
    assert share({"median": 0.05, "least": 0.04, "most": 0.0651}) == "5.0 % (4.0 to 6.5)"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\((\w+)\.json\)", PAGE.read_text()))))
def test_every_result_on_the_page_says_how_and_where_it_was_made(name: str):
    result = json.loads((HERE / f"{name}.json").read_text())
    assert result["command"].startswith("python ")
    assert name in result["command"]
    assert "cores" in result["machine"]
