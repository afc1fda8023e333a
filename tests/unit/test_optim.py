"""The schedule by hand, and which parameters decay."""

import pytest

from gpt.config import TrainConfig
from gpt.model import GPT
from gpt.optim import learning_rate_at, make_optimizer

CONFIG = TrainConfig(
    vocab_size=11, n_layer=1, n_head=1, n_embd=4, block_size=4, bias=True,
    learning_rate=1.0, min_lr_ratio=0.1, warmup_steps=4, max_steps=104,
)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.2),  # (0 + 1) / (4 + 1), as nanoGPT warms up
        (3, 0.8),
        (4, 1.0),  # the peak
        (54, 0.55),  # half-way down the cosine: (1 + 0.1) / 2
        (104, 0.1),  # the end
    ],
)
def test_learning_rate_warms_up_linearly_then_follows_a_cosine(step: int, expected: float):
    assert learning_rate_at(step, CONFIG) == pytest.approx(expected)


def test_a_warm_up_as_long_as_the_run_never_divides_by_zero():
    config = CONFIG.model_copy(update={"warmup_steps": 104})
    assert learning_rate_at(103, config) == pytest.approx(104 / 105)


def test_only_matrices_decay():
    model = GPT(CONFIG)
    decayed, kept = make_optimizer(model, CONFIG).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (CONFIG.weight_decay, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in kept["params"]} == {1}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
