"""Room for trials: memory that is free on each device, and the slots that fit into it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module

import psutil

from gpt.errors import InputError
from sweep.backends.base import Slot


def free_bytes(device: str) -> int | None:
    """Return the bytes that are free now, whoever uses the others; None: nobody can say.

    On CUDA NVML is asked, where the package nvidia-ml-py is installed: asking CUDA would take
    memory of every device for as long as this process lives.

    Args:
        device: "cpu", "mps", whose memory is the CPU's, or "cuda:N", of the devices that CUDA shows
            to this process.
    """
    if device in ("cpu", "mps"):
        return int(psutil.virtual_memory().available)
    with suppress(Exception):  # what NVML raises is a plain Exception
        nvml = import_module("pynvml")
        nvml.nvmlInit()
        try:
            return int(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, device)).free)
        finally:
            nvml.nvmlShutdown()
    return None


def _handle(nvml: object, device: str) -> object:
    """Return NVML's handle of a device; its order is its own, so the UUID decides."""
    import torch

    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return nvml.nvmlDeviceGetHandleByUUID(uuid)  # type: ignore[attr-defined]


def slots_that_fit(
    slots: Sequence[Slot],
    least: int,
    most: int,
    free: Mapping[str, int | None],
    show: Callable[[str], None],
) -> list[Slot]:
    """Leave out the slots for whose trials a device has no memory.

    Args:
        slots: All that are wanted.
        least: Bytes that the largest trial takes for certain.
        most: Bytes that it takes with what an allocator and a process take besides.
        free: Bytes that each device of the slots has; None: not known, all its slots stay.
        show: Called with a line where slots are left out.

    Returns:
        At least one slot. One trial is started where `least` is free; a further one where `most`
        is.

    Raises:
        InputError: no device has room for one trial.
    """
    room = {
        device: max(bytes_ // most, int(bytes_ >= least))
        for device, bytes_ in free.items()
        if bytes_ is not None
    }
    used: Counter[str] = Counter()
    kept: list[Slot] = []
    for slot in slots:
        if used[slot.device] < room.get(slot.device, len(slots)):
            used[slot.device] += 1
            kept.append(replace(slot, index=len(kept)))
    there = ", ".join(
        f"{bytes_ / 1e9:.1f} GB are free on {device}"
        for device, bytes_ in free.items()
        if bytes_ is not None
    )
    if not kept:
        raise InputError(
            f"the largest trial must fit into memory, but it takes about {least / 1e9:.1f} GB and "
            f"{there}; end what uses the memory, or make batch_size, n_embd or n_layer smaller."
        )
    if len(kept) < len(slots):
        show(
            f"{len(kept)} trials at a time and not {len(slots)}: one may take {most / 1e9:.1f} GB, "
            f"and {there}"
        )
    return kept
