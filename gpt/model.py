"""GPT-2 as in nanoGPT, with the same parameter names, so that checkpoints exchange. No loss inside.

Shapes: B sequences, T tokens each (at most block_size), C = n_embd, H = n_head, D = C // H,
V = vocab_size.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.attention import Past, causal_attention
from gpt.config import GPTConfig
from gpt.dropout import dropout


class LayerNorm(nn.Module):
    """LayerNorm with an optional bias, under nanoGPT's parameter names."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each token's vector: (B, T, C) -> (B, T, C)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class CausalSelfAttention(nn.Module):
    """Each token looks at itself and at what came before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """Mix information along T, and with the past: (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if past is not None:
            k, v = past.extended(self, k, v)
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return dropout(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    """Each token thinks for itself, four times as wide."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return dropout(self.c_proj(F.gelu(self.c_fc(x))), self.dropout, self.training)


class Block(nn.Module):
    """Attention, then MLP, each on a normalised copy and added back (pre-norm)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x), past)
        x = x + self.mlp(self.ln_2(x))
        return x  # noqa: RET504 - the two lines read as the two halves that they are


class Transformer(nn.Module):
    """Embeddings, blocks and the last LayerNorm, under GPT-2's names."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, config.bias)

    def forward(self, idx: Tensor, past: Past | None = None) -> Tensor:
        """Token ids (B, T) -> hidden states (B, T, C)."""
        first = past.tokens if past else 0
        positions = torch.arange(first, first + idx.shape[1], device=idx.device)
        x = self.wte(idx) + self.wpe(positions)
        x = dropout(x, self.dropout, self.training)
        for block in self.h:
            x = block(x, past)
        hidden: Tensor = self.ln_f(x)
        return hidden


class GPT(nn.Module):
    """Token ids (B, T) -> hidden states (B, T, C); `logits` turns those into scores (B, T, V).

    Source: Radford et al. (2019), GPT-2, as written in Karpathy's nanoGPT.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight  # the head is tied to the embedding
        self.apply(partial(_initialise, std=config.init_std))
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):  # 2 n_layer of these add up in the residual stream
                nn.init.normal_(parameter, std=config.init_std / math.sqrt(2 * config.n_layer))

    def forward(self, idx: Tensor, past: Past | None = None) -> Tensor:
        """Hidden states after the last LayerNorm.

        Args:
            idx: Token ids, shape (B, T), T at most block_size.
            past: Of the tokens before, to which these are added; idx then is one token (B, 1),
                or all of them where there are none yet. With them at most block_size.

        Returns:
            Shape (B, T, C).
        """
        hidden: Tensor = self.transformer(idx, past)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised scores of the next token: (..., C) -> (..., V)."""
        scores: Tensor = self.lm_head(hidden)
        return scores


def num_params(config: GPTConfig) -> int:
    """Weights of a GPT without the position embedding, as nanoGPT counts them.

    Counted, not built: on torch's meta device the first one imports its compiler, for a second.
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
