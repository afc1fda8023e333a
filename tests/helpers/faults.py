"""Give faults to the trainings that a test starts: see tests/fault_injection."""

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "fault_injection"


def prepare() -> None:
    """Have every Python that this process starts from now on listen to SQUEN_FAULT.

    Once for all tests: a fork server that one test started serves those after it.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(FOLDER) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(FOLDER), *paths]))


def inject(monkeypatch: pytest.MonkeyPatch, faults: str) -> None:
    """Inject faults into every training that is started from now on."""
    monkeypatch.setenv("SQUEN_FAULT", faults)
