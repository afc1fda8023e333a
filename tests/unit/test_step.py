"""A training step: what it asks of a device, when it reads what it asked for, and its graph."""

import math
import sys
from dataclasses import asdict
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from counted_launches import ROOT, counts_of
from torch._dynamo.testing import CompileCounterWithBackend

from gpt.config import TrainConfig
from gpt.errors import DivergedError
from gpt.losses.functional import LOSSES
from gpt.losses.fused_linear import linear_loss
from gpt.system.device import Readback, cannot_compile
from gpt.system.distributed import local_device
from gpt.trainer import Trainer
from sweep.trainers.estimate import RandomTokens

CPU = torch.device("cpu")


def trainer_of(**changes: Any) -> Trainer:
    values: dict[str, Any] = {
        "vocab_size": 300,
        "n_embd": 16,
        "n_head": 2,
        "n_layer": 1,
        "block_size": 16,
        "batch_size": 4,
        "max_steps": 8,
        "eval_interval": 4,
        "eval_tokens": 64,
        "warmup_steps": 2,
    }
    config = TrainConfig(**(values | changes))
    return Trainer(config, RandomTokens(config))


def figures(trainer: Trainer) -> list[dict[str, float]]:
    found = []
    while not trainer.done:
        trainer.step()
        if trainer.at_evaluation:
            values = asdict(trainer.evaluate())
            for machine in ("tokens_per_second", "elapsed_seconds", "peak_memory_bytes"):
                del values[machine]
            found.append(values)
    return found


@pytest.mark.parametrize("loss", ["cross_entropy", "squentropy"])
def test_a_step_waits_for_nothing_it_has_asked_for(loss: str):
    trainer = trainer_of(loss=loss, gradient_accumulation_steps=2, dropout=0.1)
    trainer.step()
    assert counts_of(trainer.step).waits == {}


def test_the_counter_sees_python_wait():
    source = compile("def wait(x): x[x > 0].sum().item()", str(ROOT / "gpt" / "made_up.py"), "exec")
    made_up: dict[str, Any] = {}
    exec(source, made_up)
    counts = counts_of(lambda: made_up["wait"](torch.ones(3)))
    assert counts.waits == {
        "boolean mask in gpt/made_up.py:wait": 1,
        "item in gpt/made_up.py:wait": 1,
    }
    assert counts.operators["aten::sum"] == 1


def test_evaluating_reads_all_scores_at_once():
    trainer = trainer_of()
    for _ in range(4):
        trainer.step()
    waits = counts_of(trainer.evaluate).waits
    of_device = {place: n for place, n in waits.items() if place.startswith(("cpu", "boolean"))}
    assert of_device == {
        "cpu in gpt/evaluate.py:_scores": 1,
        "boolean mask in gpt/evaluate.py:flat_targets": 2,  # of tensors that are on the CPU
    }


def test_reading_a_step_late_changes_no_figure():
    at_once = figures(trainer_of(dropout=0.1))
    late = trainer_of(dropout=0.1)
    late.reads_late = True
    assert figures(late) == at_once


def test_a_loss_read_late_ends_the_run_before_another_update():
    trainer = trainer_of(max_steps=20, eval_interval=20)
    trainer.reads_late = True
    trainer.step()
    backward = trainer._backward
    trainer._backward = lambda: backward() * math.nan  # type: ignore[method-assign]
    trainer.step()
    trainer._backward = backward  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="after step 1 ") as raised:
        trainer.step()
    assert raised.value.step == 1
    assert trainer.counters.step == 2  # the update of step 2 was not made


@pytest.mark.parametrize("what", ["evaluation", "checkpoint"])
def test_a_loss_read_late_is_read_before(what: str, tmp_path):
    trainer = trainer_of(max_steps=20, eval_interval=2 if what == "evaluation" else 20)
    trainer.reads_late = True
    trainer.step()
    backward = trainer._backward
    trainer._backward = lambda: backward() * math.nan  # type: ignore[method-assign]

    def step_and_save() -> None:
        trainer.step()
        trainer.save(tmp_path)

    with pytest.raises(DivergedError, match="after step 1 "):
        step_and_save()
    assert not list(tmp_path.iterdir())


def test_weights_of_a_diverged_run_on_the_cpu_are_those_before_the_step():
    trainer = trainer_of()
    trainer.step()
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    backward = trainer._backward
    trainer._backward = lambda: backward() * math.inf  # type: ignore[method-assign]
    with pytest.raises(DivergedError):
        trainer.step()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_number_read_back_has_all_its_digits():
    assert Readback(1 / 3, torch.tensor(0.1), device=CPU).read() == [
        1 / 3,
        torch.tensor(0.1).item(),
    ]


@pytest.mark.parametrize(("device", "current"), [("cuda:1", [1]), ("cuda", []), ("cpu", [])])
def test_the_device_of_a_run_is_cudas_current_one(
    monkeypatch: pytest.MonkeyPatch, device: str, current: list[int]
):
    made_current: list[int] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda own: made_current.append(own.index))
    assert local_device(device) == torch.device(device)
    assert made_current == current


@pytest.mark.parametrize(
    ("capability", "reason"),
    [((6, 1), "Triton needs a GPU of compute capability 7.0"), ((7, 0), "Triton is not installed")],
)
def test_what_a_gpu_lacks_to_compile_is_said(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], reason: str
):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert cannot_compile(torch.device("cuda")) == reason


def test_cuda_needs_a_compiler_of_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    triton = SimpleNamespace(__spec__=ModuleSpec("triton", None))
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cannot_compile(torch.device("cuda")) == "there is no gcc or clang"
    monkeypatch.setenv("CC", "cc")
    assert cannot_compile(torch.device("cuda")) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_model_head_and_loss_are_one_graph_for_all_steps(dtype: str):
    expected = figures(trainer_of(loss="squentropy", dtype=dtype))
    trainer = trainer_of(loss="squentropy", dtype=dtype)
    counter = CompileCounterWithBackend("aot_eager")
    trainer.loss = torch.compile(trainer._loss, backend=counter, dynamic=False, fullgraph=True)
    assert figures(trainer)[-1]["cross_entropy"] == pytest.approx(
        expected[-1]["cross_entropy"], rel=1e-3 if dtype == "bfloat16" else 1e-6
    )
    assert counter.frame_count == 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", ["cross_entropy", "squentropy", "huber"])
def test_the_operator_of_a_graph_has_value_and_gradients_of_the_function(loss: str, reduction: str):
    h, W = torch.randn(50, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    y = torch.randint(30, (50,))
    y[3] = -1
    options = {name: option.default * 0.5 for name, option in LOSSES[loss].options.items()}
    results = []
    for compute in (linear_loss, torch.compile(linear_loss, backend="eager", fullgraph=True)):
        value = compute(h, W, y, loss, reduction, **options)
        gradients = torch.autograd.grad(3 * value, (h, W))
        results.append((value, *gradients))
    for of_function, of_operator in zip(*results, strict=True):
        assert torch.equal(of_function, of_operator)


def test_a_compiled_loss_with_a_schedule_is_not_compiled_anew_at_every_step():
    trainer = trainer_of(loss="squentropy", loss_schedule="linear")
    graphs = CompileCounterWithBackend("eager")
    trainer.hidden = torch.compile(trainer.model, backend=graphs)
    figures(trainer)
    assert graphs.frame_count <= 2  # training and evaluation
