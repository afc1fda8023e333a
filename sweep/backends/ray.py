"""Actors of a Ray cluster, one for each attempt at a trial; no file system is shared.

An actor (sweep.backends.ray_actor) runs the trial's process on the node that Ray chose. It is
detached and found again by its name, which follows from the study, the trial and the attempt. The
tuner's own run directory is what everybody else reads: what a process writes in its log of events
is appended there as soon as it is written, other files come when it ends and now and then before.

An end is not heard before all files are there. So whatever goes away, a trial continues from what
has arrived: it repeats what it trained since, and of each step the first figures count.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt.errors import BusyError, InputError
from gpt.events import FILE, attempts, has_grown, parse_event, read_lines
from gpt.system.files import disk_error, is_disk_error
from sweep.backends.base import ANY, Job, Resources, Slot, Status
from sweep.backends.local import MAX_AUTO_WORKERS
from sweep.backends.ray_actor import ACTOR_THREADS, News, Order, TrialActor
from sweep.backends.ray_cluster import (
    CLUSTER_SECONDS,
    NAMESPACE,
    actors_of,
    connect,
    end_actor,
    greets,
    head_address,
    nodes,
    places,
    prefix,
    sentence,
)
from sweep.backends.ray_files import (
    ARRIVING,
    Offer,
    messages_of,
    put_in_place,
    read_pieces,
    stamps_of,
    write_pieces,
)

POLL_PATIENCE = 5.0  # seconds that a poll waits for an event, on the node
HEAD_SECONDS = 15.0  # without its head, until a cluster counts as lost
LOST_SECONDS = 60.0  # without an answer of an actor that may still be there, likewise
FETCH_SECONDS = 60.0  # between two fetches of files of a trial that goes on
FETCH_SHARE = 0.05  # of the time, at most, spent on them
SMALL_BYTES = 2**16  # of files that travel with the order itself
LAST = ("done", "stopped", "error")  # events that a process ends with
NODE_OUT_OF_MEMORY = re.compile(r"low on memory|OUT_OF_MEMORY")
MISSING = re.compile(r"No module named '[^']*'")


@dataclass
class Fetch:
    """Files on their way from a node."""

    started: float
    waits_for: Any  # reference to the answer
    final: bool  # the process had ended before
    offer: Offer | None = None
    messages: int = 0
    next: int = 0  # message


@dataclass
class RemoteTrial:
    """An actor, and what has come from it."""

    job: Job
    actor: Any
    poll: Any  # reference to the answer; None: not asked
    held: bytes = b""  # events from the process's last one on, until all files are here
    heard: bool = False
    adopted: bool = False
    news: bool = False  # since the last fetch
    silent_since: float | None = None  # it does not answer
    asked_at: float = 0.0  # of the last poll that failed
    killed_at: float | None = None
    answer: News | None = None  # the last
    fetch: Fetch | None = None
    fetch_after: float = 0.0
    end: Status | None = None
    kept: list[Any] = field(default_factory=list)  # references that the actor still needs


class RayBackend:
    """Actors on the nodes of a Ray cluster.

    Args:
        device: "auto", "cpu" or "cuda"; auto is CUDA where the cluster has a GPU.
        workers: Trials at a time; None is as many as there is room for, at most MAX_AUTO_WORKERS.
        arguments: The address of the cluster; none starts a Ray on this machine.
        resources: For each trial.
    """

    def __init__(
        self,
        device: str = "auto",
        workers: int | None = None,
        arguments: Sequence[str] = (),
        resources: Resources = ANY,
    ) -> None:
        self._workers = workers
        self._address = arguments[0] if arguments else None
        self._gpus = resources.gpus_on(device)
        self._cpus = resources.cpus or 1
        self._trials: dict[Path, RemoteTrial] = {}
        self._attempts: dict[Path, int] = {}  # the last of each trial
        self._tokens: dict[Path, list[Any]] = {}  # references to their messages
        self._head_at = self._asked_head_at = time.monotonic()

    def check(self) -> None:
        """Raise an InputError or a NetworkError where no trial could run; starts none."""
        connect(self._address)
        need = self._need()
        if not any(places(node, need) for node in nodes()):
            known = "; ".join(
                f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes()
            )
            raise InputError(
                f"a trial needs {need['CPU']:g} CPUs and {need['GPU']:g} GPUs of one node, but no "
                f"node of the Ray cluster has them ({known}); change [resources] or --device."
            )

    def kind(self) -> str:
        """Return "cpu" or "cuda"; asks the cluster where nothing says which."""
        if self._gpus is None:
            connect(self._address)
            self._gpus = 1 if any(node.get("GPU", 0) >= 1 for node in nodes()) else 0
        return "cuda" if self._gpus else "cpu"

    def capacity(self) -> list[Slot]:
        """Return a slot for each trial; those that the cluster has no room for wait."""
        need = self._need()
        room = sum(places(node, need) for node in nodes())
        processes = max(1, int(need["GPU"]))
        count = self._workers or max(1, min(room, MAX_AUTO_WORKERS))
        return [Slot(i, self.kind(), self._cpus, processes) for i in range(count)]

    def _need(self) -> dict[str, float]:
        self.kind()
        return {"CPU": float(self._cpus), "GPU": float(self._gpus or 0)}

    # --- starting and finding ----------------------------------------------------------------

    def start(self, job: Job) -> None:
        """Create an actor; earlier ones of the trial are ended, and never heard again."""
        import ray

        while not self._has_head(0.0):  # Ray would wait for a minute, then end this process
            time.sleep(0.5)
        shutil.rmtree(job.run_dir / ARRIVING, ignore_errors=True)
        earlier = actors_of(job.run_dir)
        for name in earlier:
            end_actor(name)
        known = [int(name.removeprefix(prefix(job.run_dir))) for name in earlier]
        last = max([attempts(job.run_dir), self._attempts.get(job.run_dir, 0), *known])
        self._attempts[job.run_dir] = last + 1
        order, kept = self._order(job, f"{prefix(job.run_dir)}{last + 1}")
        need = self._need()
        actor = ray.remote(TrialActor).options(
            name=order.name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=need["CPU"],
            num_gpus=need["GPU"],
            max_restarts=0,
            max_concurrency=ACTOR_THREADS,
        )
        self._trials[job.run_dir] = RemoteTrial(job, actor.remote(order), None, kept=kept)
        self._ask(self._trials[job.run_dir])

    def _order(self, job: Job, name: str) -> tuple[Order, list[Any]]:
        """Make the order for an actor, and the references in it."""
        import ray

        run_dir = job.run_dir
        stamps = stamps_of(run_dir)
        sizes = {name: stamp.size for name, stamp in stamps.items()}
        files: list[Any] = [read_pieces(run_dir, plan) for plan in messages_of(sizes)]
        if sum(sizes.values()) > SMALL_BYTES:
            files = [ray.put(message) for message in files]
        log = run_dir / FILE
        order = Order(
            name=name,
            command=job.command,
            python=sys.executable,
            run_dir=str(run_dir.resolve()),
            threads=job.slot.threads,
            events=log.read_bytes() if log.exists() else b"",
            stamps=stamps,
            files=files,
        )
        if job.tokens is None:
            return order, files
        sizes = {path.name: path.stat().st_size for path in job.tokens.iterdir()}
        if job.tokens not in self._tokens:
            plans = messages_of(sizes)
            self._tokens[job.tokens] = [ray.put(read_pieces(job.tokens, plan)) for plan in plans]
        tokens = self._tokens[job.tokens]
        order = order._replace(tokens=job.tokens.name, token_sizes=sizes, token_files=tokens)
        return order, files

    def find(self, jobs: Iterable[Job]) -> set[Path]:
        """Adopt the actors that an earlier tuner created, also those whose process has ended."""
        import ray

        found = set()
        for job in jobs:
            names = actors_of(job.run_dir)
            for name in names[:-1]:
                end_actor(name)
            if not names:
                continue
            with suppress(ValueError):  # it has ended meanwhile
                shutil.rmtree(job.run_dir / ARRIVING, ignore_errors=True)
                actor = ray.get_actor(names[-1], namespace=NAMESPACE)
                self._trials[job.run_dir] = RemoteTrial(job, actor, None, adopted=True)
                self._ask(self._trials[job.run_dir])
                found.add(job.run_dir)
        return found

    # --- following ---------------------------------------------------------------------------

    def poll(self) -> Mapping[Path, Status]:
        """Return the status of each trial; takes what has come meanwhile, and never waits."""
        self._has_head()
        self._receive()
        now = time.monotonic()
        for trial in self._trials.values():
            if trial.end is None:
                self._go_on(trial, now)
        return {run_dir: _status(trial) for run_dir, trial in self._trials.items()}

    def read(self, run_dir: Path, offset: int) -> tuple[list[bytes], int]:
        """Return the complete lines of events.jsonl after byte `offset`, and the next offset."""
        return read_lines(run_dir, offset) if has_grown(run_dir, offset) else ([], offset)

    def _receive(self) -> None:
        """Take all answers that are here."""
        import ray

        asked = {t.poll: t for t in self._trials.values() if t.poll is not None}
        fetched = {t.fetch.waits_for: t for t in self._trials.values() if t.fetch}
        references = [*asked, *fetched]
        if not references:
            return
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ready:
            trial = asked.get(reference) or fetched[reference]
            if trial.end is not None:
                continue
            try:
                content = ray.get(reference)
                trial.silent_since = None
                if reference in asked:
                    trial.poll = None
                    self._hear(trial, content)
                elif trial.fetch is not None:
                    self._take(trial, trial.fetch, content)
            except ray.exceptions.ActorUnavailableError:  # it may come back
                self._note_silence(trial)
            except ray.exceptions.RayActorError as error:
                self._lose(trial, str(error))
            except ray.exceptions.RayError:  # such as an answer that was on a node that is lost
                self._note_silence(trial)
            except OSError as error:
                if not is_disk_error(error):
                    raise
                raise disk_error(trial.job.run_dir, error.strerror) from None

    def _ask(self, trial: RemoteTrial) -> None:
        log = trial.job.run_dir / FILE
        offset = (log.stat().st_size if log.exists() else 0) + len(trial.held)
        trial.poll = trial.actor.poll.remote(offset, POLL_PATIENCE)

    def _hear(self, trial: RemoteTrial, answer: News) -> None:
        """Append new events, each once: an answer that came before, or late, is cut or dropped."""
        if not trial.heard:
            trial.heard, trial.kept = True, []
            trial.fetch_after = time.monotonic() + FETCH_SECONDS
        log = trial.job.run_dir / FILE
        known = (log.stat().st_size if log.exists() else 0) + len(trial.held)
        if answer.offset > known:
            return
        trial.answer = answer
        if content := answer.content[known - answer.offset :]:
            trial.news = True
            ready, trial.held = _before_the_last(trial.held + content)
            _append(log, ready)

    def _note_silence(self, trial: RemoteTrial) -> None:
        trial.poll = trial.fetch = None
        trial.asked_at = time.monotonic()
        trial.silent_since = trial.silent_since or trial.asked_at

    def _go_on(self, trial: RemoteTrial, now: float) -> None:
        """Ask anew, fetch files, or give a trial up."""
        if trial.killed_at is not None and now - trial.killed_at > CLUSTER_SECONDS:
            self._finish(trial, Status(alive=False, exit_code=-9))
        elif trial.silent_since is not None:
            if now - trial.silent_since > LOST_SECONDS:
                self._lose(trial, f"its actor did not answer for {LOST_SECONDS:.0f} s")
            elif trial.poll is None and now - trial.asked_at > 1.0:
                trial.asked_at = now
                self._ask(trial)
        else:
            self._ask_for_more(trial, now)

    def _ask_for_more(self, trial: RemoteTrial, now: float) -> None:
        ended = trial.answer is not None and trial.answer.ended
        if trial.poll is None and not ended:
            self._ask(trial)
        if trial.fetch is None and (ended or (trial.news and now > trial.fetch_after)):
            trial.news = False
            have = stamps_of(trial.job.run_dir)
            trial.fetch = Fetch(now, trial.actor.offer.remote(have), final=ended)

    def _take(self, trial: RemoteTrial, fetch: Fetch, content: Any) -> None:
        """Take an offer or a message of files; after the last, put all in their places."""
        run_dir = trial.job.run_dir
        if fetch.offer is None:
            shutil.rmtree(run_dir / ARRIVING, ignore_errors=True)
            fetch.offer, fetch.messages = content
        else:
            write_pieces(run_dir / ARRIVING, content)
            fetch.next += 1
        if trial.killed_at is not None:
            trial.killed_at = time.monotonic()  # it answers
        if fetch.next < fetch.messages:
            fetch.waits_for = trial.actor.message.remote(fetch.next)
            return
        whole = put_in_place(run_dir, fetch.offer)
        now = time.monotonic()
        took = now - fetch.started
        trial.fetch, trial.fetch_after = None, now + max(FETCH_SECONDS, took / FETCH_SHARE)
        if trial.answer is not None and fetch.final and whole:
            _append(run_dir / FILE, trial.held)
            full, code = trial.answer.full, trial.answer.exit_code
            self._finish(trial, Status(False, code, cause="disk" if full else None, words=full))

    def _lose(self, trial: RemoteTrial, reason: str) -> None:
        """Note that an actor is gone, which is never the trial's fault; what arrived is kept."""
        if NODE_OUT_OF_MEMORY.search(reason):
            words = "used up the memory of its node"
            self._finish(trial, Status(False, None, cause="oom", words=words))
            return
        missing = MISSING.search(reason)
        way = "; install squen-sweep on every node" if missing else ""
        words = f"was lost: {missing[0] if missing else sentence(reason)}{way}"
        self._finish(trial, Status(False, None, cause="lost", words=words))

    def _finish(self, trial: RemoteTrial, status: Status) -> None:
        """End a trial's actor."""
        import ray

        trial.end, trial.poll, trial.fetch = status, None, None
        shutil.rmtree(trial.job.run_dir / ARRIVING, ignore_errors=True)
        with suppress(ray.exceptions.RayError):
            if status.exit_code is not None and trial.heard:
                ray.get(trial.actor.close.remote(), timeout=2.0)
        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(trial.actor)

    def _has_head(self, seconds: float = 1.0) -> bool:
        """Return whether the cluster's head answers, as known for at most so many seconds.

        Raises:
            BusyError: It has not for a while.
        """
        now = time.monotonic()
        if now - self._asked_head_at >= seconds:
            self._asked_head_at = now
            address = head_address()
            if greets(address, 1.0):
                self._head_at = time.monotonic()
            elif now - self._head_at > HEAD_SECONDS:
                raise BusyError(
                    f"the head of the Ray cluster must answer at {address}, but has not for "
                    f"{HEAD_SECONDS:.0f} s; trials wait at the checkpoints that have arrived. Run "
                    f"the same command again when there is a cluster."
                )
        return self._head_at >= self._asked_head_at

    # --- ending ------------------------------------------------------------------------------

    def stop(self, run_dir: Path) -> None:
        """Ask for a checkpoint; an actor that no node has taken yet is taken back."""
        trial = self._trials.get(run_dir)
        if trial is None or trial.end is not None:
            return
        if trial.heard or trial.adopted:
            trial.actor.stop.remote()
        else:
            self._finish(trial, Status(alive=False, exit_code=-15))

    def kill(self, run_dir: Path) -> None:
        """End a process now; files that it left still come, unless they take long."""
        trial = self._trials.get(run_dir)
        if trial is None or trial.end is not None or trial.killed_at is not None:
            return
        trial.killed_at = time.monotonic()
        trial.actor.kill.remote()

    def forget(self, run_dir: Path) -> None:
        """Drop a trial that has ended."""
        self._trials.pop(run_dir, None)


def _status(trial: RemoteTrial) -> Status:
    if trial.end is not None:
        return trial.end
    return Status(alive=True, exit_code=None, waits=not trial.heard)


def _before_the_last(content: bytes) -> tuple[bytes, bytes]:
    """Split events before the line that a process ends with, or one that is not complete."""
    offset = 0
    for line in content.splitlines(keepends=True):
        event = parse_event(line)
        if not line.endswith(b"\n") or (event is not None and event["event"] in LAST):
            break
        offset += len(line)
    return content[:offset], content[offset:]


def _append(log: Path, content: bytes) -> None:
    if content:
        with log.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
