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


def test_a_gpu_fills_the_rows_that_it_was_measured_for(monkeypatch: pytest.MonkeyPatch):
    state = {
        "command": "python -m tests.benchmarks.gpu --out DIR",
        "tiny": False,
        "machine": {"device": "a GPU", "torch": "2.6.0"},
        "parts": {
            "training": {
                "cases": {
                    "small": {
                        "vocab_size": 4096,
                        "tokens_per_second": {"cross_entropy, compiled": 1e6},
                        "ratio_to_nanogpt": 1.25,
                        "squentropy_to_cross_entropy": 0.98,
                    }
                }
            },
            "trials": {
                "at_a_time": {
                    "1": {"trials_per_hour": 50.0, "tokens_per_second": 1e5},
                    "2": {"trials_per_hour": 75.0, "tokens_per_second": 15e4},
                }
            },
        },
    }
    without = page()
    monkeypatch.setattr("benchmarks.page.gpu_state", lambda: state)
    text = page()
    assert "| not measured | [slots]" in without
    assert "| 1.50 x (2 at a time) | [slots]" in text
    assert "| 0.98 x | [trial_parts]" in text
    assert "| training tokens/s, small, cross_entropy, compiled | 1,000,000 |" in text
    assert "| not measured | [samplers]" in text
    assert "The GPU: a GPU with torch 2.6.0." in text
