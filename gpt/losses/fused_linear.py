"""The output head fused with the loss, so that the logits are never held all at once.

Shapes: N tokens, C = n_embd, V classes; hidden states h (N, C), weight W (V, C), logits f = h W^T.
The logits are made a chunk of rows at a time. In `linear_loss` the chunk's gradient is multiplied
back onto h and W at once, so that backward only hands out what forward has made.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt.losses.functional import LOSSES
from gpt.losses.logit_stats import ChunkStats
from gpt.losses.loss import IGNORE_INDEX, Loss, check_floating, check_reduction, check_targets
from gpt.losses.options import check_choice

# Rows whose logits are held at a time, more of a small vocabulary. With fewer, matrix products
# wait for W (2 times slower at 32 rows on a CPU), and small ones for Python.
CHUNK_ROWS = {"cpu": 256, "cuda": 1024, "mps": 1024}
CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**27, "mps": 2**22}  # CUDA's by count of launches, no clock
# Rows are processed in blocks of so many bytes of logits, which stay in a CPU's caches meanwhile;
# an evaluation's in a core's own, with two more tensors of that size.
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**30, "mps": 2**30}
EVALUATION_BYTES = {"cpu": 350_000, "cuda": 90_000_000, "mps": 90_000_000}
FLOAT16_ROOM = 256  # the largest derivative by W over 65,504; a power of 2, which rounds nothing


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
    torch.compile takes it into its graph as one operator, for one set of options: another value of
    an option is compiled anew.

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
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    arguments = hidden, weight, targets, dtype, loss, reduction, ignore_index
    if torch.compiler.is_compiling():
        names, values = ",".join(options), [float(value) for value in options.values()]
        compiled: Tensor = _compiled_linear_loss(*arguments, names, values)[0]
        return compiled
    value: Tensor = _LinearLoss.apply(*arguments, options)  # type: ignore[no-untyped-call]
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


def _loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    loss: str,
    reduction: str,
    ignore_index: int,
    options: Mapping[str, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and its derivatives by hidden (N, C) and weight (V, C)."""
    check_reduction(reduction, ("mean", "sum"))
    check_floating("hidden", hidden)
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden must be (N, C) and weight (V, C), "
            f"but got {tuple(hidden.shape)} and {tuple(weight.shape)}."
        )
    check_targets(targets, len(hidden), len(weight), ignore_index)
    check_choice("loss", LOSSES, loss, options)
    exact = _exact(dtype)
    counts = targets != ignore_index
    shares = counts.to(exact)  # before the division, whose digits would be float32's otherwise
    if reduction == "mean":
        shares /= counts.sum()
    with torch.autocast(hidden.device.type, enabled=False):
        return _in_chunks(
            hidden.to(dtype),
            weight.to(dtype),
            targets.where(counts, 0),
            shares,
            LOSSES[loss],
            LOSSES[loss].checked(options),
        )


def _in_chunks(
    h: Tensor,
    W: Tensor,
    targets: Tensor,
    shares: Tensor,
    loss: Loss,
    options: Mapping[str, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of cost times share over all tokens, and its derivatives by h and W."""
    exact = shares.dtype
    # A mean's gradient by a logit is p / N, below what float16 holds: it is made of a sum.
    scale = 1 / shares.max() if h.dtype == torch.float16 else None
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
                scaled = cost if scale is None else cost * scale
            total += cost.detach()
            block.put(stats.gradient(scaled), f[part])  # f is dL/df from here on
        torch.mm(f, W, out=d_h[rows])
        _add_product(d_W, f.T, h[rows])
    if scale is not None:
        d_h, d_W = d_h.to(exact).div_(scale), d_W.div_(scale)
    return total, d_h, d_W


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of all but matrix products."""
    return torch.promote_types(dtype, torch.float32)


class _LinearLoss(torch.autograd.Function):
    """The loss; gradients are computed in forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
        total, d_h, d_W = _loss_and_gradients(hidden, weight, *arguments)
        ctx.save_for_backward(d_h, d_W)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_h, d_W = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (d_h * d_loss).to(hidden_dtype), (d_W * d_loss).to(weight_dtype), *[None] * 6


@torch.library.custom_op(
    "gpt::linear_loss",
    mutates_args=(),
    # written out: torch 2.6 cannot read all of the types below
    schema="(Tensor hidden, Tensor weight, Tensor targets, ScalarType dtype, str loss, "
    "str reduction, int ignore_index, str names, float[] values) -> (Tensor, Tensor, Tensor)",
)
def _compiled_linear_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: torch.dtype,
    loss: str,
    reduction: str,
    ignore_index: int,
    names: str,
    values: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """_loss_and_gradients as an operator that a compiled graph may hold."""
    options = dict(zip(names.split(",") if names else [], values, strict=True))
    with _autograd_inside_an_operator():
        return _loss_and_gradients(
            hidden, weight, targets, dtype, loss, reduction, ignore_index, options
        )


@contextmanager
def _autograd_inside_an_operator() -> Iterator[None]:
    """Let autograd record, which torch switches off inside of operators.

    It is needed on a token's few statistics only. torch has no public way.
    """
    key, set_excluded = torch._C.DispatchKey, torch._C._dispatch_tls_set_dispatch_key_excluded
    kinds = (key.AutogradFunctionality, key.ADInplaceOrView)
    before = [torch._C._dispatch_tls_is_dispatch_key_excluded(kind) for kind in kinds]
    try:
        for kind in kinds:
            set_excluded(kind, False)
        yield
    finally:
        for kind, excluded in zip(kinds, before, strict=True):
            set_excluded(kind, excluded)


@_compiled_linear_loss.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    exact = _exact(dtype)
    of_hidden = exact if dtype == torch.float16 else dtype  # see _in_chunks
    d_h = hidden.new_empty(hidden.shape, dtype=of_hidden)
    return hidden.new_empty((), dtype=exact), d_h, weight.new_empty(weight.shape, dtype=exact)


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.dtypes = inputs[0].dtype, inputs[1].dtype


def _hand_out_gradients(ctx: Any, d_loss: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    d_h, d_W = ctx.saved_tensors
    hidden_dtype, weight_dtype = ctx.dtypes
    return (d_h * d_loss).to(hidden_dtype), (d_W * d_loss).to(weight_dtype), *[None] * 7


_compiled_linear_loss.register_autograd(_hand_out_gradients, setup_context=_save_gradients)


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
    return max(CHUNK_ROWS[W.device.type], CHUNK_BYTES[W.device.type] // (len(W) * W.itemsize))


def _rows_of_block(chunk: Tensor, exact: torch.dtype, most: dict[str, int]) -> int:
    return max(1, most[chunk.device.type] // (chunk.shape[1] * exact.itemsize))


def _slices(n: int, size: int) -> list[slice]:
    """Slices of the rows 0 to n, `size` at a time."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to total, which may be wider than the product's dtype."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif a.dtype == torch.float16:
        # A sum over a chunk's rows may be above 65,504, and no loss scale would make it smaller.
        total.add_(a @ (b / FLOAT16_ROOM), alpha=FLOAT16_ROOM)
    else:
        total += a @ b
