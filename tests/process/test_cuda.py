"""Training on a CUDA device: the CPU's figures, to what bfloat16 and kernels leave of them."""

import itertools
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config, write_run, write_stories

from gpt.events import read_events
from gpt.optim import OPTIMIZERS
from gpt.train import train, train_directory

pytestmark = pytest.mark.gpu


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_trains_to_the_cpus_figures(text: Path, dtype: str, tolerance: float, compiled: bool):
    changes = {"dropout": 0.0, "loss": "squentropy"}
    on_cpu = list(train(tiny_config(text, **changes)))
    on_cuda = list(
        train(tiny_config(text, device="cuda", dtype=dtype, compile=compiled, **changes))
    )
    for ours, reference in zip(on_cuda, on_cpu, strict=True):
        assert ours.cross_entropy == pytest.approx(reference.cross_entropy, rel=tolerance)
        assert ours.peak_memory_bytes > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stopped_run_continues_on_cuda(text: Path, tmp_path: Path, optimizer: str):
    config = tiny_config(text, device="cuda", dtype="bfloat16", optimizer=optimizer, qk_norm=True)
    undisturbed = [e.cross_entropy for e in train(config)]
    (tmp_path / "run").mkdir()
    asked = itertools.count()
    first = list(train(config, tmp_path / "run", stop=lambda: next(asked) == 6))
    second = list(train(config, tmp_path / "run"))
    resumed = [e.cross_entropy for e in first + second]
    assert resumed == pytest.approx(undisturbed, rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_run_on_the_second_device_has_the_figures_of_the_first(text: Path):
    before = torch.cuda.current_device()
    try:
        there = list(train(tiny_config(text, device="cuda:1", loss="squentropy")))
        assert torch.cuda.current_device() == 1
        here = list(train(tiny_config(text, device="cuda:0", loss="squentropy")))
    finally:
        torch.cuda.set_device(before)
    for of in ("train_loss", "grad_norm", "cross_entropy"):
        found, expected = ([getattr(e, of) for e in run] for run in (there, here))
        assert found == pytest.approx(expected, rel=1e-3)


def test_out_of_memory_is_logged_as_its_own_outcome(text: Path, tmp_path: Path):
    config = tiny_config(text, device="cuda", n_embd=65536, n_head=2, n_layer=64)
    run_dir = write_run(tmp_path / "run", config)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(train_directory(run_dir))
    assert read_events(run_dir)[0][-1]["outcome"] == "oom"
