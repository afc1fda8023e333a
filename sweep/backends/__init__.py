"""Backends: where a trial runs. Add one by adding a class like LocalBackend and an entry."""

from sweep.backends.base import Backend, Job, Slot, Status
from sweep.backends.local import LocalBackend

BACKENDS: dict[str, type[LocalBackend]] = {"local": LocalBackend}

__all__ = ["BACKENDS", "Backend", "Job", "LocalBackend", "Slot", "Status"]
