"""Power laws against known ones, and how often the interval holds what comes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.export.power_law import BEND, predict


def small_to_big() -> list[dict[str, Any]]:
    """Checks and the long runs after them, of real stories, by tests/benchmarks/small_to_big.py."""
    path = Path(__file__).parents[1] / "benchmarks" / "small_to_big.json"
    return json.loads(path.read_text())["paths"]


def test_without_noise_a_power_law_is_found_again():
    compute = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    median, low, high = predict(compute, 1.5 + 2 * compute**-0.2, 1e-6, at=4096)
    expected = 1.5 + 2 * 4096**-0.2
    assert median == pytest.approx(expected, abs=2e-3)
    assert high - low == pytest.approx(2 * 1.96 * BEND * math.log(16) ** 2 / 2, rel=0.02)


def test_the_interval_holds_the_loss_of_nine_in_ten_long_runs_of_a_power_law():
    rng, held = np.random.default_rng(0), 0
    compute = np.array([1.0, 2.4, 5.7])  # and the long run takes 32
    for _ in range(60):
        floor, alpha = rng.uniform(0.5, 2), rng.uniform(0.08, 0.3)
        truth = floor + (3.8 - floor) * np.append(compute, 32.0) ** -alpha
        *seen, came = truth + 0.01 * rng.standard_normal(4)
        _, low, high = predict(compute, seen, 0.01, at=32.0)
        held += low <= came <= high
    assert held >= 54


@pytest.mark.parametrize("path", small_to_big())
def test_the_interval_holds_the_loss_of_the_long_runs_that_were_made(path):
    _, low, high = predict(path["compute"], path["nats"], path["noise"], at=1.0)
    assert low <= path["came"] <= high


def test_a_farther_run_is_less_certain():
    compute, nats = [1.0, 2.4, 5.7], [3.8, 3.5, 3.3]
    near, far = (predict(compute, nats, 0.01, at) for at in (32.0, 3200.0))
    assert far[2] - far[1] > near[2] - near[1]
    assert far[0] < near[0]


def test_losses_that_rise_with_compute_are_not_predicted_to_fall():
    median, low, _ = predict([1.0, 4.0, 16.0], [3.0, 3.1, 3.2], 0.01, at=20.0)
    assert median == pytest.approx(3.1, abs=0.05)
    assert low > 3.0


def test_the_unit_of_compute_does_not_matter():
    nats = [3.8, 3.5, 3.3]
    ours = predict([1.0, 2.4, 5.7], nats, 0.01, at=32.0)
    flops = predict([1e15, 2.4e15, 5.7e15], nats, 0.01, at=32e15)
    assert flops == pytest.approx(ours)
