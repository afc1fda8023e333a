"""What the SLURM backend makes of a job's state, with commands that are scripts."""

import os
from pathlib import Path

import pytest

from sweep.backends.base import Job, Slot
from sweep.backends.slurm import SlurmBackend


class Scheduler:
    """One job, 7, in a state that a test writes.

    Args:
        folder: For its commands.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._write("sbatch", "echo 7")
        self._write("scancel", f"echo scancel >> {folder}/calls")
        self.becomes("RUNNING")

    def _write(self, name: str, script: str) -> None:
        (self._folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self._folder / name).chmod(0o755)

    def becomes(self, state: str) -> None:
        self._write("squeue", f"echo squeue >> {self._folder}/calls; echo '7|{state}|name'")

    @property
    def calls(self) -> list[str]:
        return (self._folder / "calls").read_text().split()


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return Scheduler(tmp_path)


@pytest.fixture
def backend(tmp_path: Path, scheduler: Scheduler) -> SlurmBackend:
    """A backend with one job, which has been handed in."""
    made = SlurmBackend("cpu", 1)
    made.start(Job(tmp_path, ("true",), Slot(0, "cpu", 1)))
    return made


@pytest.mark.parametrize(
    ("state", "waits"),
    [("PENDING", True), ("RUNNING", False), ("SUSPENDED", True), ("STOPPED", True)],
)
def test_a_job_waits_in_the_queue_and_while_its_cluster_suspends_it(
    scheduler: Scheduler, backend: SlurmBackend, tmp_path: Path, state: str, waits: bool
):
    scheduler.becomes(state)
    status = backend.poll()[tmp_path]
    assert (status.alive, status.waits) == (True, waits)


def test_a_job_that_is_killed_again_and_again_is_a_few_calls_for_the_scheduler(
    scheduler: Scheduler, backend: SlurmBackend, tmp_path: Path
):
    for _ in range(5):
        backend.kill(tmp_path)
        assert backend.poll()[tmp_path].alive
    assert scheduler.calls == ["scancel", "scancel", "squeue"]
