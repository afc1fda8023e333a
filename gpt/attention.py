"""Causal attention: torch's kernel, or on a CPU matrix products where that kernel is slow there.

Shapes: B sequences, H heads, T tokens, D numbers each.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.dropout import dropout

# Longer contexts would hold (B, H, T, T) weights for backward, which torch's kernel does not.
MOST_TOKENS = 512


class Past:
    """Keys and values of the tokens so far, layer by layer: all that a next token looks at."""

    def __init__(self) -> None:
        self.tokens = 0
        self._layers: dict[object, tuple[Tensor, Tensor]] = {}

    def extended(self, layer: object, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values (B, H, T, D) with those of new tokens, which are kept."""
        if layer in self._layers:
            before_k, before_v = self._layers[layer]
            k, v = torch.cat([before_k, k], dim=2), torch.cat([before_v, v], dim=2)
        self._layers[layer] = k, v
        self.tokens = k.shape[2]
        return k, v


def causal_attention(q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
    """Mix values by softmax(q k^T / sqrt(D)), each token with those up to it: (B, H, T, D).

    Args:
        q: Queries (B, H, T, D), or (B, H, 1, D) of the last token alone.
        k: Keys (B, H, T, D).
        v: Values, likewise.
        p: Share of the weights that is dropped, in [0, 1).
    """
    # torch 2.13's CPU kernel takes 3 to 10 times as long in bfloat16, and with dropout it has none.
    plain = q.device.type == "cpu" and (p > 0.0 or q.dtype != torch.float32)
    if q.shape[2] < k.shape[2]:  # the last token sees all
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p)
    if plain and q.shape[2] <= MOST_TOKENS:
        return _by_products(q, k, v, p)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)


def _by_products(q: Tensor, k: Tensor, v: Tensor, p: float) -> Tensor:
    B, H, T, D = q.shape
    q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
    future = torch.full((T, T), -math.inf, dtype=q.dtype).triu(1)
    with torch.autocast("cpu", enabled=False):  # which would widen the softmax and its memory
        scores = torch.baddbmm(future, q, k.transpose(1, 2), alpha=1 / math.sqrt(D))
        weights = dropout(scores.softmax(2), p, training=True)  # (B * H, T, T)
        return (weights @ v).view(B, H, T, D)
