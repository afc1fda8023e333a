"""Training in float16: the loss is scaled, steps that overflow are left out, the scale is saved."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config, write_stories

from gpt import checkpoint
from gpt.data.dataset import prepare
from gpt.errors import DivergedError
from gpt.train import train
from gpt.trainer import Trainer


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


@pytest.fixture
def trainer(text: Path) -> Trainer:
    config = tiny_config(text, dtype="float16")
    return Trainer(config, prepare(config.data))


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_trains_to_the_figures_of_float32(text: Path, optimizer: str):
    config = tiny_config(text, dropout=0.0, loss="squentropy", optimizer=optimizer)
    exact = list(train(config))
    half = list(train(config.model_copy(update={"dtype": "float16"})))
    for ours, reference in zip(half, exact, strict=True):
        assert ours.cross_entropy == pytest.approx(reference.cross_entropy, rel=5e-3)
        assert ours.grad_norm == pytest.approx(reference.grad_norm, rel=5e-2)  # unscaled
        assert ours.train_loss == pytest.approx(reference.train_loss, rel=5e-3)


def test_a_step_that_overflows_is_left_out_and_the_scale_halved(trainer: Trainer):
    trainer.step()
    before, norm = weights(trainer), trainer.counters.grad_norm
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**60})
    trainer.step()
    assert all(map(torch.equal, weights(trainer), before))
    assert trainer.counters.step == 2
    assert trainer.counters.grad_norm == norm  # the last one that was finite
    assert trainer.scaler.get_scale() == 2.0**59
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**10})
    trainer.step()
    assert not all(map(torch.equal, weights(trainer), before))


def test_a_gradient_that_overflows_at_any_scale_is_a_divergence(trainer: Trainer):
    trainer.model.transformer.wpe.weight.register_hook(lambda gradient: gradient * math.inf)
    for _ in range(16):  # from 2 ** 16 to 1
        trainer.step()
    with pytest.raises(DivergedError, match=r"gradient norm (inf|nan) after step 16"):
        trainer.step()


def test_a_loss_that_is_not_finite_is_a_divergence_at_once(trainer: Trainer):
    with torch.no_grad():
        trainer.model.transformer.wte.weight.mul_(math.nan)
    with pytest.raises(DivergedError, match="training loss nan"):
        trainer.step()


def test_a_stopped_run_continues_with_its_scale_bit_for_bit(text: Path, tmp_path: Path):
    config = tiny_config(text, dtype="float16", optimizer="muon")
    undisturbed = [(e.train_loss, e.cross_entropy) for e in train(config)]
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    asked = itertools.count()
    first = list(train(config, run_dir, stop=lambda: next(asked) == 6))
    saved = checkpoint.load(run_dir)
    assert saved is not None
    assert saved.state["scaler"]["_growth_tracker"] == 6  # steps since the scale was changed
    second = list(train(config, run_dir))
    assert [(e.train_loss, e.cross_entropy) for e in first + second] == undisturbed
