"""Is it cheaper to train K models of one shape as one batched model than one by one?

    python -m tests.benchmarks.stacked [CASE ...] [together]

A prototype, which no trial uses. Models of the tinystories CPU budget, each with a learning rate,
a dropout rate, a loss and a seed of its own, take their steps together: parameters have a leading
dimension K, linear layers are batched products, sequences of all models attend at once. Batches,
schedules and optimisers stay those of K trainers of gpt.trainer.

A case counts the CPU time of a token, which other programs hardly change. "together" is the wall
time on two quiet cores, beside what the tuner does: two trials at a time, one thread each. With
names, only those are measured anew. Shapes: K models, B sequences, T tokens, C columns, V classes.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache, lru_cache, partial
from multiprocessing import get_context
from operator import truediv
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.config import TrainConfig
from gpt.data.dataset import TokenData, prepare
from gpt.losses import fused_linear
from gpt.losses.functional import squentropy
from gpt.losses.logit_stats import ChunkStats
from gpt.model import LEVELS, causal_attention
from gpt.trainer import Trainer, learning_rate_at, set_learning_rate
from sweep.study.dataset import pin_dataset
from sweep.study.toml_file import read_study_file
from sweep.trainers.gpt import faster_dtype
from tests.benchmarks import measuring
from tests.helpers.counted_launches import counts_of

KS = (1, 2, 4, 8)
CPU_SECONDS = 0.2  # of a process in a measurement, in whole steps
HEAD_ROWS = 512  # whose logits are held at a time: 4 MiB, as gpt.losses.fused_linear does
TOKENS_PER_STEP = 8 * 128  # of a model
# Relative, of a loss in the first 20 steps: sums have another order, and bfloat16 rounds them.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-3}


class Case(NamedTuple):
    """What all models of a measurement have in common."""

    n_layer: int
    dropout: float
    loss: str
    dtype: str

    def __str__(self) -> str:
        return f"n_layer {self.n_layer}, dropout {self.dropout:g}, {self.loss}, {self.dtype}"


def cases() -> dict[str, Case]:
    """All of them by name; bfloat16 where the processor has it."""
    dtypes = list(dict.fromkeys(["float32", faster_dtype("cpu")]))
    losses = ("cross_entropy", "squentropy")
    every = itertools.starmap(Case, itertools.product((1, 4), (0.0, 0.1), losses, dtypes))
    return {str(case): case for case in every}


@cache
def text() -> TokenData:
    """The built-in stories, as the study has them."""
    spec = read_study_file("tinystories", "cpu")
    return prepare(spec.data.model_copy(update={"source": "built-in"}))


def config_of(case: Case, k: int, threads: int) -> TrainConfig:
    """Model k of a stack: a seed and a learning rate of its own."""
    spec = read_study_file("tinystories", "cpu").with_dtype(case.dtype)
    source = spec.data.model_copy(update={"source": "built-in"})
    params = {"learning_rate": 3e-3 * 1.3**k, "dropout": case.dropout, "n_layer": case.n_layer}
    data = pin_dataset(source, text())
    config = spec.train_config({**params, "loss": case.loss}, data, "cpu", threads)
    endless = {"max_steps": 10**6, "eval_interval": 10**6, "eval_tokens": 1, "seed": k}
    return config.model_copy(update=endless)


class Stack:
    """K models of one shape that take each step together.

    Args:
        configs: Equal but for learning rate, dropout, loss (one of two) and seed; no biases.
        of_head: Models, and rows of each, whose logits are held at a time.
    """

    def __init__(
        self, configs: list[TrainConfig], of_head: tuple[int, int] = (1, HEAD_ROWS)
    ) -> None:
        self.trainers = [Trainer(config, text()) for config in configs]
        self.config = configs[0]
        self.dtype = getattr(torch, self.config.dtype)
        self.weights, self.grads = self._share_memory()
        self.of_head = of_head
        self.square_weight = torch.tensor([float(c.loss == "squentropy") for c in configs])
        self.squares = bool(self.square_weight.any())
        dropped = torch.tensor([round(c.dropout * LEVELS) for c in configs])
        self.drops = bool(dropped.any())
        self.threshold = (dropped - LEVELS // 2).to(torch.int16)
        self.scale = LEVELS / (LEVELS - dropped)
        self.steps = 0

    def _share_memory(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Stack the models' parameters and gradients (K, ...); theirs are views of the stacks."""
        named = [dict(trainer.model.named_parameters()) for trainer in self.trainers]
        weights = {name: torch.stack([p[name].detach() for p in named]) for name in named[0]}
        grads = {name: torch.empty_like(stack) for name, stack in weights.items()}
        for k, parameters in enumerate(named):
            for name, parameter in parameters.items():
                parameter.data, parameter.grad = weights[name][k], grads[name][k]
        return {name: stack.requires_grad_() for name, stack in weights.items()}, grads

    def step(self) -> list[float]:
        """Make one optimiser step of each model; return their losses."""
        pairs = [next(trainer.batches) for trainer in self.trainers]
        idx, targets = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
        with self.trainers[0].autocast():
            hidden = self._hidden(idx).flatten(1, 2)  # (K, B * T, C)
        losses, d_hidden, d_wte = self._head(hidden.detach(), targets.flatten(1))
        names, weights = self.weights.keys(), list(self.weights.values())
        grads = dict(zip(names, torch.autograd.grad(hidden, weights, d_hidden), strict=True))
        grads["transformer.wte.weight"] += d_wte
        self._update(grads)
        self.steps += 1
        return [float(loss) for loss in losses]

    @torch.no_grad()
    def _update(self, grads: dict[str, Tensor]) -> None:
        """Clip each model's gradient, and let its own optimiser step."""
        norms = [torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads.values()]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        factor = (self.config.grad_clip / (norm + 1e-6)).clamp(max=1.0)
        for name, grad in grads.items():  # transposed ones are laid out as their weights are
            torch.mul(grad, factor.view(-1, *[1] * (grad.dim() - 1)), out=self.grads[name])
        for trainer in self.trainers:
            set_learning_rate(trainer.optimizers, learning_rate_at(self.steps, trainer.config))
            for optimizer in trainer.optimizers:
                optimizer.step()

    def _hidden(self, idx: Tensor) -> Tensor:
        """Hidden states (K, B, T, C) of tokens (K, B, T)."""
        K, B, T = idx.shape
        w, V = self.weights, self.config.vocab_size
        own_rows = idx + V * torch.arange(K, device=idx.device).view(K, 1, 1)
        x = F.embedding(own_rows, w["transformer.wte.weight"].flatten(0, 1))
        x = self._dropout(x + w["transformer.wpe.weight"][:, None, :T]).flatten(1, 2)
        for layer in range(self.config.n_layer):
            name = f"transformer.h.{layer}."
            qkv = self._linear(self._norm(x, f"{name}ln_1"), f"{name}attn.c_attn")
            y = self._attention(qkv.view(K * B, T, 3, self.config.n_head, -1))
            x = x + self._dropout(self._linear(y.view(K, B * T, -1), f"{name}attn.c_proj"))
            h = self._linear(self._norm(x, f"{name}ln_2"), f"{name}mlp.c_fc")
            x = x + self._dropout(self._linear(F.gelu(h), f"{name}mlp.c_proj"))
        return self._norm(x, "transformer.ln_f").view(K, B, T, -1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return torch.bmm(x, self.weights[f"{name}.weight"].mT)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=1e-5) * self.weights[f"{name}.weight"][:, None]

    def _attention(self, qkv: Tensor) -> Tensor:
        """(K * B, T, 3, H, D) -> (K * B, T, C), as in gpt.model, with dropout by model."""
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (K * B, H, T, D)
        if not self.drops:
            return causal_attention(q, k, v, 0.0).transpose(1, 2).flatten(2)
        shape = N, H, T, D = q.shape
        q, k, v = (x.reshape(N * H, T, D) for x in (q, k, v))
        future = torch.full((T, T), -torch.inf, dtype=q.dtype).triu(1)
        with torch.autocast("cpu", enabled=False):
            scores = torch.baddbmm(future, q, k.mT, alpha=D**-0.5)
            y = self._dropout(scores.softmax(2)) @ v
        return y.view(shape).transpose(1, 2).flatten(2)

    def _dropout(self, x: Tensor) -> Tensor:
        """As in gpt.model, with each model's rate; the first dimension is a multiple of K."""
        if not self.drops:
            return x
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(len(self.trainers), -1)
        kept = bits.ge_(self.threshold[:, None])
        scale = self.scale.to(x.dtype)[:, None]
        if x.itemsize == kept.itemsize:
            return x * kept.mul_(scale.view(kept.dtype)).view(x.dtype).view(x.shape)
        return x * kept.to(x.dtype).mul_(scale).view(x.shape)

    @torch.no_grad()
    def _head(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (K,) and their derivatives by hidden states (K, N, C) and weights (K, V, C)."""
        h = hidden.to(self.dtype)
        W = self.weights["transformer.wte.weight"].detach().to(self.dtype)
        N = h.shape[1]
        losses = torch.zeros(len(h))
        d_h, d_W = torch.empty_like(hidden), torch.zeros(W.shape)
        slices = _slices(len(h), self.of_head[0]), _slices(N, self.of_head[1])
        for m, rows in itertools.product(*slices):
            f = torch.bmm(h[m, rows], W[m].mT)  # (models, rows, V)
            weight = self.square_weight[m].repeat_interleave(f.shape[1])
            logits = f.float().flatten(0, 1)
            stats = ChunkStats(logits, torch.empty_like(logits), targets[m, rows].flatten())
            with torch.enable_grad():
                cost = squentropy(stats, weight) if self.squares else stats.cross_entropy
                total = cost.sum() / N
            losses[m] += cost.detach().view(f.shape[:2]).sum(1) / N
            d_f = stats.gradient(total).view(f.shape).to(f.dtype)
            d_h[m, rows] = torch.bmm(d_f, W[m])
            if d_W.dtype == h.dtype:
                d_W[m].baddbmm_(d_f.mT, h[m, rows])
            else:
                d_W[m] += torch.bmm(d_f.mT, h[m, rows])
        return losses, d_h, d_W


def _slices(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class Plan(NamedTuple):
    """Processes that train at the same time, each with so many models and threads."""

    processes: int
    models: int  # of each
    threads: int
    stacked: bool = True

    def __str__(self) -> str:
        if not self.stacked:
            return "one by one"
        where = f", {self.processes} x {self.threads} threads" if self in TOGETHER else ""
        return f"K = {self.processes * self.models}{where}"


ALONE = [Plan(1, 1, 1, stacked=False), *(Plan(1, k, 1) for k in KS)]
TWO = Plan(2, 1, 1, stacked=False)
TOGETHER = [TWO, *(Plan(1, k, 2) for k in KS), *(Plan(2, k // 2, 1) for k in KS[1:])]


@lru_cache(maxsize=len(TOGETHER))
def stepper(case: Case, plan: Plan) -> Callable[[], object]:
    """A step of a process's models."""
    configs = [config_of(case, k, plan.threads) for k in range(plan.models)]
    return Stack(configs).step if plan.stacked else Trainer(configs[0], text()).step


def train(case: Case, plan: Plan) -> tuple[float, float, float]:
    """Train a moment: tokens of all models of this process, its seconds, its CPU seconds."""
    step = stepper(case, plan)
    torch.set_num_threads(plan.threads)
    tokens, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.process_time() - cpu < CPU_SECONDS:
        step()
        tokens += plan.models * TOKENS_PER_STEP
    return tokens, time.perf_counter() - wall, time.process_time() - cpu


def measure(workers: list[ProcessPoolExecutor], case: Case, plans: list[Plan]) -> dict[str, Any]:
    """Plans in turn: tokens per second of all models, and CPU time of a token."""
    rates: dict[str, list[float]] = {str(plan): [] for plan in plans}
    costs: dict[str, list[float]] = {str(plan): [] for plan in plans}
    for repeat, plan in itertools.product(range(measuring.REPEATS + 1), plans):
        started = [worker.submit(train, case, plan) for worker in workers[: plan.processes]]
        tokens, seconds, cpu_seconds = zip(*(one.result() for one in started), strict=True)
        if repeat:  # in the first round they make their models
            rates[str(plan)].append(sum(map(truediv, tokens, seconds)))
            costs[str(plan)].append(1e6 * sum(cpu_seconds) / sum(tokens))
    kind, of = ("tokens_per_second", rates) if plans is TOGETHER else ("microseconds", costs)
    medians = {name: round(statistics.median(values), 1) for name, values in of.items()}
    print(case, kind, medians, flush=True)
    base = of["one by one"]
    return {kind: medians, "ratio": {name: measuring.ratios(v, base) for name, v in of.items()}}


def largest_difference(n_layer: int, dtype: str) -> float:
    """Of a loss of four models from the same model's by itself; ValueError above TOLERANCE."""
    configs = [
        config_of(Case(n_layer, 0.0, loss, dtype), k, 1).model_copy(update={"warmup_steps": 5})
        for k, loss in enumerate(2 * ["cross_entropy", "squentropy"])
    ]
    stack, alone = Stack(configs), [Trainer(config, text()) for config in configs]
    largest = 0.0
    for _ in range(20):
        for loss, trainer in zip(stack.step(), alone, strict=True):
            before = trainer.counters.loss_sum
            trainer.step()
            own = trainer.counters.loss_sum - before
            largest = max(largest, abs(loss - own) / own)
    if not largest <= TOLERANCE[dtype]:
        raise ValueError(f"losses in {dtype} differ by {largest:.1e}")
    return float(f"{largest:.1e}")


def launches(n_layer: int) -> dict[str, float]:
    """Operators of a step for each model, with a GPU's chunks of logits: one each for all rows."""
    configs = [config_of(Case(n_layer, 0.0, "squentropy", "float32"), k, 1) for k in range(max(KS))]
    for sizes in (fused_linear.CHUNK_BYTES, fused_linear.BLOCK_BYTES):
        sizes["cpu"] = sizes["cuda"]

    def operators(step: Callable[[], object], k: int) -> float:
        step()  # the optimisers make their state
        return round(sum(counts_of(step).operators.values()) / k, 1)

    found = {"one by one": operators(Trainer(configs[0], text()).step, 1)}
    for k in (1, 4, 8):
        found[f"K = {k}"] = operators(Stack(configs[:k], (k, TOKENS_PER_STEP)).step, k)
    return found


def main() -> None:
    """Measure and write the results."""
    file = measuring.HERE / "stacked.json"
    before = json.loads(file.read_text()) if file.exists() and sys.argv[1:] else {"cases": {}}
    with ExitStack() as stack:
        spawned = partial(ProcessPoolExecutor, 1, mp_context=get_context("spawn"))
        workers = [stack.enter_context(spawned()) for _ in range(2)]
        for name in sys.argv[1:] or [*cases(), "together"]:
            if name == "together":
                plain = Case(4, 0.0, "cross_entropy", faster_dtype("cpu"))
                before[name] = {"case": str(plain), **measure(workers, plain, TOGETHER)}
            else:
                before["cases"][name] = measure(workers, cases()[name], ALONE)
    ways = itertools.product((1, 4), dict.fromkeys(case.dtype for case in cases().values()))
    differ = {f"n_layer {n}, {dtype}": largest_difference(n, dtype) for n, dtype in ways}
    figures = {
        "tolerance_of_losses": TOLERANCE,
        "largest_difference_of_losses": differ,
        "launches_of_a_model_and_step": {f"n_layer {n}": launches(n) for n in (1, 4)},
        "summary": {  # of the cases' medians
            name: measuring.spread([of["ratio"][name]["median"] for of in before["cases"].values()])
            for name in map(str, ALONE[1:])
        },
        **{name: before[name] for name in ("cases", "together") if name in before},
    }
    measuring.write("stacked", figures, " ".join(f'"{name}"' for name in sys.argv[1:]))


if __name__ == "__main__":
    main()
