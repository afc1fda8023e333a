"""The interface of a trainer, and what it knows of a study and of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpt.events import Evaluation, Event
from sweep.study.spec import StudySpec


@dataclass(frozen=True)
class Facts:
    """Facts of a study's text, as a trainer found it, before anything is written."""

    data: dict[str, Any]  # stored with the study; "fingerprint" pins it to its text
    description: str  # of the text, in one line
    notice: str | None  # must be shown wherever results are
    worst: float  # perplexity of guessing: what a diverged trial counts as; inf: not known


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run directory that is ready to train."""

    max_steps: int | None  # None: it ends when it ends
    n_params: int  # weights of the model; 0: not known
    config: dict[str, Any]  # its complete configuration, flat


class Trainer(Protocol):
    """Writes run directories and names the command that trains one. It starts no process.

    Attributes:
        module: The module whose main() the command calls, or None; see sweep.backends.Job.
        tokens: The folder of the prepared text, or None; see there.
    """

    module: str | None
    tokens: Path | None

    def settle(
        self, spec: StudySpec, stored: Mapping[str, Any] | None, devices: Sequence[str]
    ) -> StudySpec:
        """Return the study with everything decided that its file leaves to the machine.

        Args:
            spec: The study file.
            stored: The study as it was started; None: it is new.
            devices: Those of the slots that it trains on, at least one.
        """

    def check(self, spec: StudySpec, show: Callable[[str], None]) -> Facts:
        """Find the text and the program of a study; writes nothing into the study's folders.

        Raises:
            InputError: they are not there, or cannot work.
        """

    def recall(self, spec: StudySpec, data: dict[str, Any]) -> Facts:
        """Return the facts of a study that has all its trials, from what is stored of its text."""

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raise InputError unless these parameters make a run."""

    def write(
        self, run_dir: Path, params: Mapping[str, Any], device: str, threads: int
    ) -> RunFacts:
        """Write what the command reads; one that is there already is checked, and stays.

        A verdict's runs have a "seed" among their parameters.

        Raises:
            DataError: the directory holds the run of other parameters.
        """

    def halve_memory(self, run_dir: Path) -> int | None:
        """Let the same run go on in half the memory; return its micro-batch, or None."""

    def command(self, run_dir: Path, processes: int = 1) -> tuple[str, ...]:
        """Return the command that trains a run directory, or continues it.

        Args:
            run_dir: The run directory.
            processes: On one machine, each with a GPU of its own.
        """

    def parse(self, line: bytes) -> Event | None:
        """Parse a line of the run's events; None for any other line."""

    def evaluation(self, event: Event) -> Evaluation:
        """Return what an `evaluation` event says; NaN, or 0 of integers, where it does not."""

    def tidy(self, run_dir: Path) -> None:
        """Remove what a finished run no longer needs."""
