"""The model is GPT-2: logits of an independent implementation, names of nanoGPT."""

import math

import pytest
import torch
import transformers  # which imports a name when it is asked for

from gpt.config import GPTConfig
from gpt.model import GPT, MLP, CausalSelfAttention, num_params

SMALL = GPTConfig(vocab_size=97, block_size=16, n_layer=3, n_head=4, n_embd=32, bias=True)


def hugging_face_twin(model: GPT) -> "transformers.GPT2LMHeadModel":
    """The same weights in Hugging Face's GPT-2, whose Conv1D keeps matrices transposed."""
    c = model.config
    twin = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=c.vocab_size,
            n_positions=c.block_size,
            n_embd=c.n_embd,
            n_layer=c.n_layer,
            n_head=c.n_head,
            activation_function="gelu",
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    weights = {
        name: value.t() if name.endswith(transposed) else value
        for name, value in model.state_dict().items()
    }
    twin.load_state_dict(weights)
    return twin.eval()


def test_logits_equal_hugging_faces_gpt2_with_the_same_random_weights():
    torch.manual_seed(0)
    model = GPT(SMALL).eval()
    for parameter in model.parameters():  # biases and gains too, which start at 0 and 1
        torch.nn.init.normal_(parameter, std=0.2)
    idx = torch.randint(SMALL.vocab_size, (2, SMALL.block_size))
    with torch.no_grad():
        ours, theirs = model.logits(model(idx)), hugging_face_twin(model)(idx).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_parameter_names_are_nanogpts():
    names = {name for name, _ in GPT(SMALL.model_copy(update={"n_layer": 1})).named_parameters()}
    block = "transformer.h.0."
    assert names == {
        "transformer.wte.weight",
        "transformer.wpe.weight",
        *(f"{block}ln_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")),
        *(f"{block}attn.{m}.{kind}" for m in ("c_attn", "c_proj") for kind in ("weight", "bias")),
        *(f"{block}mlp.{m}.{kind}" for m in ("c_fc", "c_proj") for kind in ("weight", "bias")),
        "transformer.ln_f.weight",
        "transformer.ln_f.bias",
    }


def test_the_head_is_the_token_embedding():
    model = GPT(SMALL)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_bias_false_leaves_no_bias_anywhere():
    model = GPT(SMALL.model_copy(update={"bias": False}))
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


def test_a_token_does_not_see_what_comes_after_it():
    torch.manual_seed(1)
    model = GPT(SMALL).eval()
    idx = torch.randint(SMALL.vocab_size, (1, 10))
    changed = idx.clone()
    changed[0, 7] = (changed[0, 7] + 1) % SMALL.vocab_size
    before, after = model(idx), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_residual_projections_start_smaller_by_the_square_root_of_twice_the_depth():
    torch.manual_seed(2)
    config = GPTConfig(vocab_size=50, block_size=8, n_layer=8, n_head=4, n_embd=128)
    weights = dict(GPT(config).named_parameters())
    expected = 0.02 / math.sqrt(2 * 8)
    assert weights["transformer.h.3.mlp.c_proj.weight"].std().item() == pytest.approx(
        expected, rel=0.03
    )
    assert weights["transformer.h.3.mlp.c_fc.weight"].std().item() == pytest.approx(0.02, rel=0.03)


def test_init_std_scales_every_first_matrix_and_embedding():
    weights = []
    for std in (0.02, 0.07):
        torch.manual_seed(2)
        model = GPT(SMALL.model_copy(update={"init_std": std}))
        weights.append({name: value for name, value in model.named_parameters() if value.dim() > 1})
    usual, wider = weights
    assert {"transformer.wte.weight", "transformer.wpe.weight"} <= usual.keys()
    for name, value in usual.items():
        torch.testing.assert_close(wider[name], 3.5 * value)


def test_dropout_acts_in_training_only():
    torch.manual_seed(3)
    model = GPT(SMALL.model_copy(update={"dropout": 0.5}))
    idx = torch.randint(SMALL.vocab_size, (1, 8))
    assert not torch.equal(model(idx), model(idx))
    model.eval()
    assert torch.equal(model(idx), model(idx))


def test_an_untrained_model_predicts_almost_uniformly():
    torch.manual_seed(4)
    model = GPT(GPTConfig(vocab_size=1000, block_size=32, n_layer=2, n_head=2, n_embd=32))
    idx, targets = torch.randint(1000, (2, 4, 32))
    logits = model.logits(model(idx)).flatten(0, 1)
    nats = torch.nn.functional.cross_entropy(logits, targets.flatten())
    assert nats.item() == pytest.approx(math.log(1000), abs=0.1)


@pytest.mark.parametrize("bias", [False, True])
def test_num_params_counts_all_weights_but_those_of_positions(bias):
    config = GPTConfig(vocab_size=11, block_size=7, n_layer=3, n_head=2, n_embd=4, bias=bias)
    weights = sum(parameter.numel() for parameter in GPT(config).parameters())
    assert num_params(config) == weights - 7 * 4


# --- what nanoGPT does not have --------------------------------------------------------------


def test_qk_norm_gives_queries_and_keys_of_each_head_the_root_mean_square_one():
    torch.manual_seed(5)
    config = SMALL.model_copy(update={"qk_norm": True})
    attention = CausalSelfAttention(config).eval()
    x = torch.randn(2, 6, 32)
    q, k, v = attention.c_attn(x).view(2, 6, 3, 4, 8).permute(2, 0, 3, 1, 4)
    q, k = (t / (t.square().mean(-1, keepdim=True) + 1e-5).sqrt() for t in (q, k))
    scores = (q @ k.transpose(2, 3) / math.sqrt(8)).masked_fill(
        torch.ones(6, 6, dtype=torch.bool).triu(1), -math.inf
    )
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 6, 32)
    torch.testing.assert_close(attention(x), attention.c_proj(mixed))
    assert scores.tril().abs().max() <= math.sqrt(8)


def test_relu2_is_the_square_of_relu_between_the_mlps_layers():
    torch.manual_seed(6)
    mlp = MLP(SMALL.model_copy(update={"activation": "relu2"}))
    x = torch.randn(3, 32)
    torch.testing.assert_close(mlp(x), mlp.c_proj(mlp.c_fc(x).clamp_min(0) ** 2))


@pytest.mark.parametrize("changes", [{"qk_norm": True}, {"activation": "relu2"}])
def test_a_variant_has_the_parameters_of_gpt2_and_gives_other_logits(changes):
    torch.manual_seed(7)
    plain = GPT(SMALL)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    variant = GPT(SMALL.model_copy(update=changes))
    variant.load_state_dict(plain.state_dict())  # strict: the same names and shapes
    idx = torch.randint(SMALL.vocab_size, (1, 8))
    assert not torch.allclose(plain.logits(plain(idx)), variant.logits(variant(idx)), atol=1e-3)


def test_qk_norm_keeps_autocasts_precision():
    torch.manual_seed(8)
    model = GPT(SMALL.model_copy(update={"qk_norm": True}))
    idx = torch.randint(SMALL.vocab_size, (2, 8))
    exact = model(idx)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(idx)
    assert (half - exact).abs().max() < 0.1
