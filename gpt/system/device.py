"""Check of a device; kept apart from training, whose imports take a second."""

import torch

from gpt.errors import InputError


def check_device(device: str) -> None:
    """Raise InputError unless torch can train on `device`."""
    if device == "cpu":
        return
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise InputError(f"device must be cpu, cuda or cuda:N, but got {device!r}.")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise InputError(
            f"device {device} is not there: torch sees {count} CUDA devices; use --device cpu."
        )
