"""When each trial trained, and where: read from the run directories. Knows no plots.

A session is the life of one process. A trial that was interrupted and continued has several.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from gpt.events import read_events
from sweep.analysis.results import arm_of, outcome_of

if TYPE_CHECKING:
    import pandas as pd

Span = tuple[datetime, datetime]


def sessions_table(study: optuna.Study) -> "pd.DataFrame":
    """One row per process of a trial, by its start.

    A trial whose run directory is gone counts as one session between Optuna's times. Slots are
    not stored: within a device a session takes the first one that is free.

    Returns:
        number   int64                of the trial
        arm      string
        outcome  string               of the trial, see sweep.analysis.results
        device   string               "cpu", "cuda:0"; the study's where it is not known exactly
        slot     int64                0, 1, ... within the device
        lane     string               both, for people: "cpu, slot 1"
        start    datetime64[us, UTC]
        end      datetime64[us, UTC]  of the last event so far
    """
    import pandas as pd

    kind = study.user_attrs.get("device", "cpu")
    sessions = [
        {"number": trial.number, "arm": arm_of(trial), "outcome": outcome_of(trial)}
        | {"device": device, "start": start, "end": end}
        for trial in study.get_trials(deepcopy=False)
        for device, (start, end) in _sessions(trial, kind)
    ]
    sessions.sort(key=lambda session: (session["start"], session["number"]))
    _take_slots(sessions)
    dtypes = {
        "number": "int64",
        "arm": "string",
        "outcome": "string",
        "device": "string",
        "slot": "int64",
        "lane": "string",
        "start": "datetime64[us, UTC]",
        "end": "datetime64[us, UTC]",
    }
    return pd.DataFrame(sessions, columns=list(dtypes)).astype(dtypes)


def _sessions(trial: FrozenTrial, kind: str) -> Iterable[tuple[str, Span]]:
    run_dir = Path(trial.user_attrs.get("run_dir", ""))
    events = read_events(run_dir)[0] if "run_dir" in trial.user_attrs else []
    if not events:
        if trial.datetime_start and trial.datetime_complete:
            yield kind, (_as_utc(trial.datetime_start), _as_utc(trial.datetime_complete))
        return
    device = _device_of(run_dir) or kind
    yield from ((device, span) for span in _spans(events))


def _spans(events: list[dict[str, Any]]) -> list[Span]:
    """From each "start" to the last event before the next."""
    spans: list[list[float]] = []
    for event in events:
        if event["event"] == "start" or not spans:
            spans.append([event["time"], event["time"]])
        spans[-1][1] = event["time"]
    return [(datetime.fromtimestamp(a, UTC), datetime.fromtimestamp(b, UTC)) for a, b in spans]


def _device_of(run_dir: Path) -> str | None:
    try:
        config = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
        return str(config["device"])
    except (OSError, ValueError, KeyError):
        return None


def _as_utc(naive: datetime) -> datetime:
    """Optuna stores the local time without saying so."""
    return naive.astimezone().astimezone(UTC)


def _take_slots(sessions: list[dict[str, Any]]) -> None:
    """Give each session, in the order of their starts, the first free slot of its device."""
    ends: dict[str, list[datetime]] = {}
    for session in sessions:
        busy = ends.setdefault(session["device"], [])
        free = (slot for slot, end in enumerate(busy) if end <= session["start"])
        slot = next(free, len(busy))
        busy[slot : slot + 1] = [session["end"]]
        session["slot"] = slot
        session["lane"] = f"{session['device']}, slot {slot}"
