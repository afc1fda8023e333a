"""How near to the processor's limit a trial trains: measured peaks, and what a step asks for.

    python -m tests.benchmarks.roofline

On one thread, as a trial of the tinystories CPU budget has. The peak is that of large square
matrices. A step's own matrices are small (64 wide), so their products are timed too, alone: forward
and both of backward's. Memory is copied from one large tensor to another, reads and writes counted.
FLOPs are 6 N a token, N without position embeddings, and attention's 12 n_layer n_embd T.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gpt.config import TrainConfig
from gpt.data.dataset import prepare
from gpt.model import num_params
from gpt.train import train
from sweep.study.dataset import pin_dataset
from sweep.study.toml_file import read_study_file
from tests.benchmarks import measuring

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIDE = 2048  # of the square matrices
COPIED = 2**28  # bytes, more than caches hold
STEPS = 60


def seconds_of(do: Callable[[], object], times: int) -> float:
    """Of one call, after one that is not counted."""
    do()
    started = time.perf_counter()
    for _ in range(times):
        do()
    return (time.perf_counter() - started) / times


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of a product of large square matrices."""
    a, b, out = (torch.ones(SIDE, SIDE, dtype=dtype) for _ in range(3))
    return 2 * SIDE**3 / seconds_of(lambda: torch.mm(a, b, out=out), 3) / 1e9


def bandwidth() -> float:
    """GB/s of a copy, reads and writes."""
    source, target = (torch.ones(COPIED, dtype=torch.uint8) for _ in range(2))
    return 2 * COPIED / seconds_of(lambda: target.copy_(source), 5) / 1e9


def products(config: TrainConfig) -> list[Callable[[], Tensor]]:
    """A step's matrix products with weights, by which 6 N counts."""
    C, n = config.n_embd, config.tokens_per_step
    block = [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)]
    found: list[Callable[[], Tensor]] = []
    for inputs, outputs in [*block * config.n_layer, (C, config.vocab_size)]:
        x, W, d_y = (
            torch.ones(shape, dtype=DTYPES[config.dtype])
            for shape in ((n, inputs), (outputs, inputs), (n, outputs))
        )
        for a, b in ((x, W.T), (d_y, W), (d_y.T, x)):
            found.append(partial(torch.mm, a, b))
    return found


def flops_of_step(config: TrainConfig) -> float:
    """6 N and attention, as nanoGPT and PaLM count them."""
    attention = 12 * config.n_layer * config.n_embd * config.block_size
    return (6 * num_params(config) + attention) * config.tokens_per_step


def step_seconds(config: TrainConfig) -> float:
    """Of training, evaluation left out."""
    short = {"max_steps": STEPS, "eval_interval": STEPS, "eval_tokens": 1}
    (end,) = train(config.model_copy(update=short))
    return config.tokens_per_step / end.tokens_per_second


def measure(config: TrainConfig) -> dict[str, float]:
    """One repeat in one precision."""
    mm = products(config)
    alone = seconds_of(lambda: [product() for product in mm], 20)
    step, best = step_seconds(config), peak(DTYPES[config.dtype])
    rate = flops_of_step(config) / step / 1e9
    return {
        "peak_gflops": round(best, 1),
        "step_ms": round(1e3 * step, 2),
        "products_alone_ms": round(1e3 * alone, 2),
        "gflops_of_training": round(rate, 1),
        "share_of_peak": round(rate / best, 4),
        "products_share_of_step": round(alone / step, 4),
    }


def main() -> None:
    """Measure and write the results."""
    spec = read_study_file("tinystories", "cpu")
    source = spec.data.model_copy(update={"source": "built-in"})
    params = {"learning_rate": 3e-3, "dropout": 0.1, "n_layer": 3, "loss": "cross_entropy"}
    config = spec.train_config(params, pin_dataset(source, prepare(source)), "cpu", 1)
    torch.set_num_threads(1)
    repeats: dict[str, list[dict[str, float]]] = {dtype: [] for dtype in DTYPES}
    for _ in range(measuring.REPEATS):
        for dtype, found in repeats.items():
            found.append(measure(config.model_copy(update={"dtype": dtype})))
            print(dtype, found[-1], flush=True)
    figures = {
        "copy_gb_per_s": round(bandwidth(), 1),
        "summary": {
            dtype: {name: measuring.spread([r[name] for r in found]) for name in found[0]}
            for dtype, found in repeats.items()
        },
    }
    measuring.write("roofline", figures)


if __name__ == "__main__":
    main()
