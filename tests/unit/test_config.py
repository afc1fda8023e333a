"""An impossible run cannot be built, and the message says what must hold and what came instead."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gpt.config import DataConfig, GPTConfig, TrainConfig, read_config, train_config
from gpt.errors import InputError
from gpt.losses.functional import LOSSES
from gpt.optim import OPTIMIZERS, SCHEDULES


@pytest.mark.parametrize(
    ("values", "message"),  # the key, the rule and the value, in this order
    [
        ({"n_embd": 30, "n_head": 4}, "n_embd .*multiple of n_head.* n_embd=30 and n_head=4"),
        ({"loss": "mse"}, f"loss .*one of {', '.join(LOSSES)}.*'mse'"),
        ({"loss_options": {"square_weight": 1.0}}, "square_weight .*cross_entropy.*smoothing"),
        ({"optimizer": "adam"}, f"optimizer .*one of {', '.join(OPTIMIZERS)}.*'adam'"),
        ({"optimizer_options": {"momentum": 0.9}}, "momentum .*adamw, which takes: none"),
        (
            {"optimizer": "muon", "optimizer_options": {"momentum": 1.0}},
            r"momentum must be below 1.*1\.0",
        ),
        ({"schedule": "triangle"}, f"schedule .*one of {', '.join(SCHEDULES)}.*'triangle'"),
        ({"schedule_options": {"decay_ratio": 0.1}}, "decay_ratio .*cosine, which takes: none"),
        (
            {"loss_schedule": "linear"},
            "loss_schedule must be 'constant' unless .*squentropy.*'linear' for 'cross_entropy'",
        ),
        ({"activation": "swiglu"}, "activation: .*'gelu' or 'relu2'.*'swiglu'"),
        ({"seed": 2**63}, f"seed: .*less than {2**63}.*{2**63}"),
        ({"n_layer": 0}, "n_layer: .*greater than or equal to 1.* 0"),
        ({"n_layer": "4"}, "n_layer: .*integer.*'4'"),
        ({"dropout": 1.0}, r"dropout: .*less than 1.* 1\.0"),
        ({"init_std": 0.0}, r"init_std: .*greater than 0.* 0\.0"),
        ({"learning_rate": 0.0}, r"learning_rate: .*greater than 0.* 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate: .*finite.*nan"),
        ({"n_layers": 4}, "n_layers: .*not a known key"),
        ({"data": {"sauce": "hub"}}, r"data\.sauce: .*not a known key"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(values: dict[str, Any], message: str):
    with pytest.raises(InputError, match=rf"^best\.toml: {message}") as caught:
        train_config({"vocab_size": 100, **values}, where="best.toml")
    assert "\n" not in str(caught.value)


def test_a_configuration_cannot_be_changed_after_it_was_checked():
    config = GPTConfig(vocab_size=100)
    with pytest.raises(ValidationError, match="frozen"):
        config.n_layer = 7  # type: ignore[misc]


def test_a_configuration_survives_json(tmp_path: Path):
    config = TrainConfig(
        vocab_size=100,
        learning_rate=0.1 + 0.2,
        data=DataConfig(tokenizer="gpt2"),
        loss="squentropy",
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert read_config(tmp_path / "config.json") == config


def test_a_stored_run_that_does_not_say_so_started_from_gpt2s_weights(tmp_path: Path):
    values = TrainConfig(vocab_size=100, init_std=0.07).model_dump(mode="json")
    del values["init_std"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_config(tmp_path / "config.json").init_std == 0.02


def test_a_missing_config_json_says_where(tmp_path: Path):
    with pytest.raises(InputError, match=r"config\.json must be .*No such"):
        read_config(tmp_path / "config.json")


def test_tokens_per_step_is_the_effective_batch():
    config = TrainConfig(vocab_size=100, batch_size=3, block_size=5, gradient_accumulation_steps=7)
    assert config.tokens_per_step == 105


def test_a_linear_loss_schedule_takes_the_weight_and_no_other_option_to_zero():
    run = TrainConfig(
        vocab_size=100, max_steps=8, loss="rescaled_squentropy", loss_schedule="linear",
        loss_options={"true_target": 3.0},
    )  # fmt: skip
    shared = {"true_weight": 65.0, "true_target": 3.0}
    assert run.loss_options_at(0) == shared | {"square_weight": 1.0}
    assert run.loss_options_at(6) == shared | {"square_weight": 0.25}
    assert run.loss_options_at(8) == shared | {"square_weight": 0.0}


def test_a_constant_loss_schedule_leaves_options_as_they_are():
    run = TrainConfig(vocab_size=100, loss="squentropy", loss_options={"square_weight": 0.3})
    assert run.loss_options_at(0) == run.loss_options_at(600) == {"square_weight": 0.3}


def test_a_loss_whose_weight_is_zero_is_cross_entropy():
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(5, 7), torch.randint(7, (5,))
    plain = LOSSES["cross_entropy"](logits, targets)
    for loss in LOSSES.values():
        weights = {name: 0.0 for name, option in loss.options.items() if option.is_weight}
        if weights:
            torch.testing.assert_close(loss(logits, targets, **weights), plain)
