"""Room for trials: what fits into the memory that is free, and what is left out."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpt.errors import InputError
from sweep.backends.base import Slot
from sweep.backends.room import free_bytes, slots_that_fit

GB = 10**9


def slots(*devices: str) -> list[Slot]:
    return [Slot(i, device, 1) for i, device in enumerate(devices)]


def devices_that_fit(wanted: list[Slot], free: dict[str, int | None]) -> tuple[list[str], str]:
    said: list[str] = []
    kept = slots_that_fit(wanted, 2 * GB, 3 * GB, free, said.append)
    assert [slot.index for slot in kept] == list(range(len(kept)))
    return [slot.device for slot in kept], " ".join(said)


def test_all_slots_stay_where_there_is_room_and_nothing_is_said():
    assert devices_that_fit(slots("cpu", "cpu"), {"cpu": 6 * GB}) == (["cpu"] * 2, "")


def test_slots_are_packed_by_what_a_trial_may_take():
    free: dict[str, int | None] = {"cuda:0": 7 * GB, "cuda:1": 4 * GB}
    kept, said = devices_that_fit(slots(*["cuda:0", "cuda:1"] * 3), free)
    assert sorted(kept) == ["cuda:0", "cuda:0", "cuda:1"]
    assert said.startswith("3 trials at a time and not 6: one may take 3.0 GB, and 7.0 GB are")


def test_a_device_that_others_use_is_left_out():
    assert devices_that_fit(slots("cuda:0", "cuda:1"), {"cuda:0": GB, "cuda:1": 80 * GB})[0] == [
        "cuda:1"
    ]


def test_one_trial_starts_where_it_fits_without_the_reserve():
    assert devices_that_fit(slots("cpu", "cpu"), {"cpu": 2 * GB})[0] == ["cpu"]


def test_a_trial_that_cannot_fit_is_refused_with_what_it_takes_and_what_is_there():
    with pytest.raises(InputError, match=r"takes about 2\.0 GB and 1\.9 GB are free on cpu"):
        devices_that_fit(slots("cpu"), {"cpu": 1_900_000_000})


def test_a_device_of_which_nothing_is_known_keeps_its_slots():
    assert devices_that_fit(slots("cuda:0", "cuda:0"), {"cuda:0": None})[0] == ["cuda:0"] * 2


def test_free_memory_of_the_cpu_is_less_than_all():
    free = free_bytes("cpu")
    assert free is not None
    assert 0 < free < 2**50


def test_free_memory_of_a_gpu_is_nvmls_for_the_device_that_torch_means(
    monkeypatch: pytest.MonkeyPatch,
):
    def properties(device: str) -> Any:
        return SimpleNamespace(uuid=f"uuid of {device}")

    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda uuid: SimpleNamespace(
            free={"GPU-uuid of cuda:1": 5 * GB}[uuid]
        ),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    assert free_bytes("cuda:1") == 5 * GB


def test_free_memory_of_a_gpu_is_not_known_without_nvml(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert free_bytes("cuda:0") is None


def test_free_memory_of_a_gpu_is_not_known_where_nvml_refuses(monkeypatch: pytest.MonkeyPatch):
    class NVMLError(Exception):
        pass

    def refuse() -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=refuse))
    assert free_bytes("cuda:0") is None
