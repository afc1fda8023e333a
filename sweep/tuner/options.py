"""Storage, runs, machine and limits that every command that trains gives to the tuner."""

from dataclasses import dataclass, field
from pathlib import Path

from sweep.study.paths import DEFAULT_STORAGE
from sweep.tuner.limits import Limits


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Storage, runs, machine and limits of a call."""

    storage: str = DEFAULT_STORAGE  # URL or path of the database
    runs: Path = Path("runs")  # run directories go to runs/<study>/<trial number>
    backend: str = "local"  # a name in sweep.backends.BACKENDS
    device: str = "auto"  # "auto", "cpu", "cuda" or "cuda:N"
    workers: int | None = None  # trials at a time; None: as many as there are slots
    limits: Limits = field(default_factory=Limits)
    wait: bool = False  # for another process that runs this study, instead of being refused
