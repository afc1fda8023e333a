"""The clock of a trial's limits: it runs with the process, and stands still with it."""

import pytest

from sweep.tuner.limits import SuspendAwareClock


@pytest.mark.parametrize(("gaps", "awake"), [([1, 2, 4], 7), ([1, 6, 2], 3), ([3600], 0)])
def test_only_gaps_of_more_than_five_seconds_are_left_out(gaps: list[float], awake: float):
    now = 100.0
    clock = SuspendAwareClock(lambda: now)
    began = clock()
    for gap in gaps:
        now += gap
        seconds = clock()
    assert seconds - began == awake
