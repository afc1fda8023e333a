"""Jobs of a SLURM cluster, one for each trial, on a file system that all nodes share.

A job is found again by its name, which follows from its run directory: nothing is stored. SLURM
requeues a job that it preempts; one whose time is up ends at a checkpoint and is handed in anew.
It has the environment of the command that started the sweep, loaded modules too.

SLURM's own commands are called, at most once in QUEUE_SECONDS for all jobs together: `squeue` knows
their states on clusters without accounting, too.
"""

import hashlib
import math
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt.errors import BusyError, InputError, NetworkError
from gpt.events import parse_event, read_lines
from sweep.backends.base import ANY, Job, Resources, Slot, Status
from sweep.backends.local import MAX_AUTO_WORKERS

QUEUE_SECONDS = 2.0  # between two calls of squeue
QUEUE_SECONDS_PER_JOB = 0.01  # more: schedulers of large clusters are asked by many
READ_SECONDS = 0.5  # between two reads of a run's events, which come over a network
READ_SECONDS_PER_JOB = 0.002  # more: a read is two round trips to a file server
LATE_SECONDS = 60  # for the last events of a job that has ended well: NFS keeps sizes so long
KILL_SECONDS = 10  # until a job is killed again that is there still: a node may take minutes
BUSY_SECONDS = 30  # until a job is handed in again that found another trainer in its directory
ANSWER_SECONDS = 10  # for SLURM to answer
CHECKPOINT_SECONDS = 60  # before a job's time is up, it is asked for a checkpoint
GPU_OPTION = r"(?:^| )(?:--(?:gres|tres-per-\w+)[= ]\S*gpu|--gpus|-G)"
CPUS_OPTION = r"(?:--cpus-per-task[= ]|(?:^| )-c ?)(\d+)"
AWAY = re.compile(r"Unable to contact|Socket timed out|Connection refused|Zero Bytes", re.I)
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING")
SUSPENDED = ("SUSPENDED", "STOPPED")
RUNNING = ("RUNNING", *SUSPENDED, "SIGNALING", "STAGE_OUT", "RESIZING")
CANNOT_LOG = 53  # the signal that SLURM gives for a job whose output it cannot open
ITS_OWN = ("COMPLETED", "COMPLETING", "FAILED")  # states in which the exit code is the process's


@dataclass
class Submitted:
    """A job that was handed in, or could not be yet."""

    job: Job
    id: str | None = None  # None: not handed in yet, or SLURM did not answer
    state: str = "PENDING"
    read_at: float = 0.0
    not_before: float = 0.0  # when it may be handed in
    killed_at: float = -math.inf
    ending: Status | None = None  # once it has ended
    ended_at: float = 0.0


class SlurmBackend:
    """Jobs on the nodes of a cluster.

    Args:
        device: "auto", "cpu" or "cuda"; auto is CUDA where the arguments ask for a GPU.
        workers: Jobs at a time, waiting ones too; None is MAX_AUTO_WORKERS.
        arguments: Of sbatch, such as ["--partition=gpu", "--gres=gpu:1", "--time=4:00:00"].
        resources: For each trial; the arguments come first.
    """

    def __init__(
        self,
        device: str = "auto",
        workers: int | None = None,
        arguments: Sequence[str] = (),
        resources: Resources = ANY,
    ) -> None:
        self._workers = MAX_AUTO_WORKERS if workers is None else workers
        self._gpus = resources.gpus_on(device) or 0
        arguments = self._arguments = [
            *_asked_for(self._gpus, resources.cpus, arguments),
            *arguments,
        ]
        asks_for_gpu = re.search(GPU_OPTION, " ".join(arguments))
        self._device = ("cuda" if asks_for_gpu else "cpu") if device == "auto" else device
        self._jobs: dict[Path, Submitted] = {}
        self._busy: dict[Path, float] = {}  # directories with another trainer, and until when
        self._away = False  # SLURM did not answer; then nobody waits for it but squeue
        self._polled_at = -math.inf

    def check(self) -> None:
        """Raise an InputError or a NetworkError where SLURM would not take a job; hand in none."""
        if 0 < self._gpus < 1:
            raise InputError(
                f"resources.gpus must be whole with --backend slurm, which shares no GPU between "
                f"jobs, but is {self._gpus:g}."
            )
        if shutil.which("sbatch") is None:
            raise InputError(
                "--backend slurm must run where SLURM's commands are, but there is no sbatch in "
                "$PATH; run it on a login node of the cluster."
            )
        done = _call("sbatch", "--test-only", *self._arguments, script=self._script(("true",)))
        if done.returncode == 0:
            return
        if AWAY.search(done.stderr):
            raise NetworkError(f"SLURM must answer, but: {_last_line(done.stderr)}.")
        raise InputError(
            f"sbatch must take {shlex.join(self._arguments) or 'a job'}, but: "
            f"{_last_line(done.stderr)}."
        )

    def kind(self) -> str:
        """Return "cpu" or "cuda"."""
        return self._device

    def capacity(self) -> list[Slot]:
        """Return a slot for each job that may be in the queue."""
        processes = max(1, int(self._gpus))
        return [Slot(i, self._device, self._threads, processes) for i in range(self._workers)]

    @property
    def _threads(self) -> int:
        text = " ".join(self._arguments)
        found = re.findall(CPUS_OPTION, text)
        return int(found[-1]) if found else 1  # the last one wins

    def start(self, job: Job) -> None:
        """Hand a job in; its output is appended to log.txt of the run directory."""
        submitted = Submitted(job, not_before=self._busy.pop(job.run_dir, 0.0))
        if not self._away and submitted.not_before <= time.monotonic():
            self._submit(submitted)
        self._jobs[job.run_dir] = submitted  # not before: one that is refused is nobody's

    def _submit(self, submitted: Submitted) -> None:
        """Hand a job in; where SLURM does not answer, it is looked for before another try."""
        job = submitted.job
        done = _call(
            "sbatch",
            "--parsable",
            "--requeue",
            f"--signal=B:TERM@{CHECKPOINT_SECONDS}",
            *self._arguments,
            f"--job-name={job_name(job.run_dir)}",
            f"--output={(job.run_dir / 'log.txt').resolve()}",
            "--open-mode=append",
            script=self._script(job.command),
        )
        if done.returncode == 0:
            submitted.id = done.stdout.strip().partition(";")[0]
        elif AWAY.search(done.stderr):
            self._away = True
        else:
            raise BusyError(
                f"sbatch must take a job, but: {_last_line(done.stderr)}; trials wait at their "
                f"checkpoints. Run the same command again."
            )

    def _script(self, command: Sequence[str]) -> str:
        """Write a batch script that becomes the command, so that signals reach it."""
        threads = f"export OMP_NUM_THREADS={self._threads}"
        return f"#!/bin/sh\n{threads}\nexec {shlex.join(command)}\n"

    def find(self, jobs: Iterable[Job]) -> set[Path]:
        """Adopt the jobs that an earlier tuner handed in and that are in the queue still."""
        named = {job_name(job.run_dir): job for job in jobs}
        found = {}
        for id_, (state, name) in _queue().items() if named else ():
            if name in named and state in (*WAITING, *RUNNING):
                found[named[name].run_dir] = Submitted(named[name], id_, state)
        self._jobs |= found
        return set(found)

    def poll(self) -> Mapping[Path, Status]:
        """Return the status of each job, by run directory."""
        now = time.monotonic()
        pause = QUEUE_SECONDS + len(self._jobs) * QUEUE_SECONDS_PER_JOB
        if now - self._polled_at >= pause and self._jobs:
            self._polled_at = now
            self._ask_queue()
        return {run_dir: self._status(job) for run_dir, job in self._jobs.items()}

    def _ask_queue(self) -> None:
        """Ask for the state of all jobs; while SLURM does not answer, they are what they were.

        A run has one job: where the answer of sbatch was lost, the job is there under its name.
        """
        try:
            queue = _queue()
        except NetworkError:
            self._away = True
            return
        self._away = False
        named = {job_name(run_dir): job for run_dir, job in self._jobs.items()}
        for id_, (state, name) in queue.items():
            if state in (*WAITING, *RUNNING) and (job := named.get(name)):
                job.id = job.id or id_
                if job.id != id_:
                    _call("scancel", id_)
        for job in self._jobs.values():
            if job.id is not None:
                job.state, _ = queue.get(job.id, ("", ""))
            elif job.ending is None and job.not_before <= time.monotonic() and not self._away:
                self._submit(job)

    def _status(self, job: Submitted) -> Status:
        if job.state in (*WAITING, *RUNNING):
            waits = job.state in (*WAITING, *SUSPENDED)
            return Status(alive=True, exit_code=None, waits=waits)
        now = time.monotonic()
        if job.ending is None:
            job.ending, job.ended_at = _ending(job.id or ""), now
        if job.ending is None or self._is_late(job, now):
            return Status(alive=True, exit_code=None)
        if job.ending.exit_code == BusyError.exit_code:
            self._busy[job.job.run_dir] = now + BUSY_SECONDS
        return job.ending

    def _is_late(self, job: Submitted, now: float) -> bool:
        """Return True while the last event of a job that ended well is on its way."""
        assert job.ending is not None
        if job.ending.exit_code != 0 or now - job.ended_at > LATE_SECONDS:
            return False
        if now - job.read_at < READ_SECONDS:
            return True
        job.read_at = now
        lines, _ = read_lines(job.job.run_dir)
        last = parse_event(lines[-1]) if lines else None
        if last is not None and last["event"] in ("done", "stopped", "error"):
            job.ended_at = -math.inf  # it is here
        return job.ended_at > 0

    def read(self, run_dir: Path, offset: int) -> tuple[list[bytes], int]:
        """Return the complete lines of events.jsonl after byte `offset`, and the next offset."""
        job, now = self._jobs.get(run_dir), time.monotonic()
        if job is not None and job.state in (*WAITING, *RUNNING):
            if now - job.read_at < READ_SECONDS + len(self._jobs) * READ_SECONDS_PER_JOB:
                return [], offset
            job.read_at = now
        return read_lines(run_dir, offset)

    def stop(self, run_dir: Path) -> None:
        """Send SIGTERM, at which a trainer writes a checkpoint; a waiting job is taken back."""
        if job := self._jobs.get(run_dir):
            signal = [] if job.state in WAITING else ["--batch", "--signal=TERM"]
            self._cancel(job, *signal)

    def kill(self, run_dir: Path) -> None:
        """Take a job back, or end it now; a call soon after another does nothing."""
        job = self._jobs.get(run_dir)
        if job is not None and time.monotonic() - job.killed_at > KILL_SECONDS:
            self._cancel(job, "--batch", "--signal=KILL")
            self._cancel(job)
            job.killed_at = time.monotonic()

    def _cancel(self, job: Submitted, *signal: str) -> None:
        if job.id is None:
            job.state, job.ending = "CANCELLED", Status(alive=False, exit_code=None, cause="lost")
            _call("scancel", f"--name={job_name(job.job.run_dir)}")  # if SLURM has it all the same
        else:
            _call("scancel", *signal, job.id)
            self._polled_at = -math.inf

    def forget(self, run_dir: Path) -> None:
        """Drop a job that has ended."""
        self._jobs.pop(run_dir, None)


def _asked_for(gpus: float, cpus: int | None, arguments: Sequence[str]) -> Iterator[str]:
    """Yield the options of sbatch for a trial's resources, without those that are given."""
    if gpus and not re.search(GPU_OPTION, " ".join(arguments)):
        yield f"--gres=gpu:{int(gpus)}"
    if cpus is not None and not re.search(CPUS_OPTION, " ".join(arguments)):
        yield f"--cpus-per-task={cpus}"


def job_name(run_dir: Path) -> str:
    """Return the name of a run directory's job, which no other directory's has."""
    path = run_dir.resolve()
    return f"{path.parent.name}-{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _queue() -> dict[str, tuple[str, str]]:
    """Return state and name of each job of this user, by its id.

    Raises:
        NetworkError: SLURM does not answer.
    """
    done = _call("squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%j")
    if done.returncode:
        raise NetworkError(f"SLURM must answer, but: {_last_line(done.stderr)}.")
    rows = (line.split("|", 2) for line in done.stdout.splitlines())
    return {id_: (state, name) for id_, state, name in rows}


def _ending(id_: str) -> Status | None:
    """Return how a job ended, as far as SLURM still knows: it forgets after minutes.

    None where it does not answer, so that the next look says.
    """
    done = _call("scontrol", "show", "job", "--oneliner", id_)
    if AWAY.search(done.stderr):
        return None
    fields = dict(re.findall(r"(\w+)=(\S*)", done.stdout))
    state = fields.get("JobState", "forgotten")
    code, _, signal = fields.get("ExitCode", "0:0").partition(":")
    if state == "OUT_OF_MEMORY":
        return Status(alive=False, exit_code=None, cause="oom", words="ran out of memory")
    if state not in ITS_OWN:
        words = f"was ended by SLURM: {state}"
        return Status(alive=False, exit_code=None, cause="lost", words=words)
    if int(signal) == CANNOT_LOG:
        node, folder = fields.get("NodeList"), Path(fields.get("StdOut", "")).parent
        words = f"found no {folder} on its node {node}: all nodes must share that folder"
        return Status(alive=False, exit_code=None, cause="lost", words=words)
    return Status(alive=False, exit_code=-int(signal) if int(signal) else int(code))


def _call(*command: str, script: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Call one of SLURM's commands; one that hangs counts as one that cannot reach SLURM."""
    try:
        return subprocess.run(
            command,
            check=False,
            input=script,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        words = f"Socket timed out: {command[0]} did not answer in {ANSWER_SECONDS} s"
        return subprocess.CompletedProcess(command, 1, "", words)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].rstrip(".") if lines else "it said nothing"
