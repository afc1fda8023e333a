"""The log of a run, events.jsonl: one JSON object a line, appended while it trains.

    {"event": "start", "pid": 4711, "attempt": 1, "time": 1700000000.0}
    {"event": "evaluation", "step": 50, "perplexity": 81.2, ...}     every field of Evaluation
    {"event": "note", "message": "..."}
    {"event": "alive"}                                  now and then: the run is not stuck
    {"event": "stopped" | "done", "step": 300}
    {"event": "error", "outcome": "diverged" | "oom" | "disk" | "error", "step": 9, "message": ""}

A program in place of gpt.train may also write "unusable", see sweep.tuner.exits.

A resumed run may write an evaluation a second time; a reader keeps the first of each step. Times
are for people: nothing is decided by them, since a clock may be set.
"""

import json
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

Event = dict[str, Any]

FILE = "events.jsonl"
STORIES_FILE = "stories.json"  # beside it: tokens and nats of each validation story
CALIBRATION_FILE = "calibration.json"  # and the bins of gpt.losses.calibration


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of a model on the validation stories, computed in gpt.evaluate.

    All but link_perplexity are independent of the loss that trained it.
    """

    cross_entropy: float  # nats per token, under softmax
    perplexity: float  # exp(cross_entropy)
    link_perplexity: float  # under the loss's own link function; the same if that is softmax
    story_perplexity: float  # mean of the stories' perplexities: long ones count no more
    bits_per_byte: float  # of validation text, end-of-text tokens included in the bits
    accuracy: float  # share of targets that are the most likely token
    calibration_error: float  # of the most likely token's probability, in [0, 1]
    brier_score: float  # mean, in [0, 2]
    entropy: float  # mean of the predictions, in nats; below cross_entropy: overconfident
    mean_squared_logit: float  # over targets and classes; what squentropy holds down


@dataclass(frozen=True, kw_only=True)
class Evaluation(Metrics):
    """Metrics and progress of a run at one step: a line of events.jsonl, a row of the database."""

    step: int  # optimiser steps so far
    tokens: int  # training tokens so far
    train_loss: float  # mean training loss since the last evaluation, in the unit of the loss
    temperature_perplexity: float | None  # after fitting one temperature; only at the last step
    learning_rate: float  # of the last step
    grad_norm: float  # of the last step, before clipping
    tokens_per_second: float  # training only, since the last evaluation
    elapsed_seconds: float  # training and evaluation, carried over a resume
    peak_memory_bytes: int  # of the device; of the process on the CPU


def evaluation_of(event: Event) -> Evaluation:
    """Return the Evaluation that an `evaluation` event carries."""
    return Evaluation(**{field.name: event[field.name] for field in fields(Evaluation)})


def append_event(run_dir: Path, event: str, **fields: Any) -> None:
    """Append one line, which is on the disk when this returns.

    A process that dies in between leaves a torn line, which readers ignore.

    Raises:
        OSError: the disk does not take it.
    """
    line = json.dumps({"event": event, **fields, "time": time.time()}).encode() + b"\n"
    with (run_dir / FILE).open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # an earlier process died in the middle of its line
                line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def attempts(run_dir: Path) -> int:
    """Count the processes that have started to train this run."""
    return sum(event["event"] == "start" for event in read_events(run_dir)[0])


def read_events(run_dir: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Read the complete lines after byte `offset`; return their events and the next offset.

    A last line without its line break is left for later; a torn line in between is skipped.
    """
    lines, offset = read_lines(run_dir, offset)
    return [event for line in lines if (event := parse_event(line)) is not None], offset


def read_lines(run_dir: Path, offset: int = 0) -> tuple[list[bytes], int]:
    """Read the complete lines after byte `offset`, and the offset from which to go on."""
    path = run_dir / FILE
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        complete, _, _ = file.read().rpartition(b"\n")
    return complete.splitlines(), offset + len(complete) + (1 if complete else 0)


def has_grown(run_dir: Path, offset: int) -> bool:
    """Return True if there is more than `offset` bytes, in a sixth of the time of a reading.

    Not for a file that another machine writes: what is known of its size may be a minute old.
    """
    try:
        return (run_dir / FILE).stat().st_size > offset
    except FileNotFoundError:
        return False


def parse_event(line: bytes) -> Event | None:
    """Parse one line; None for a torn one."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
