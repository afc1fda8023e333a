"""What squentropy's square term must cost, as tests/benchmarks/square_weight.py solves for it."""

import json
import sys
from pathlib import Path

import pytest
import torch

from gpt.losses.functional import LOSSES

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from square_weight import SEEDS, WEIGHTS, floor, optimal_logits, plot, ratios, table

MEASURED = Path(__file__).parents[1] / "benchmarks" / "square_weight.json"
PI = torch.randn(8, 60, generator=torch.Generator().manual_seed(3), dtype=torch.float64).softmax(1)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_exact_link_reads_the_truth_off_the_solved_logits(weight: float):
    f = optimal_logits(PI, weight)
    found = LOSSES["squentropy"].probabilities(f.softmax(1), f, {"square_weight": weight})
    assert (found - PI).abs().max() < 1e-8


def test_no_other_logits_have_a_lower_expected_squentropy():
    def expected(f: torch.Tensor) -> torch.Tensor:
        squares = f.square().sum(1, keepdim=True) - f.square()  # of the classes that are wrong
        return (PI * (squares / (PI.shape[1] - 1) - f.log_softmax(1))).sum(1)

    best = optimal_logits(PI, 1.0)
    generator = torch.Generator().manual_seed(4)
    for scale in (1e-3, 0.1, 1.0):
        noise = scale * torch.randn(best.shape, generator=generator, dtype=best.dtype)
        assert (expected(best + noise) > expected(best)).all()


def test_the_floor_rises_with_the_weight_and_is_least_without():
    floors = [floor(PI, weight) for weight in (1e-6, *WEIGHTS)]
    assert floors == sorted(floors)
    assert floors[0] == pytest.approx(1.0, abs=1e-4)


def test_the_measured_weights_are_drawn_with_a_ring_for_each_seed():
    result = json.loads(MEASURED.read_text())
    assert len(table(result).splitlines()) == 1 + len(WEIGHTS)
    line, *measured = plot(result).data
    assert line.y == tuple(result["floor"][str(weight)] for weight in WEIGHTS)
    rings = [trace for trace in measured if trace.mode == "markers"]
    assert [len(trace.x) for trace in rings] == 2 * [len(WEIGHTS) * len(SEEDS)]
    assert set(ratios(result, "perplexity", 1.0)) <= set(rings[0].y)
