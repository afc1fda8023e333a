"""The output head fused with the loss, so that the logits are never held all at once.

Shapes: N tokens, C = n_embd, V classes; hidden states h (N, C), weight W (V, C), logits f = h W^T.
The logits are made a chunk of rows at a time. In `linear_loss` the chunk's gradient is multiplied
back onto h and W at once, so that backward only hands out what forward has made.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt.losses.functional import LOSSES, check_loss
from gpt.losses.logit_stats import ChunkStats
from gpt.losses.loss import IGNORE_INDEX, Loss, check_floating, check_reduction, check_targets

# Rows whose logits are held at a time, more of a small vocabulary. With fewer, matrix products
# wait for W (2 times slower at 32 rows on a CPU), and small ones for Python.
CHUNK_ROWS = {"cpu": 256, "cuda": 1024}
CHUNK_BYTES = 2**22
# Rows are processed in blocks of so many bytes of logits, which stay in a CPU's caches meanwhile;
# an evaluation's in a core's own, with two more tensors of that size.
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**30}
EVALUATION_BYTES = {"cpu": 350_000, "cuda": 90_000_000}


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled model goes on around it
def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    ignore_index: int = IGNORE_INDEX,
    **options: float,
) -> Tensor:
    """Compute LOSSES[loss] of the logits hidden @ weight.T without holding them.

    Under autocast, matrix products are in its dtype; all else is float32 (float64 for float64).

    Args:
        hidden: h, shape (N, C).
        weight: W, shape (V, C); of a tied embedding or not.
        targets: True token ids y, shape (N,), each in [0, V) or ignore_index.
        loss: A name in LOSSES.
        reduction: "mean" over the tokens that count (NaN if there are none), or "sum".
        ignore_index: Targets with this value do not count.
        options: Options of the loss; those not given have their defaults.

    Returns:
        Scalar, differentiable once by hidden and weight.

    Raises:
        ValueError: one line that names the argument, what must hold and what came instead.
    """
    check_reduction(reduction, ("mean", "sum"))
    check_floating("hidden", hidden)
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden must be (N, C) and weight (V, C), "
            f"but got {tuple(hidden.shape)} and {tuple(weight.shape)}."
        )
    check_targets(targets, len(hidden), len(weight), ignore_index)
    check_loss(loss, options)
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    exact = torch.promote_types(dtype, torch.float32)  # of all but matrix products
    counts = targets != ignore_index
    shares = counts.to(exact)  # before the division, whose digits would be float32's otherwise
    if reduction == "mean":
        shares /= counts.sum()
    with torch.autocast(device, enabled=False):
        value: Tensor = _LinearLoss.apply(  # type: ignore[no-untyped-call]
            hidden, weight, targets.where(counts, 0), shares, dtype, LOSSES[loss], options
        )
    return value


@torch.no_grad()
def logit_blocks(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and their logits (n, V), a few at a time, in float32 or wider, without gradients.

    The caller may overwrite the logits; the next block takes their memory. Matrix products are in
    the dtype of `hidden`.
    """
    W = weight.to(hidden.dtype)
    exact = torch.promote_types(W.dtype, torch.float32)
    n = _rows_of_chunk(W)
    logits = hidden.new_empty(min(len(hidden), n), len(W))
    for rows in _slices(len(hidden), n):
        chunk = torch.mm(hidden[rows], W.T, out=logits[: rows.stop - rows.start])
        for part in _slices(len(chunk), _rows_of_block(chunk, exact, EVALUATION_BYTES)):
            yield slice(rows.start + part.start, rows.start + part.stop), chunk[part].to(exact)


class _LinearLoss(torch.autograd.Function):
    """Sum of cost times share over all tokens; gradients are computed in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        shares: Tensor,
        dtype: torch.dtype,
        loss: Loss,
        options: dict[str, float],
    ) -> Tensor:
        h, W, options = hidden.to(dtype), weight.to(dtype), loss.checked(options)
        exact = shares.dtype
        total = shares.new_zeros(())
        d_h = torch.empty_like(h)
        d_W = torch.zeros_like(W, dtype=exact)
        chunk = h.new_empty(min(len(h), _rows_of_chunk(W)), len(W))
        block = _Block(chunk, exact)
        for rows in _slices(len(h), len(chunk)):
            f = torch.mm(h[rows], W.T, out=chunk[: len(h[rows])])  # (n, V)
            for part in _slices(len(f), block.rows):
                stats = ChunkStats(*block.of(f[part]), targets=targets[rows][part])
                with torch.enable_grad():
                    cost = (loss.per_token(stats, **options) * shares[rows][part]).sum()
                total += cost.detach()
                block.put(stats.gradient(cost), f[part])  # f is dL/df from here on
            torch.mm(f, W, out=d_h[rows])
            _add_product(d_W, f.T, h[rows])
        ctx.save_for_backward(d_h, d_W)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_h, d_W = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (d_h * d_loss).to(hidden_dtype), (d_W * d_loss).to(weight_dtype), *[None] * 5


class _Block:
    """Buffers for a few rows of a chunk (n, V), reused for each block."""

    def __init__(self, chunk: Tensor, exact: torch.dtype) -> None:
        self.rows = min(len(chunk), _rows_of_block(chunk, exact, BLOCK_BYTES))
        self._p = torch.empty_like(chunk[: self.rows], dtype=exact)
        self._f = None if chunk.dtype == exact else torch.empty_like(self._p)

    def of(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits where they may be overwritten, and a buffer for their softmax."""
        n = len(f)
        return (f if self._f is None else self._f[:n].copy_(f)), self._p[:n]

    def put(self, gradient: Tensor, f: Tensor) -> None:
        """Copy the gradient to where the logits were, unless it is there already."""
        if self._f is not None:
            f.copy_(gradient)


def _rows_of_chunk(W: Tensor) -> int:
    return max(CHUNK_ROWS[W.device.type], CHUNK_BYTES // (len(W) * W.itemsize))


def _rows_of_block(chunk: Tensor, exact: torch.dtype, most: dict[str, int]) -> int:
    return max(1, most[chunk.device.type] // (chunk.shape[1] * exact.itemsize))


def _slices(n: int, size: int) -> list[slice]:
    """Slices of the rows 0 to n, `size` at a time."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to total, which may be wider than the product's dtype."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
