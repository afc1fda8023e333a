"""Devices: checks, and copies to and from them that no queue waits for."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from gpt.errors import InputError


def check_device(device: str) -> None:
    """Raise InputError unless torch can train on `device`."""
    if device == "cpu":
        return
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("device mps must be an Apple GPU, but torch sees none; use cpu.")
        return
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise InputError(f"device must be cpu, cuda, cuda:N or mps, but got {device!r}.")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise InputError(
            f"device {device} is not there: torch sees {count} CUDA devices; use --device cpu."
        )


def cannot_compile(device: torch.device) -> str | None:
    """Return what torch.compile lacks on a device; None: nothing that is known.

    It writes C++ for CPUs, and for CUDA Triton, which builds a module in C.
    """
    variable, compilers = "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    if device.type == "cuda":
        if not torch.version.hip and torch.cuda.get_device_capability(device) < (7, 0):
            return "Triton needs a GPU of compute capability 7.0"
        if find_spec("triton") is None:
            return "Triton is not installed"
        variable, compilers = "CC", ["gcc", "clang"]
    if variable not in os.environ and not any(map(shutil.which, compilers)):
        return f"there is no {' or '.join(compilers)}"
    headers = Path(sysconfig.get_path("include", "posix_prefix"))
    return None if (headers / "Python.h").exists() else f"there is no Python.h in {headers}"


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device; to CUDA without waiting, from pinned memory."""
    if device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class Readback:
    """Numbers of a device, on their way to Python.

    They are asked for at once and read later: whoever reads a tensor on CUDA at once waits until
    all that was queued before has been computed, and the device then waits for new work.

    Args:
        values: Scalars: tensors of one device, or numbers.
        device: That device.
    """

    def __init__(self, *values: Tensor | float, device: torch.device) -> None:
        self._values: Sequence[Tensor | float] = values
        self._copied: torch.cuda.Event | None = None
        if device.type == "cuda":
            there = [torch.as_tensor(x, dtype=torch.float64, device=device) for x in values]
            here = torch.empty(len(values), dtype=torch.float64, pin_memory=True)
            self._values = here.copy_(torch.stack(there), non_blocking=True).unbind()
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def read(self) -> list[float]:
        """Return the numbers, once they have arrived."""
        if self._copied is not None:
            self._copied.synchronize()
        return list(map(float, self._values))
