"""A stored study with all outcomes, its report, and a page without a network."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from stored_studies import BUILT_IN, STUDY, StoredStudy

from sweep.report.report import write_report

DROPOUT = "[search.dropout]\nlow = 0.0\nhigh = 0.3\n[search.loss]"


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """Eleven trials of each arm, all outcomes, on the built-in corpus."""
    folder = tmp_path_factory.mktemp("stored")
    stored = StoredStudy(folder, STUDY.replace("[search.loss]", DROPOUT), **BUILT_IN)
    bins = [{"count": 9, "confidence": 0.2 * i, "accuracy": 0.15 * i} for i in range(5)]
    for i in range(11):
        for arm in ("cross_entropy", "squentropy"):
            outcome = {8: "pruned", 9: "diverged", 10: "running"}.get(i, "complete")
            rates = {
                "learning_rate": 9e-4 * (1 + i),
                "n_layer": 1 + i % 6,
                "dropout": 0.03 * (i % 10),
            }
            origin = "baseline:original" if i == 0 else "sampler"
            number = stored.add(arm, [300.0, 90.0 - i], outcome, origin, **rates)
            run_dir = folder / "tiny" / str(number)
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "calibration.json").write_text(json.dumps(bins))
    return stored


@pytest.fixture(scope="session")
def report(reported: StoredStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(reported.storage, reported.study, out)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has no network."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    context.set_default_timeout(200_000)  # milliseconds, on a busy machine
    yield context.new_page()
    context.close()
