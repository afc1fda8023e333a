"""Slots for the devices and cores at hand, and processes found again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from invariants import wait_until
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.errors import InputError
from gpt.events import append_event
from sweep.backends.base import Slot
from sweep.backends.local import (
    MAX_AUTO_WORKERS,
    LocalProcess,
    available_cores,
    plan_slots,
    resolve_device,
)
from sweep.trainers.gpt import faster_dtype, slow_dtype
from sweep.tuner.callback import Callback, Message, SweepEvent, TrialStarted
from sweep.tuner.exits import Ending, ending_of
from sweep.tuner.options import RunOptions
from sweep.tuner.start import open_study


def found(run_dir: Path) -> dict[Path, LocalProcess]:
    return LocalProcess.find({run_dir: "gpt.train"})


def test_on_the_cpu_every_core_is_a_slot_by_default():
    slots = plan_slots("cpu", None)
    assert len(slots) == min(available_cores(), MAX_AUTO_WORKERS)
    assert {slot.device for slot in slots} == {"cpu"}


def test_fewer_workers_get_more_threads_each():
    (slot,) = plan_slots("cpu", 1)
    assert slot == Slot(0, "cpu", available_cores())


def test_more_workers_than_cores_still_get_a_thread_each():
    slots = plan_slots("cpu", 4 * available_cores())
    assert {slot.threads for slot in slots} == {1}


def test_on_cuda_there_is_a_slot_for_each_device():
    assert [s.device for s in plan_slots("cuda", None, n_devices=2)] == ["cuda:0", "cuda:1"]


def test_workers_are_dealt_to_the_devices_in_turn():
    slots = plan_slots("cuda", 3, n_devices=2)
    assert [slot.device for slot in slots] == ["cuda:0", "cuda:1", "cuda:0"]


def test_one_named_device_is_the_only_one():
    assert [slot.device for slot in plan_slots("cuda:1", 2, n_devices=4)] == ["cuda:1"] * 2


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(device: str):
    with pytest.raises(InputError, match="device"):
        resolve_device(device)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({"architecture": "arm64"}, "float32"),
    ],
)
def test_a_cpu_multiplies_in_bfloat16_only_if_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: str
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert faster_dtype("cpu") == dtype


def see_gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    """Let torch see GPUs of these compute capabilities."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(capabilities))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda at: capabilities[at.index])


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((8, 0), "bfloat16"),
        ((7, 5), "float16"),  # T4
        ((7, 0), "float16"),  # V100
        ((6, 1), "float32"),
    ],
)
def test_a_gpu_without_bfloat16_multiplies_in_float16_if_it_has_tensor_cores(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str
):
    see_gpus(monkeypatch, (9, 0), capability)
    assert faster_dtype("cuda:1") == dtype


def started_dtype(folder: Path, **options: str) -> str:
    """The dtype of a new study that leaves it open."""
    spec = tiny_study(folder, write_stories(folder / "text"))
    spec = spec.model_copy(update={"train": spec.train | {"dtype": "auto"}})
    at = RunOptions(storage=str(folder / "sweep.db"), runs=folder / "runs", **options)
    with open_study(spec, spec.data, at, Order()) as opened:
        return str(opened.spec.base("dtype"))


@pytest.mark.parametrize(
    ("device", "dtype"), [("cuda:0", "bfloat16"), ("cuda:1", "float16"), ("cuda", "float16")]
)
def test_a_study_starts_in_the_dtype_of_the_weakest_gpu_that_it_trains_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, device: str, dtype: str
):
    see_gpus(monkeypatch, (8, 0), (7, 5))
    assert started_dtype(tmp_path, device=device) == dtype


def test_a_study_starts_on_gpus_of_a_cluster_where_this_machine_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    sbatch = tmp_path / "bin" / "sbatch"  # says yes to --test-only
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    assert started_dtype(tmp_path, backend="slurm", device="cuda") == "bfloat16"


def test_auto_takes_an_apple_gpu_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match="device mps must be an Apple GPU, but torch sees none"):
        resolve_device("mps")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert (resolve_device("auto"), resolve_device("mps")) == ("mps", "mps")
    assert [slot.device for slot in plan_slots("mps", None)] == ["mps"]
    assert faster_dtype("mps") == "float32"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert resolve_device("auto") == "cuda"


@pytest.mark.parametrize(
    ("dtype", "device", "faster", "named"),
    [
        ("float16", "cpu", "float32", "CPU"),
        ("float16", "cuda", "bfloat16", None),  # slower, but has it
        ("bfloat16", "cpu", "float32", "CPU"),  # a study that was started on another machine
        ("bfloat16", "cuda:1", "float32", "GPU"),
        ("bfloat16", "cpu", "bfloat16", None),
        ("float32", "cpu", "float32", None),
        ("float32", "cpu", "bfloat16", None),
    ],
)
def test_a_dtype_that_the_device_only_emulates_is_said(dtype, device, faster, named):
    said = slow_dtype(dtype, device, faster)
    assert (said is None) == (named is None)
    assert named is None or f"this {named}" in said


def test_a_directory_that_nobody_trains_has_no_process(tmp_path: Path):
    assert not found(tmp_path)


def test_a_pid_that_belongs_to_another_program_by_now_is_not_taken_over(tmp_path: Path):
    append_event(tmp_path, "start", pid=os.getpid())
    assert not found(tmp_path)


def test_the_trainer_of_another_directory_that_has_the_pid_by_now_is_not_taken_over(
    tmp_path: Path,
):
    ours, others = tmp_path / "1", tmp_path / "10"
    ours.mkdir()
    sleep = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", sleep, "gpt.train", str(others)]) as process:
        append_event(ours, "start", pid=process.pid)
        assert found(others)
        assert not found(ours)
        process.kill()


def test_a_process_whose_pid_is_anothers_by_now_is_dead_and_the_other_is_left_alone():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        ended = psutil.Process(other.pid)
        pid, start = ended._ident
        ended._ident = (pid, start - 1.0)  # as if it had been started a second before
        process = LocalProcess(ended)
        assert not process.alive
        process.stop()
        process.kill()
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    ("number", "obeyed"),
    [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGKILL, False)],
)
def test_who_was_asked_to_end_obeyed_and_who_was_killed_crashed(number: int, obeyed: bool):
    # This process may have been told to ignore signals: by nohup, or as a shell's job.
    text = "import signal, time; [signal.signal(n, signal.SIG_DFL) for n in (1, 2)]; "
    command = [sys.executable, "-c", text + "print(flush=True); time.sleep(60)"]
    with psutil.Popen(command, stdout=subprocess.PIPE) as started:
        process = LocalProcess(started)
        started.stdout.readline()
        assert process.alive
        started.send_signal(number)
        started.wait()
        stopped = ending_of(None, process.exit_code) is Ending.STOPPED
        assert stopped == obeyed


def test_a_process_that_has_said_nothing_yet_is_found_and_can_be_killed(tmp_path: Path):
    sleep = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", sleep, "gpt.train", str(tmp_path)]) as process:
        wait_until(lambda: found(tmp_path))  # its command line appears a bit later
        (trainer,) = found(tmp_path).values()
        assert trainer.alive
        trainer.kill()
        process.wait()
        assert not trainer.alive


class Order(Callback):
    """Keeps what is said, and that trials start, in their order."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def on(self, event: SweepEvent) -> None:
        match event:
            case Message(text):
                self.kept.append(text)
            case TrialStarted(number):
                self.kept.append(f"trial {number} starts")


def test_before_the_first_trial_a_slow_dtype_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
):
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)  # of a CPU without instructions
    spec = tiny_study(tmp_path, write_stories(tmp_path / "text"))
    started = spec.model_copy(update={"train": spec.train | {"dtype": "bfloat16"}})
    order = Order()
    run_tiny(started, tmp_path, 1, callback=order)
    said = next(i for i, line in enumerate(order.kept) if "dtype is bfloat16" in line)
    assert said < order.kept.index("trial 0 starts")
