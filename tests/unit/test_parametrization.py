"""CompleteP: standard at the base shape, the paper's table above it, sizes at every width."""

import json
import math
from pathlib import Path

import pytest
import torch
from coordinates import BASE, activation_sizes, config_of, exponents
from pydantic import ValidationError

from gpt.config import GPTConfig, TrainConfig
from gpt.model import GPT, standard_weights
from gpt.optim import OPTIMIZERS
from gpt.optim.parametrization import COMPLETEP_OPTIMIZERS, Scaling
from gpt.trainer import make_optimizers, set_learning_rate

AT_BASE = {"n_embd": 64, "n_layer": 2, "n_head": 2}
completep_optimizers = pytest.mark.parametrize("optimizer", COMPLETEP_OPTIMIZERS)


def trained(config: TrainConfig, steps: int = 3) -> GPT:
    """A model after some steps on one batch of random tokens."""
    torch.manual_seed(0)
    model = GPT(config)
    optimizers = make_optimizers(model, config)
    set_learning_rate(optimizers, config.learning_rate)
    tokens = torch.randint(config.vocab_size, (2, config.block_size + 1))
    for _ in range(steps):
        logits = model.logits(model(tokens[:, :-1]))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model


@completep_optimizers
def test_at_the_base_shape_completep_is_the_standard_parametrization_bit_for_bit(optimizer: str):
    ours, nanogpts = (
        trained(config_of(64, name, optimizer=optimizer, bias=True, **{**AT_BASE}))
        for name in ("completep", "standard")
    )
    for name, weights in nanogpts.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weights), name


def test_learning_rates_decay_and_eps_are_those_of_the_papers_table():
    config = config_of(256, "completep", n_layer=6, bias=True, weight_decay=0.1)  # m_N 4, m_L 3
    model = GPT(config)
    (adamw,) = make_optimizers(model, config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[parameter]: (group.get("lr_scale", 1.0), group["weight_decay"], group["eps"])
        for group in adamw.param_groups
        for parameter in group["params"]
    }
    block = "transformer.h.5."
    expected = {
        "transformer.wte.weight": (1, 0.1, 1e-8 / 4),
        "transformer.wpe.weight": (1, 0.1, 1e-8 / 4),
        f"{block}attn.c_attn.weight": (1 / 4, 0.4, 1e-8 / 12),
        f"{block}mlp.c_proj.weight": (1 / 4, 0.4, 1e-8 / 12),
        f"{block}mlp.c_fc.bias": (1, 0, 1e-8 / 12),
        f"{block}ln_2.weight": (1, 0, 1e-8 / 12),
        "transformer.ln_f.weight": (1, 0, 1e-8 / 4),
    }
    assert len(found) == len(names)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-12), name


def test_muons_matrices_learn_by_the_root_of_the_width_and_decay_as_fast():
    config = config_of(256, "completep", optimizer="muon", weight_decay=0.1)
    muon, rest = make_optimizers(GPT(config), config)
    (group,) = muon.param_groups
    assert (group["lr_scale"], group["weight_decay"]) == pytest.approx((1 / 2, 0.2))
    assert sum(len(of["params"]) for of in rest.param_groups) == 2 + 2 * 4 + 1


def test_first_weights_shrink_with_the_width_and_only_those_of_matrices():
    model = GPT(config_of(256, "completep", n_layer=8, init_std=0.08))
    deviation = {name: weight.std().item() for name, weight in model.named_parameters()}
    block = "transformer.h.7."
    expected = {
        "transformer.wte.weight": 0.08,
        f"{block}attn.c_attn.weight": 0.08 / 2,
        f"{block}mlp.c_fc.weight": 0.08 / 2,
        f"{block}mlp.c_proj.weight": 0.08 / 2 / math.sqrt(2 * BASE["n_layer"]),
    }
    for name, value in expected.items():
        assert deviation[name] == pytest.approx(value, rel=0.02), name


def test_residual_branches_and_logits_have_their_multipliers():
    config = config_of(128, "completep", n_layer=4)  # m_N 2, m_L 2
    torch.manual_seed(0)
    model = GPT(config).eval()
    x = torch.randn(1, 8, 128)
    block = model.transformer.h[0]
    half = x + block.attn(block.ln_1(x)) / 2
    torch.testing.assert_close(block(x), half + block.mlp(block.ln_2(half)) / 2)
    idx = torch.randint(config.vocab_size, (1, 8))
    torch.testing.assert_close(model(idx), model.transformer(idx, None) / 2)


def test_scores_of_attention_go_by_the_size_of_a_head():
    model = GPT(config_of(128, "completep", n_head=1))  # heads of 128, four times the base's
    scale = model.transformer.h[0].attn.scale
    assert scale == pytest.approx(math.sqrt(32) / 128)


@completep_optimizers
def test_activations_keep_their_size_at_every_width(optimizer: str):
    sizes = {
        width: activation_sizes(config_of(width, "completep", optimizer=optimizer, batch_size=4))
        for width in (32, 64, 128)
    }
    for name, growth in exponents(sizes).items():
        for step, exponent in growth.items():
            assert -0.75 < exponent < 0.25, (name, step)  # logits start at -0.5: small, and learn


def test_in_the_standard_parametrization_activations_grow_with_the_width():
    sizes = {
        width: activation_sizes(config_of(width, "standard", batch_size=4))
        for width in (32, 64, 128)
    }
    growth = exponents(sizes)
    assert all(growth[name][10] > 0.4 for name in ("attention", "mlp", "residual stream", "logits"))


def test_weights_with_the_multipliers_folded_in_are_a_gpt_2_with_the_same_logits():
    config = config_of(128, "completep", n_head=2, n_layer=6, bias=True)
    torch.manual_seed(0)
    model = GPT(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    shape = {name: getattr(config, name) for name in GPTConfig.model_fields}
    plain = shape | {"parametrization": "standard"} | {f"base_{n}": None for n in BASE}
    twin = GPT(GPTConfig.model_validate(plain)).eval()
    twin.load_state_dict(standard_weights(model.state_dict(), config))
    idx = torch.randint(config.vocab_size, (2, 16))
    assert config.scaling == Scaling(width=2, depth=3, head_size=2)
    torch.testing.assert_close(twin.logits(twin(idx)), model.logits(model(idx)))


def test_folding_leaves_the_models_own_weights_alone():
    model = GPT(config_of(128, "completep"))
    before = model.transformer.ln_f.weight.clone()
    standard_weights(model.state_dict(), model.config)
    assert torch.equal(model.transformer.ln_f.weight, before)


def test_normed_queries_leave_no_weight_to_fold_into():
    config = config_of(128, "completep", n_head=1, qk_norm=True)
    with pytest.raises(ValueError, match="qk_norm"):
        standard_weights(GPT(config).state_dict(), config)


def test_on_real_stories_the_best_learning_rate_moves_by_at_most_one_step_of_two():
    place = Path(__file__).parents[1] / "benchmarks" / "learning_rate_transfer.json"
    steps = json.loads(place.read_text())["steps_of_2_from_the_base"]
    assert len(steps["completep"]) == 4
    assert all(abs(moved) <= 1 for moved in steps["completep"].values())
    assert max(abs(moved) for moved in steps["standard"].values()) == 2


@pytest.mark.parametrize("optimizer", sorted(set(OPTIMIZERS) - set(COMPLETEP_OPTIMIZERS)))
def test_an_optimizer_of_which_no_scaling_is_known_is_refused(optimizer: str):
    with pytest.raises(ValidationError, match=f"adamw or muon.*got '{optimizer}'"):
        config_of(128, "completep", optimizer=optimizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_n_embd": 64}, "base_n_embd must come with parametrization = 'completep'"),
        (
            {"parametrization": "completep", "base_n_embd": 64, "base_n_head": 3},
            "base_n_embd must be a multiple of base_n_head, but got 64 and 3",
        ),
    ],
)
def test_a_base_shape_that_cannot_be_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(config_of(128, "standard").model_dump() | changes)
