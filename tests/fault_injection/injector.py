"""Faults on purpose in a process that trains, to show that nothing is lost.

    SQUEN_FAULT="kill@trial=2,step=7; nan@trial=3,step=5,times=2"

It is read when a training starts. A fault is ACTION@key=value,key=value:

    trial=2          only in the run directory of this name; by default in every one
    at=step          start, step (gradients are there, weights are as before), evaluation, or
                     checkpoint (its files are written, but not yet under their name)
    step=7           optimiser steps so far; by default the first time that the point is reached
    times=1          in the first so many attempts: a run that is started again has another attempt
    bytes=0          of the limits that `full` and `memory` set
    ms=20            by which `slow` makes each step from now on longer

It fires once in a process, and is logged before, as the event "fault". Add an action by adding a
function and an ACTIONS entry. The process gets this from sitecustomize.py beside this file.
"""

import math
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

VARIABLE = "SQUEN_FAULT"
POINTS = ("start", "step", "evaluation", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An action, and when it is taken."""

    action: str
    trial: str | None = None
    at: str = "step"
    step: int | None = None
    times: int = 1
    bytes: int = 0
    ms: int = 20


# In this process, each with the writer of its event; it leaves the list when it fires.
_armed: list[tuple[Fault, Callable[..., None]]] = []
_lags: list[float] = []  # seconds that each step of this training waits


def patch(module: ModuleType) -> None:
    """Add the points of POINTS to one of the modules of sitecustomize.PATCHED."""
    {
        "gpt.events": _patch_events,
        "gpt.trainer": _patch_trainer,
        "gpt.checkpoint": _patch_checkpoint,
    }[module.__name__](module)


def parse(text: str) -> list[Fault]:
    """Return the faults that a text describes.

    Raises:
        ValueError: an action, a key or a value is not known.
    """
    return [_fault(part.strip()) for part in text.split(";") if part.strip()]


def reach(at: str, step: int = 0, loss: float = math.nan) -> float:
    """Fire what is armed for this point and step; return the loss, or what a fault makes of it."""
    for fault, log in list(_armed):
        if fault.at == at and fault.step in (None, step):
            _armed.remove((fault, log))
            log(action=fault.action, at=at, step=step)
            changed = ACTIONS[fault.action](fault)
            loss = loss if changed is None else changed
    return loss


def _patch_events(events: Any) -> None:
    """Arm the faults of the environment where a training logs its start."""
    append = events.append_event

    def append_event(run_dir: Path, event: str, **fields: Any) -> None:
        append(run_dir, event, **fields)
        if event == "start":
            _lags.clear()
            log = partial(append, run_dir, "fault")
            _armed[:] = [
                (fault, log)
                for fault in parse(os.environ.get(VARIABLE, ""))
                if fault.trial in (None, run_dir.name) and fields["attempt"] <= fault.times
            ]
            reach("start")

    events.append_event = append_event


def _patch_trainer(module: Any) -> None:
    trainer = module.Trainer
    backward, evaluate = trainer._backward, trainer.evaluate

    def backward_after_fault(self: Any) -> float:
        time.sleep(sum(_lags))
        return reach("step", self.counters.step, backward(self))

    def evaluate_after_fault(self: Any) -> Any:
        reach("evaluation", self.counters.step)
        return evaluate(self)

    trainer._backward = backward_after_fault
    trainer.evaluate = evaluate_after_fault


def _patch_checkpoint(checkpoint: Any) -> None:
    publish = checkpoint._publish

    def publish_after_fault(temporary: Path, final: Path) -> None:
        reach("checkpoint", int(final.name.removeprefix("step-")))
        publish(temporary, final)

    checkpoint._publish = publish_after_fault


def _fault(text: str) -> Fault:
    action, _, rest = text.partition("@")
    pairs = re.findall(r"(\w+)=([\w-]+)", rest)
    fields: dict[str, Any] = dict(pairs)
    written = ",".join(f"{key}={value}" for key, value in pairs)
    try:
        if rest != written or action not in ACTIONS or fields.get("at", "step") not in POINTS:
            raise ValueError
        numbers: dict[str, Any] = {
            key: int(fields[key]) for key in ("step", "times", "bytes", "ms") if key in fields
        }
        return Fault(action=action, **(fields | numbers))
    except (TypeError, ValueError):
        raise ValueError(
            f"{VARIABLE} must be like kill@trial=2,at=step,step=7 with an action of "
            f"{', '.join(ACTIONS)} and a point of {', '.join(POINTS)}, but got {text!r}."
        ) from None


def _slow(fault: Fault) -> None:
    _lags.append(fault.ms / 1000)


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
    "term": lambda fault: os.kill(os.getpid(), signal.SIGTERM),
    "hang": _hang,
    "slow": _slow,
    "nan": lambda fault: math.nan,
    "inf": lambda fault: math.inf,
    "-inf": lambda fault: -math.inf,
    "full": _full,
    "memory": _memory,
}
