"""One seed of chaos; tests/helpers/chaos.py runs many."""

from pathlib import Path

import pytest
from chaos import run_seed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_survives_half_a_minute_of_chaos(tmp_path: Path, cache: Path):
    figures = run_seed(tmp_path, seed=0, seconds=30)
    assert sum(figures["faults"].values()) >= 12
    assert sum(figures["outcomes"].values()) == 12
