"""What the output head and its loss cost: time, memory and error, forward and backward.

    python tests/benchmarks/head.py tests/benchmarks/head.json [CASE ...]

Each shape is timed in a process of its own, variants alternating; ratios are of medians. A peak of
memory is the mean of five processes that make one variant once: the allocator gives either of two
values. "plain" is what a user writes: logits, torch's cross-entropy, a sum of squares. All cases
take about six minutes on two cores; with names of cases, only those are measured anew.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.losses.functional import LOSSES
from gpt.losses.fused_linear import linear_loss
from gpt.system.malloc import keep_freed_memory

REPEATS = 5
OURS = list(LOSSES)


class Case(NamedTuple):
    """A shape, and what is compared at it."""

    n: int  # tokens
    v: int  # classes
    c: int  # n_embd
    bf16: bool  # autocast
    base: str  # what the others are divided by
    variants: list[str]


CASES = {
    "V=4096 C=128": Case(4096, 4096, 128, False, "cross_entropy", OURS),
    "V=4096 C=384": Case(4096, 4096, 384, False, "cross_entropy", OURS),
    "V=50257 C=128": Case(2048, 50257, 128, False, "cross_entropy", OURS),
    "V=50257 C=384": Case(2048, 50257, 384, False, "cross_entropy", OURS),
    "V=50257 C=384 against plain squentropy": Case(
        4096, 50257, 384, False, "plain squentropy", ["squentropy", "plain squentropy"]
    ),
    "V=4096 C=384 bf16 against plain cross-entropy": Case(
        4096, 4096, 384, True, "plain cross_entropy", ["squentropy", "plain cross_entropy"]
    ),
}


def plain_squentropy(f: Tensor, y: Tensor) -> Tensor:
    """As one writes it, with the true class subtracted from the whole sum."""
    squares = f.float().pow(2).sum(1) - f.gather(1, y[:, None]).squeeze(1).float() ** 2
    return F.cross_entropy(f, y) + squares.mean() / (f.shape[1] - 1)


class Bench:
    """Tensors of a case, and one pass forward and backward over them."""

    def __init__(self, case: Case) -> None:
        keep_freed_memory()  # as training does, and for plain torch as well
        torch.manual_seed(0)
        self.case = case
        self.h = torch.randn(case.n, case.c, requires_grad=True)
        self.w = (0.05 * torch.randn(case.v, case.c)).requires_grad_()
        self.y = torch.randint(case.v, (case.n,))

    def loss(self, variant: str) -> Tensor:
        """One forward pass."""
        if variant == "plain squentropy":
            return plain_squentropy(self.h @ self.w.T, self.y)
        if variant == "plain cross_entropy":
            return F.cross_entropy(self.h @ self.w.T, self.y)
        return linear_loss(self.h, self.w, self.y, variant)

    def once(self, variant: str) -> float:
        """Seconds of forward and backward."""
        self.h.grad = self.w.grad = None
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.case.bf16):
            loss = self.loss(variant)
        loss.backward()
        return time.perf_counter() - started


def seconds(name: str) -> dict[str, list[float]]:
    """Every variant of a case in turn, after one round to warm up."""
    bench = Bench(CASES[name])
    for variant in bench.case.variants:
        bench.once(variant)
    taken: dict[str, list[float]] = {variant: [] for variant in bench.case.variants}
    for _ in range(REPEATS):
        for variant in bench.case.variants:
            taken[variant].append(bench.once(variant))
    return taken


def peak_bytes(name: str, variant: str) -> int:
    """How much one pass raises the process's largest size."""
    bench = Bench(CASES[name])
    Bench(CASES[name]._replace(n=8, v=8)).once(variant)  # load what torch loads at first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bench.once(variant)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def errors(variant: str) -> dict[str, float]:
    """Largest relative error of value and gradients against float64."""
    bench = Bench(Case(2048, 4096, 384, False, "", []))
    h, w = (x.detach().double().requires_grad_() for x in (bench.h, bench.w))
    exact = LOSSES[variant](h @ w.T, bench.y)
    exact.backward()
    found = {}
    for dtype, bf16 in (("float32", False), ("bf16 autocast", True)):
        bench.h.grad = bench.w.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = bench.loss(variant)
        loss.backward()
        pairs = [(loss, exact), (bench.h.grad, h.grad), (bench.w.grad, w.grad)]
        found[dtype] = max(relative(a, b) for a, b in pairs)
    return found


def relative(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact| in the 2-norm."""
    return ((found.double() - exact).norm() / exact.norm()).item()


WORKERS: dict[str, Callable[..., Any]] = {
    "seconds": seconds,
    "peak_bytes": peak_bytes,
    "errors": errors,
}


def in_a_process(worker: str, *arguments: str) -> Any:
    """A worker's result, from a process of its own."""
    command = [sys.executable, __file__, worker, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(name: str) -> dict[str, Any]:
    """Times and peaks of a case, and their ratios to its base."""
    case = CASES[name]
    taken = in_a_process("seconds", name)
    medians = {variant: statistics.median(values) for variant, values in taken.items()}
    # memory does not differ between losses of one shape but for temporaries of a block
    watched = {case.base, "squentropy", case.variants[-1]}
    peaks = {
        v: statistics.fmean(in_a_process("peak_bytes", name, v) for _ in range(REPEATS))
        for v in case.variants
        if v in watched
    }
    return {
        "shape": case._asdict() | {"variants": None},
        "seconds": taken,
        "time_ratio": {v: round(m / medians[case.base], 3) for v, m in medians.items()},
        "peak_bytes": peaks,
        "memory_ratio": {v: round(p / peaks[case.base], 3) for v, p in peaks.items()},
    }


def main() -> None:
    """Measure everything and write it."""
    if sys.argv[1] in WORKERS:
        print(json.dumps(WORKERS[sys.argv[1]](*sys.argv[2:])))
        return
    path, names = Path(sys.argv[1]), sys.argv[2:] or list(CASES)
    result: dict[str, Any] = json.loads(path.read_text()) if sys.argv[2:] else {}
    result |= {
        "command": f"python tests/benchmarks/head.py {path}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "torch": torch.__version__,
        "largest_relative_error": {name: in_a_process("errors", name) for name in OURS},
    }
    for name in names:
        result[name] = measure(name)
        print(name, result[name]["time_ratio"], result[name]["memory_ratio"], flush=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
