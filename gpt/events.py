"""The seam upwards: a run says what happens to it in events.jsonl, one JSON object a line.

    {"event": "start", "pid": 4711, "time": 1700000000.0}
    {"event": "evaluation", "step": 50, "perplexity": 81.2, ...}     every field of Evaluation
    {"event": "note", "message": "..."}
    {"event": "stopped" | "done", "step": 300}
    {"event": "error", "outcome": "diverged" | "oom" | "error", "step": 120, "message": "..."}

A resumed run may write an evaluation a second time; a reader keeps the first of each step.
"""

import json
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

Event = dict[str, Any]

FILE = "events.jsonl"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a run knows of itself at one step; one line of events.jsonl, one row of the database."""

    step: int  # optimiser steps so far
    tokens: int  # training tokens so far
    train_loss: float  # mean training objective since the last evaluation; its unit is the loss's
    cross_entropy: float  # on validation, nats per token, under softmax
    perplexity: float  # exp(cross_entropy)
    bits_per_byte: float  # of validation text, end-of-text tokens included in the bits
    learning_rate: float  # of the last step
    grad_norm: float  # of the last step, before clipping
    tokens_per_second: float  # training only, since the last evaluation
    elapsed_seconds: float  # training and evaluation, carried over a resume
    peak_memory_bytes: int  # of the device; of the process on the CPU


def evaluation_of(event: Event) -> Evaluation:
    """The Evaluation that an `evaluation` event carries."""
    return Evaluation(**{field.name: event[field.name] for field in fields(Evaluation)})


def append_event(run_dir: Path, event: str, **fields: Any) -> None:
    """Add one line, whole or (if the process dies in between) torn and ignored by the reader."""
    line = json.dumps({"event": event, **fields, "time": time.time()}).encode() + b"\n"
    with (run_dir / FILE).open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # an earlier process died in the middle of its line
                line = b"\n" + line
        file.write(line)


def read_events(run_dir: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The whole lines after byte `offset`, and the offset from which to go on.

    A last line without its line break is left for later; a torn line in between is passed over.
    """
    path = run_dir / FILE
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        whole, _, _ = file.read().rpartition(b"\n")
    events = [event for line in whole.splitlines() if (event := _parse(line)) is not None]
    return events, offset + len(whole) + (1 if whole else 0)


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
