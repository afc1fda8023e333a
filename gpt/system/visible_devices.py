"""CUDA_VISIBLE_DEVICES of a process that has some of this one's devices; imports no torch."""

import os
from collections.abc import Iterable


def visible_devices(indices: Iterable[int]) -> str:
    """Return the CUDA_VISIBLE_DEVICES of a job that has these of the devices that torch sees."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return ",".join(seen[i] if i < len(seen) else str(i) for i in indices)
