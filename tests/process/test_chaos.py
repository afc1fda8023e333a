"""One seed of chaos; tests/helpers/chaos.py runs many, each for half a minute."""

from pathlib import Path

import pytest
from chaos import run_seed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_survives_ten_faults_at_random(tmp_path: Path, cache: Path):
    figures = run_seed(tmp_path, 0, seconds=0, faults=10, size=(12, 1000), pause=(0.1, 0.6))
    assert sum(figures["faults"].values()) >= 10
    assert sum(figures["outcomes"].values()) == 12
