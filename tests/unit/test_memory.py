"""The memory of a run, estimated by formula, is what torch allocates."""

from typing import Any

import pytest
from allocations import peak_of_tensors

from gpt.config import TrainConfig
from gpt.trainer import Trainer
from sweep.trainers.estimate import RandomTokens
from sweep.trainers.memory import estimate_memory, training_flops

SHAPE: dict[str, Any] = {
    "vocab_size": 1024,
    "n_embd": 64,
    "n_head": 2,
    "n_layer": 2,
    "block_size": 64,
    "batch_size": 8,
    "eval_tokens": 1024,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.1},
        {"n_layer": 5},
        {"block_size": 1024, "batch_size": 1, "dropout": 0.1},
        {"loss": "squentropy", "vocab_size": 8192},
        {"loss": "huber"},
        {"gradient_accumulation_steps": 2, "n_embd": 128},
        {"qk_norm": True, "activation": "relu2"},
        {"optimizer": "muon"},
        {"batch_size": 1, "n_embd": 128},
    ],
    ids=str,
)
def test_the_estimate_is_within_15_percent_of_what_a_run_allocates(
    dtype: str, changes: dict[str, Any]
):
    config = TrainConfig(**{**SHAPE, "dtype": dtype, **changes})
    trainer = Trainer(config, RandomTokens(config))
    trainer.step()
    kept = [value for o in trainer.optimizers for of in o.state.values() for value in of.values()]
    state = sum(tensor.nbytes for tensor in (*trainer.model.parameters(), *kept))
    measured = state + max(peak_of_tensors(trainer.step), peak_of_tensors(trainer.evaluate))
    assert estimate_memory(config).tensors == pytest.approx(measured, rel=0.15)


def test_weights_and_adamws_state_take_twelve_bytes_a_weight():
    estimate = estimate_memory(TrainConfig(**SHAPE))
    embeddings, layers = (1024 + 64) * 64, 2 * (12 * 64 * 64 + 2 * 64)
    assert estimate.weights + estimate.optimizer == 12 * (embeddings + layers + 64)


def test_activations_grow_with_tokens_and_layers_and_the_head_with_the_vocabulary():
    def of(**changes: Any) -> Any:
        return estimate_memory(TrainConfig(**{**SHAPE, **changes}))

    assert of(batch_size=16).activations == 2 * of().activations
    assert of(n_layer=4).activations - of(n_layer=3).activations == pytest.approx(
        of(n_layer=3).activations - of().activations
    )
    assert of(vocab_size=50257).activations == of().activations
    assert of(vocab_size=50257).training > of().training


def test_training_takes_six_operations_a_weight_and_token_and_those_of_attention():
    config = TrainConfig(**{**SHAPE, "max_steps": 10})
    weights = 1024 * 64 + 2 * (12 * 64 * 64 + 2 * 64) + 64
    attention = 12 * 2 * 64 * 64
    assert training_flops(config) == (6 * weights + attention) * 10 * 8 * 64
