"""Counts of what a call asks of a device: operators that compute, and Python that waits for them.

Counted on the CPU, where nothing waits: on CUDA an operator is one kernel or a few, and each of
WAITS stops Python until the device has done all that was asked before.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {
    Tensor.item: "item",
    Tensor.__float__: "float",
    Tensor.tolist: "tolist",
    Tensor.__bool__: "bool",
    Tensor.cpu: "cpu",
    Tensor.nonzero: "nonzero",
}
# Functions whose waits are behind a test for the CPU, and one that waits for a copy long made.
EXCUSED = ("check_targets", "_cross_entropies", "read")
ROOT = Path(__file__).parents[2]


@dataclass
class Counts:
    """What was counted."""

    operators: Counter[str] = field(default_factory=Counter)  # by name, in no order; no views
    waits: Counter[str] = field(default_factory=Counter)  # by kind and place


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.counts.operators[func.name()] += 1
        return func(*args, **(kwargs or {}))


class _Waits(TorchFunctionMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = WAITS.get(func)
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype.is_signed:
            kind = None
        elif func is Tensor.__getitem__ and isinstance(args[1], Tensor):
            kind = "boolean mask"
        place = _place()
        if kind and place and place[1] not in EXCUSED:
            self.counts.waits[f"{kind} in {place[0]}:{place[1]}"] += 1
        return func(*args, **(kwargs or {}))


def _place() -> tuple[str, str] | None:
    """File and function of gpt/ that called torch; None: torch called itself."""
    frame = sys._getframe(2)
    while frame and frame.f_code.co_filename == __file__:
        frame = frame.f_back  # type: ignore[assignment]
    path = Path(frame.f_code.co_filename)
    if "gpt" not in path.parts or not path.is_relative_to(ROOT):
        return None
    return str(path.relative_to(ROOT)), frame.f_code.co_name


def counts_of(do: Callable[[], object]) -> Counts:
    """Count during one call."""
    counts = Counts()
    with _Waits(counts), _Operators(counts):
        do()
    return counts
