"""The clock of a trial's limits: it runs with the process, and stands still with it."""

import time

import pytest

from sweep.tuner.clock import AwakeClock


@pytest.mark.parametrize(("gaps", "awake"), [([1, 2, 4], 7), ([1, 6, 2], 3), ([3600], 0)])
def test_only_gaps_of_more_than_five_seconds_are_left_out(
    gaps: list[float], awake: float, monkeypatch: pytest.MonkeyPatch
):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = AwakeClock()
    began = clock.seconds()
    for gap in gaps:
        now += gap
        seconds = clock.seconds()
    assert seconds - began == awake
