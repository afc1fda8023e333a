"""GPT-2 as in nanoGPT, with the same parameter names, so that checkpoints are interchangeable.

Shapes: B sequences, T tokens each (at most block_size), C = n_embd, H = n_head, D = C // H,
V = vocab_size.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.config import GPTConfig
from gpt.errors import DataError

LEVELS = 2**16  # a dropout rate is rounded to a multiple of 1 / LEVELS: 0.1 to 0.1000061


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero a random share p of the elements of x and divide the others by 1 - p.

    Args:
        x: Any shape.
        p: In [0, 1).
        training: If false, x is returned as it is.
    """
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    return x * _mask(x.shape, p, x.dtype)


def _mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """Draw 0 with probability p, else the inverse of the share that is kept."""
    dropped = min(round(p * LEVELS), LEVELS - 1)  # a p just below 1 keeps something, too
    n = math.prod(shape)
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:n].view(shape)  # uniform in [-2**15, 2**15)
    kept = bits.ge_(dropped - LEVELS // 2)  # in place: 1 or 0
    scale = torch.tensor(LEVELS / (LEVELS - dropped), dtype=dtype)
    if dtype.itemsize == kept.itemsize:  # as wide: times the scale's own bits, not converted first
        return kept.mul_(scale.view(kept.dtype)).view(dtype)
    return kept.to(dtype).mul_(scale)


# Longer contexts would hold (B, H, T, T) weights for backward, which torch's kernel does not.
MAX_PLAIN_TOKENS = 512


class KVCache:
    """Keys and values of the tokens so far, for each layer."""

    def __init__(self) -> None:
        self.tokens = 0
        self._layers: dict[object, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: object, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's keys and values of new tokens; return all of them (B, H, T, D)."""
        if layer in self._layers:
            before_k, before_v = self._layers[layer]
            k, v = torch.cat([before_k, k], dim=2), torch.cat([before_v, v], dim=2)
        self._layers[layer] = k, v
        self.tokens = k.shape[2]
        return k, v


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, p: float, scale: float | None = None
) -> Tensor:
    """Causal attention, softmax(q k^T * scale) v with dropout on the weights: (B, H, T, D).

    Args:
        q: Queries (B, H, T, D), or (B, H, 1, D) of the last token alone.
        k: Keys (B, H, T, D).
        v: Values (B, H, T, D).
        p: Dropout rate of the weights, in [0, 1).
        scale: Of the scores; None: 1 / sqrt(D).
    """
    # torch 2.13's CPU kernel takes 3 to 10 times as long in bfloat16, and with dropout it has none.
    plain = q.device.type == "cpu" and (p > 0.0 or q.dtype != torch.float32)
    if q.shape[2] < k.shape[2]:  # the last token attends to all
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p, scale=scale)
    if plain and q.shape[2] <= MAX_PLAIN_TOKENS:
        return _by_products(q, k, v, p, scale)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p, scale=scale)


def _by_products(q: Tensor, k: Tensor, v: Tensor, p: float, scale: float | None) -> Tensor:
    B, H, T, D = q.shape
    alpha = 1 / math.sqrt(D) if scale is None else scale
    q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
    future = torch.full((T, T), -math.inf, dtype=q.dtype).triu(1)
    with torch.autocast("cpu", enabled=False):  # which would widen the softmax and its memory
        scores = torch.baddbmm(future, q, k.transpose(1, 2), alpha=alpha)
        weights = dropout(scores.softmax(2), p, training=True)  # (B * H, T, T)
        return (weights @ v).view(B, H, T, D)


def unit_rms(x: Tensor) -> Tensor:
    """Divide each vector (..., D) by its root mean square, without a gain.

    Queries and keys of this size bound the logits of attention by sqrt(D).

    Source:
        Henry et al. (2020), "Query-key normalization", arXiv:2010.04245; without gains as in
        Karpathy's nanochat.
    """
    return F.rms_norm(x, x.shape[-1:], eps=1e-5).to(x.dtype)  # autocast may have widened it


def relu2(x: Tensor) -> Tensor:
    """Square of ReLU: max(x, 0) ** 2.

    Source:
        So et al. (2021), "Primer", arXiv:2109.08668.
    """
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu2": relu2}


class CausalSelfAttention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.qk_norm = config.qk_norm
        ratio = config.scaling.attention
        self.scale = None if ratio == 1.0 else ratio / math.sqrt(config.n_embd // config.n_head)
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, past: KVCache | None = None) -> Tensor:
        """Attend to the tokens of x and of the past: (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if self.qk_norm:
            q, k = unit_rms(q), unit_rms(k)
        if past is not None:
            k, v = past.extend(self, k, v)
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0, self.scale)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return dropout(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    """Position-wise MLP, 4x expansion."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.activation = ACTIVATIONS[config.activation]
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token's vector: (B, T, C) -> (B, T, C)."""
        return dropout(self.c_proj(self.activation(self.c_fc(x))), self.dropout, self.training)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)
        self.residual = config.scaling.residual

    def forward(self, x: Tensor, past: KVCache | None = None) -> Tensor:
        """Update the residual stream: (B, T, C) -> (B, T, C)."""
        x = torch.add(x, self.attn(self.ln_1(x), past), alpha=self.residual)
        x = torch.add(x, self.mlp(self.ln_2(x)), alpha=self.residual)
        return x  # noqa: RET504 - the two lines read as the two halves that they are


class Transformer(nn.Module):
    """Embeddings, blocks and the final LayerNorm, under GPT-2's names."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)

    def forward(self, idx: Tensor, past: KVCache | None = None) -> Tensor:
        """Map token ids (B, T) to hidden states (B, T, C)."""
        first = past.tokens if past else 0
        positions = torch.arange(first, first + idx.shape[1], device=idx.device)
        x = self.wte(idx) + self.wpe(positions)
        x = dropout(x, self.dropout, self.training)
        for block in self.h:
            x = block(x, past)
        hidden: Tensor = self.ln_f(x)
        return hidden


class GPT(nn.Module):
    """GPT-2, from token ids to hidden states; `logits` maps those to scores of the next token.

    Source: Radford et al. (2019), GPT-2, as written in Karpathy's nanoGPT.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight  # the head is tied to the embedding
        self.apply(partial(_initialise, std=config.init_std))
        scaling, layers = config.scaling, config.base_n_layer or config.n_layer
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):  # 2 n_layer of these add up in the residual stream
                nn.init.normal_(parameter, std=config.init_std / math.sqrt(2 * layers))
            if ".h." in name and parameter.dim() == 2:
                parameter.data.mul_(scaling.matrix_std)
        self.output_scale = scaling.output

    def forward(self, idx: Tensor, past: KVCache | None = None) -> Tensor:
        """Compute the hidden states after the final LayerNorm, times the logits' multiplier.

        Args:
            idx: Token ids, shape (B, T), T at most block_size.
            past: Cache of the tokens before, to which these are appended. Unless it is empty, idx
                is one token (B, 1). Together at most block_size tokens.

        Returns:
            Shape (B, T, C).
        """
        hidden: Tensor = self.transformer(idx, past)
        return hidden if self.output_scale == 1.0 else hidden * self.output_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute unnormalised scores of the next token: (..., C) -> (..., V)."""
        scores: Tensor = self.lm_head(hidden)
        return scores


def standard_weights(weights: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Fold the multipliers of a parametrization into weights, for programs that have none.

    A GPT-2 with the result has the logits of the model, since each multiplier stands before or
    after a matrix or a gain: queries and the residual branches times theirs, ln_f times the
    logits'.

    Args:
        weights: A state_dict of the model.
        config: Its configuration.

    Raises:
        ValueError: with qk_norm, the scores of attention have no weight to take their multiplier.
    """
    scaling, C = config.scaling, config.n_embd
    if config.qk_norm and scaling.attention != 1.0:
        raise ValueError("qk_norm leaves no weight that could take the multiplier of attention")
    folded = {name: value.clone() for name, value in weights.items()}
    for name, value in folded.items():
        if ".c_proj." in name:
            value.mul_(scaling.residual)
        elif ".c_attn." in name:
            value[:C].mul_(scaling.attention)  # the queries
        elif ".ln_f." in name:
            value.mul_(scaling.output)
    return folded


def num_params(config: GPTConfig) -> int:
    """Number of parameters without the position embedding, as nanoGPT counts them.

    By formula: building a model on torch's meta device imports its compiler, which takes a second.
    """
    C, bias = config.n_embd, int(config.bias)
    norm = C + bias * C
    attention = 3 * C * C + C * C + bias * 4 * C
    mlp = 4 * C * C + 4 * C * C + bias * 5 * C
    return config.vocab_size * C + config.n_layer * (2 * norm + attention + mlp) + norm


def _initialise(module: nn.Module, std: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def load_weights(model: GPT, weights: Mapping[str, Tensor]) -> None:
    """Load a checkpoint's weights, by name, into a model.

    Raises:
        DataError: see `check_weights`.
    """
    check_weights(model, weights)
    model.load_state_dict(weights, strict=False)  # lm_head.weight is wte.weight


def check_weights(model: GPT, weights: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint's weights are those of a model; the tied lm_head may be left out.

    Raises:
        DataError: a name is missing or unknown, or a shape differs.
    """
    expected, found = (
        {name: tuple(w.shape) for name, w in those.items() if name != "lm_head.weight"}
        for those in (model.state_dict(), weights)
    )
    for name in (*expected, *found):
        if expected.get(name) != found.get(name):
            raise DataError(
                f"the checkpoint must be of the model in config.json, where {name} is "
                f"{expected.get(name, 'not there')}, but it is {found.get(name, 'not there')} in "
                f"the checkpoint; bring back the config.json that it was trained with."
            )
