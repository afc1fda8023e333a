"""One seed of chaos; tests/helpers/chaos.py runs many, each for half a minute."""

from pathlib import Path

import pytest
from chaos import run_seed
from faults import slow_down


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_survives_ten_faults_at_random(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    size, pause = (12, 160), (0.1, 0.6)
    figures = run_seed(tmp_path, 0, 0, faults=10, size=size, pause=pause, eval_interval=8)
    assert sum(figures["faults"].values()) >= 10
    assert sum(figures["outcomes"].values()) == 12
