"""Give faults to the trainings that a test starts: see tests/fault_injection."""

import os
from pathlib import Path

import pytest

# Steps that take 20 ms in which the processor has nothing to do: a trial is long enough for
# something to happen to it, and other tests go on meanwhile.
SLOW = "slow@at=start,times=99"
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


def slow_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every training that is started from now on take 20 ms a step."""
    inject(monkeypatch, SLOW)
