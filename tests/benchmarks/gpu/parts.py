"""The parts of the measurement, each run in a process of its own; see __main__."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt.config import TrainConfig
from gpt.events import read_events
from gpt.losses.fused_linear import linear_loss
from gpt.model import GPT, num_params
from gpt.trainer import Trainer
from sweep.trainers.estimate import RandomTokens
from sweep.trainers.memory import estimate_memory
from tests.benchmarks import tokens
from tests.benchmarks.gpu import checks

ROOT = Path(__file__).parents[3]
# Of bfloat16 with float32 sums, dense, as their makers state them.
DATASHEET_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}


@dataclass
class Bench:
    """What every part gets: where it measures, and the file of its figures."""

    device: str
    tiny: bool
    file: Path
    nanogpt: Path | None
    figures: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Write all figures so far."""
        self.file.write_text(json.dumps(self.figures, indent=1) + "\n")

    def config(self, **changes: Any) -> TrainConfig:
        """A model of the middle of the tinystories CUDA budget, with changes."""
        values: dict[str, Any] = {
            "vocab_size": 4096,
            "n_layer": 6,
            "n_head": 8,
            "n_embd": 512,
            "block_size": 256,
            "batch_size": 128,
            "eval_tokens": 131072,
            "max_steps": 1500,
            "eval_interval": 75,
            "dtype": "bfloat16",
            "device": self.device,
        } | changes
        if self.tiny:
            values |= {"n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 32, "batch_size": 4}
            values |= {"vocab_size": min(values["vocab_size"], 512), "eval_tokens": 256}
        return TrainConfig(**values)

    def wait(self) -> None:
        """Wait until the device has done all that was asked."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)

    def seconds(self, do: Callable[[], object], at_least: float = 1.0) -> float:
        """Of one call, after three that are not counted; over as many as fill `at_least`."""
        for _ in range(3):
            do()
        self.wait()
        started, n = time.perf_counter(), 0
        at_least = 0.05 if self.tiny else at_least
        while time.perf_counter() - started < at_least:
            for _ in range(5):
                do()
            n += 5
            self.wait()
        return (time.perf_counter() - started) / n


def run_part(name: str, out: Path, device: str, nanogpt: Path | None, tiny: bool) -> None:
    """Measure one part; its figures go to out/NAME.json as they come."""
    if device != "cpu":
        torch.set_float32_matmul_precision("high")  # TF32, as nanoGPT allows it
    if tiny:  # graphs are made, but not compiled, which takes a CPU minutes
        torch.compile = partial(torch.compile, backend="eager")
    PARTS[name](Bench(device, tiny, out / f"{name}.json", nanogpt))


def machine(bench: Bench) -> None:
    """What is there, and its largest rates."""
    facts: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": bench.device,
    }
    if bench.device != "cpu":
        of = torch.cuda.get_device_properties(bench.device)
        facts |= {
            "device": of.name,
            "devices": torch.cuda.device_count(),
            "memory_gb": round(of.total_memory / 1e9, 1),
            "capability": f"{of.major}.{of.minor}",
            "cuda": torch.version.cuda,
        }
    side = 512 if bench.tiny else 8192
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        a, b = (torch.randn(side, side, dtype=dtype, device=bench.device) for _ in range(2))
        rate = 2 * side**3 / bench.seconds(lambda a=a, b=b: a @ b) / 1e12  # type: ignore[misc]
        facts[f"{str(dtype).removeprefix('torch.')}_tflops"] = round(rate, 2)
    source = torch.ones(2**20 if bench.tiny else 2**30, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copied = 2 * len(source) / bench.seconds(lambda: target.copy_(source)) / 1e9
    facts["copy_gb_per_s"] = round(copied, 1)
    bench.figures["machine"] = facts
    bench.save()


def correctness(bench: Bench) -> None:
    """Every check of tests.benchmarks.gpu.checks; one that fails does not stop the next."""
    bench.figures["checks"] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, check in checks.all_checks(bench.device, Path(folder)):
            bench.figures["checks"][name] = _result(check)
            bench.save()


def _result(check: Callable[[], dict[str, float]]) -> dict[str, Any]:
    try:
        found = check()
    except Exception as error:
        return {"passed": False, "found": f"{type(error).__name__}: {error}"[:500]}
    return {"passed": found["error"] <= found["tolerance"], "found": found}


def tests(bench: Bench) -> None:
    """The tests marked gpu, where pytest and what they import are there."""
    if missing := [name for name in ("pytest", "hypothesis") if find_spec(name) is None]:
        bench.figures["last_line"] = f"not run: {', '.join(missing)} is not installed"
        bench.save()
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    command += ["-W", "default", "-o", "addopts=", "tests/process/test_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    bench.figures["last_line"] = (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]
    bench.figures["output"] = done.stdout[-4000:]
    bench.save()


def processes(bench: Bench) -> None:
    """A run on two devices against the same run on one."""
    if bench.device != "cpu" and torch.cuda.device_count() < 2:
        bench.figures["result"] = "not measured: there is one device"
        bench.save()
        return
    device = bench.device.partition(":")[0]
    config = checks.short_run(device, dropout=0.0, batch_size=8, eval_interval=8, max_steps=8)
    with tempfile.TemporaryDirectory() as place, tokens.made_up(config.vocab_size) as data:
        ends = []
        for n in (1, 2):
            folder = Path(place) / str(n)
            folder.mkdir()
            written = config.model_copy(update={"data": data})
            (folder / "config.json").write_text(written.model_dump_json())
            start = [sys.executable, "-m", "gpt.train"]
            if n == 2:
                start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
                start += ["--nproc-per-node", "2", "-m", "gpt.train"]
            subprocess.run([*start, str(folder)], check=True, cwd=ROOT)
            ends.append(_evaluations(folder)[-1]["cross_entropy"])
    bench.figures |= {"cross_entropy": ends, "relative_error": abs(ends[1] / ends[0] - 1)}
    bench.figures["result"] = f"relative error of cross-entropy {abs(ends[1] / ends[0] - 1):.1e}"
    bench.save()


def _evaluations(run_dir: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(run_dir)[0] if event["event"] == "evaluation"]


MODELS: dict[str, dict[str, Any]] = {
    "6 x 512, V = 4,096": {},
    "12 x 768, V = 50,257": {
        "n_layer": 12,
        "n_head": 12,
        "n_embd": 768,
        "vocab_size": 50257,
        "block_size": 1024,
        "batch_size": 16,
    },
}


def training(bench: Bench) -> None:
    """Tokens per second, beside nanoGPT's loop; the share of the largest rate."""
    peak = _measured_peak(bench)
    bench.figures["cases"] = cases = {}
    for name, changes in MODELS.items():
        config = bench.config(**changes)
        rates: dict[str, float] = {}
        case = cases[name] = {"vocab_size": config.vocab_size, "tokens_per_second": rates}
        variants: dict[str, Callable[[], Callable[[], object]]] = {
            "nanoGPT's loop, compiled": lambda c=config: nanogpt_step(c),  # type: ignore[misc]
            "cross_entropy, compiled": lambda c=config: _step(c, compile=True),  # type: ignore[misc]
            "squentropy, compiled": lambda c=config: _step(  # type: ignore[misc]
                c, compile=True, loss="squentropy"
            ),
            "cross_entropy": lambda c=config: _step(c),  # type: ignore[misc]
        }
        for how, make in variants.items():
            step = make()
            rates[how] = round(config.tokens_per_step / bench.seconds(step, 2.0))
            flops = 6 * num_params(config) + 12 * config.n_layer * config.n_embd * config.block_size
            if peak:
                case.setdefault("mfu", {})[how] = round(rates[how] * flops / peak, 4)
            _compare(case)
            bench.save()
            del step
            if bench.device != "cpu":
                torch.cuda.empty_cache()
            torch._dynamo.reset()
        if bench.nanogpt:
            rates["nanoGPT's train.py"] = round(nanogpt_program(bench, config))
            _compare(case)
            bench.save()


def _compare(case: dict[str, Any]) -> None:
    rates = case["tokens_per_second"]
    ours = rates.get("cross_entropy, compiled")
    theirs = rates.get("nanoGPT's train.py") or rates.get("nanoGPT's loop, compiled")
    if ours and theirs:
        case["ratio_to_nanogpt"] = round(ours / theirs, 3)
    if ours and "squentropy, compiled" in rates:
        case["squentropy_to_cross_entropy"] = round(rates["squentropy, compiled"] / ours, 3)


def _measured_peak(bench: Bench) -> float:
    """FLOP/s of large products in bfloat16, as the part "machine" found them; 0: unknown."""
    file = bench.file.with_name("machine.json")
    facts = json.loads(file.read_text())["machine"] if file.exists() else {}
    return float(facts.get("bfloat16_tflops", 0.0)) * 1e12


def _step(config: TrainConfig, **changes: Any) -> Callable[[], object]:
    config = config.model_copy(update={"max_steps": 10**6, "eval_interval": 10**6, **changes})
    return Trainer(config, RandomTokens(config)).step


def nanogpt_step(config: TrainConfig) -> Callable[[], object]:
    """A step as nanoGPT's train.py makes it: full logits, everything compiled, pinned batches.

    Its model is ours, which has its parameters and operations; `--nanogpt` runs its own train.py.
    """
    device = torch.device(config.device)
    model = GPT(config).to(device)

    def loss_of(idx: Tensor, targets: Tensor) -> Tensor:
        logits = model.logits(model(idx))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))

    compiled = torch.compile(loss_of)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    size = (config.batch_size, config.block_size)

    def batch() -> tuple[Tensor, Tensor]:
        x, y = (torch.randint(config.vocab_size, size) for _ in range(2))
        if device.type == "cpu":
            return x, y
        return tuple(z.pin_memory().to(device, non_blocking=True) for z in (x, y))  # type: ignore[return-value]

    ready = batch()

    def step() -> None:
        nonlocal ready
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = compiled(*ready)
        ready = batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def nanogpt_program(bench: Bench, config: TrainConfig) -> float:
    """Tokens per second that nanoGPT's own train.py reports, after it has compiled."""
    assert bench.nanogpt is not None
    steps = 4 if bench.tiny else 60
    names = ("n_layer", "n_head", "n_embd", "block_size", "batch_size", "dropout")
    options = {name: getattr(config, name) for name in names} | {
        "device": bench.device,
        "dtype": config.dtype,
        "compile": not bench.tiny,
        "gradient_accumulation_steps": 1,
        "max_iters": steps - 1,
        "log_interval": 1,
        "eval_interval": 10**6,
        "eval_iters": 1,
        "dataset": "made_up",
    }
    with tempfile.TemporaryDirectory() as place, tokens.made_up(config.vocab_size):
        folder = Path(place)
        (folder / "data").mkdir()
        data = Path(os.environ["SQUEN_SWEEP_CACHE"]) / "tokens" / tokens.FINGERPRINT
        (folder / "data" / "made_up").symlink_to(data)
        (folder / "configurator.py").symlink_to(bench.nanogpt / "configurator.py")
        command = [sys.executable, str(bench.nanogpt / "train.py")]
        command += [f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    times = [float(ms) for ms in re.findall(r"^iter \d+: .* time ([\d.]+)ms", done.stdout, re.M)]
    return 1e3 * config.tokens_per_step / statistics.median(times[steps // 2 :])


def memory(bench: Bench) -> None:
    """Peaks of allocated tensors beside the estimate; what a process takes besides."""
    bench.figures["shapes"] = shapes = {}
    variants = {**MODELS, "6 x 512, dropout": {"dropout": 0.1}, "6 x 512, float32": {}}
    for name, changes in variants.items():
        dtype = "float32" if "float32" in name else "bfloat16"
        config = bench.config(dtype=dtype, **changes)
        trainer = Trainer(config, RandomTokens(config))
        for _ in range(3):
            trainer.step()
        peak = trainer.evaluate().peak_memory_bytes
        estimate = estimate_memory(config)
        ours = estimate.peak if bench.device == "cpu" else estimate.tensors
        one = {"tensors_mb": round(peak / 1e6, 1), "estimate_to_tensors": round(ours / peak, 3)}
        if bench.device != "cpu":
            free, total = torch.cuda.mem_get_info(bench.device)
            reserved = torch.cuda.memory_reserved(bench.device)
            one["reserved_to_tensors"] = round(torch.cuda.max_memory_reserved() / peak, 3)
            one["outside_the_allocator_mb"] = round((total - free - reserved) / 1e6, 1)
            del trainer
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        shapes[name] = one
        bench.save()


def head(bench: Bench) -> None:
    """The head and its loss alone, forward and backward, beside torch's."""
    bench.figures["cases"] = cases = {}
    shapes = {"V = 4,096, C = 512": (32768, 4096, 512), "V = 50,257, C = 768": (16384, 50257, 768)}
    for name, shape in shapes.items():
        n, v, c = (64, 128, 32) if bench.tiny else shape
        h = torch.randn(n, c, device=bench.device, requires_grad=True)
        w = (0.02 * torch.randn(v, c, device=bench.device)).requires_grad_()
        y = torch.randint(v, (n,), device=bench.device)
        plain = torch.compile(lambda h, w, y: F.cross_entropy(h @ w.T, y))
        things: dict[str, Callable[[], Tensor]] = {
            "cross_entropy": lambda h=h, w=w, y=y: linear_loss(h, w, y),  # type: ignore[misc]
            "squentropy": lambda h=h, w=w, y=y: linear_loss(h, w, y, "squentropy"),  # type: ignore[misc]
            "torch's, full logits": lambda h=h, w=w, y=y: F.cross_entropy(h @ w.T, y),  # type: ignore[misc]
            "torch's, compiled": lambda h=h, w=w, y=y, f=plain: f(h, w, y),  # type: ignore[misc]
        }
        cases[name] = {}
        for how, compute in things.items():
            cases[name][how] = _of_head(bench, compute, h, w)
            bench.save()


def _of_head(bench: Bench, compute: Callable[[], Tensor], h: Tensor, w: Tensor) -> dict[str, float]:
    def both() -> None:
        h.grad = w.grad = None
        with torch.autocast(h.device.type, dtype=torch.bfloat16):
            loss = compute()
        loss.backward()

    seconds, megabytes = bench.seconds(both), 0.0
    if bench.device != "cpu":
        h.grad = w.grad = None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        both()
        megabytes = (torch.cuda.max_memory_allocated() - before) / 1e6
    return {"milliseconds": round(1e3 * seconds, 3), "megabytes": round(megabytes, 1)}


def evaluation(bench: Bench) -> None:
    """Seconds of an evaluation by all yardsticks, and its share of a trial."""
    bench.figures["losses"] = losses = {}
    for loss in ("cross_entropy", "squentropy"):
        config = bench.config(loss=loss)
        trainer = Trainer(config, RandomTokens(config))
        of_step = bench.seconds(trainer.step)

        def evaluate(trainer: Trainer = trainer) -> None:
            trainer.counters.steps_since_evaluation = 1  # it divides by them
            trainer.counters.seconds_since_evaluation = 1.0
            trainer.evaluate()

        seconds = bench.seconds(evaluate)
        training = config.eval_interval * of_step
        share = seconds / (seconds + training)
        losses[loss] = {"seconds": round(seconds, 4), "share_of_a_trial": round(share, 4)}
        bench.save()


def trials(bench: Bench) -> None:
    """Trials an hour with 1, 2, 4 and 8 processes on the device at a time, after a first one.

    Each trains some steps of the budget's middle; whole trials are extrapolated. They share what
    the first one has compiled.
    """
    bench.figures["at_a_time"] = found = {}
    whole = bench.config(compile=bench.device != "cpu")
    steps = 8 if bench.tiny else 100
    short = {"max_steps": 2 * steps, "eval_interval": steps, "eval_tokens": 256}
    with tempfile.TemporaryDirectory() as place, tokens.made_up(whole.vocab_size) as data:
        config = whole.model_copy(update={**short, "data": data})
        _at_a_time(config, 1, Path(place) / "first")  # compiles
        for n in (1, 2) if bench.tiny else (1, 2, 4, 8):
            rate = _at_a_time(config, n, Path(place) / str(n))
            tokens_of_trial = whole.max_steps * whole.tokens_per_step
            found[str(n)] = {
                "tokens_per_second": round(rate),
                "trials_per_hour": round(3600 * rate / tokens_of_trial, 2),
            }
            bench.save()


def _at_a_time(config: TrainConfig, n: int, place: Path) -> float:
    """Tokens per second of n runs together, each after its first evaluation."""
    started = []
    for i in range(n):
        run_dir = place / str(i)
        run_dir.mkdir(parents=True)
        (run_dir / "config.json").write_text(config.model_dump_json())
        command = [sys.executable, "-m", "gpt.train", str(run_dir)]
        started.append((subprocess.Popen(command, cwd=ROOT), run_dir))
    for process, _ in started:
        if process.wait():
            raise RuntimeError(f"a training ended with exit code {process.returncode}")
    return float(sum(_evaluations(run_dir)[-1]["tokens_per_second"] for _, run_dir in started))


def start(bench: Bench) -> None:
    """Seconds from the start of a training to the end of its first step."""
    with tempfile.TemporaryDirectory() as place, tokens.made_up(bench.config().vocab_size) as data:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(place) / "compiled")
        for name in ("uncompiled",) if bench.tiny else ("uncompiled", "cold", "warm"):
            config = bench.config(compile=name != "uncompiled", max_steps=1, eval_interval=1)
            config = config.model_copy(update={"eval_tokens": 1, "data": data})
            run_dir = Path(place) / name
            run_dir.mkdir()
            (run_dir / "config.json").write_text(config.model_dump_json())
            began = time.time()
            subprocess.run([sys.executable, "-m", "gpt.train", str(run_dir)], check=True, cwd=ROOT)
            bench.figures[name] = round(_evaluations(run_dir)[0]["time"] - began, 1)
            bench.save()


PARTS: dict[str, Callable[[Bench], None]] = {
    "machine": machine,
    "correctness": correctness,
    "tests": tests,
    "processes": processes,
    "training": training,
    "memory": memory,
    "head": head,
    "evaluation": evaluation,
    "trials": trials,
    "start": start,
}
