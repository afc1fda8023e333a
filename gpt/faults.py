"""Faults on purpose, to show that nothing is lost. Inactive unless SQUEN_FAULT is set.

    SQUEN_FAULT="kill@trial=2,step=7; nan@trial=3,step=5,times=2"

`python -m gpt.train` reads it once, at its start. A fault is ACTION@key=value,key=value:

    trial=2          only in the run directory of this name; by default in every one
    at=step          start, step (gradients are there, weights are as before), evaluation, or
                     checkpoint (its files are written, but not yet under their name)
    step=7           optimiser steps so far; by default the first time that the place is reached
    times=1          in the first so many attempts: a run that is started again has another attempt
    bytes=0          of the limits that `full` and `memory` set

It fires once in a process, and says so before, as the event "fault". Add an action by adding a
function and an ACTIONS entry.
"""

import math
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gpt.errors import InputError
from gpt.events import append_event, attempts

VARIABLE = "SQUEN_FAULT"
PLACES = ("start", "step", "evaluation", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens, and where."""

    action: str
    trial: str | None = None
    at: str = "step"
    step: int | None = None
    times: int = 1
    bytes: int = 0


_armed: list[Fault] = []  # in this process; each leaves the list when it fires
_run_dir = Path()


def arm(run_dir: Path) -> None:
    """Prepare the faults of the environment for this process, which trains `run_dir`.

    Raises:
        InputError: they are not written as above.
    """
    global _run_dir  # noqa: PLW0603 - one process trains one run
    attempt = attempts(run_dir) + 1
    _run_dir = run_dir
    _armed[:] = [
        fault
        for fault in parse(os.environ.get(VARIABLE, ""))
        if fault.trial in (None, run_dir.name) and attempt <= fault.times
    ]


def parse(text: str) -> list[Fault]:
    """The faults that a text describes.

    Raises:
        InputError: an action, a key or a value is not known.
    """
    return [_fault(part.strip()) for part in text.split(";") if part.strip()]


def reach(at: str, step: int = 0, loss: float = math.nan) -> float:
    """Fire what is armed for this place and step; returns the loss, or what a fault makes of it."""
    for fault in list(_armed):
        if fault.at == at and fault.step in (None, step):
            _armed.remove(fault)
            append_event(_run_dir, "fault", action=fault.action, at=at, step=step)
            changed = ACTIONS[fault.action](fault)
            loss = loss if changed is None else changed
    return loss


def _fault(text: str) -> Fault:
    action, _, rest = text.partition("@")
    pairs = re.findall(r"(\w+)=([\w-]+)", rest)
    fields: dict[str, Any] = dict(pairs)
    written = ",".join(f"{key}={value}" for key, value in pairs)
    try:
        if rest != written or action not in ACTIONS or fields.get("at", "step") not in PLACES:
            raise ValueError
        numbers: dict[str, Any] = {
            key: int(fields[key]) for key in ("step", "times", "bytes") if key in fields
        }
        return Fault(action=action, **(fields | numbers))
    except (TypeError, ValueError):
        raise InputError(
            f"{VARIABLE} must be like kill@trial=2,at=step,step=7 with an action of "
            f"{', '.join(ACTIONS)} and a place of {', '.join(PLACES)}, but got {text!r}."
        ) from None


def _hang(fault: Fault) -> None:
    while True:
        time.sleep(3600)


def _full(fault: Fault) -> None:
    """No file may grow beyond so many bytes: what a full disk does to every write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault.bytes, resource.RLIM_INFINITY))


def _memory(fault: Fault) -> None:
    """So many bytes more of address space, and not one beyond."""
    limit = psutil.Process().memory_info().vms + fault.bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


ACTIONS: dict[str, Callable[[Fault], float | None]] = {
    "kill": lambda fault: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda fault: os.kill(os.getpid(), signal.SIGSTOP),
    "hang": _hang,
    "nan": lambda fault: math.nan,
    "inf": lambda fault: math.inf,
    "-inf": lambda fault: -math.inf,
    "full": _full,
    "memory": _memory,
}
