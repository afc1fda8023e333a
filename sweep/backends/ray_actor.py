"""The actor of a trial: it runs the trial's process on a node of a Ray cluster, in a folder there.

It shares no file with the tuner's machine: a run directory comes as pieces of files, and events,
checkpoints and whatever else the process writes are asked for by the methods below, which run in
threads of their own. The process is this actor's child, and dies with it whatever ends it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from gpt.data.cache import cache_folder, complete_or_absent, lock, tokens_folder
from gpt.errors import StorageError
from gpt.events import FILE, append_event
from gpt.system.files import is_disk_error
from sweep.backends.ray_files import (
    Offer,
    Piece,
    Stamp,
    messages_of,
    read_pieces,
    set_times,
    snapshot,
    stamps_of,
    write_pieces,
)

ACTOR_THREADS = 8  # of an actor: calls at a time, some of which a killed tuner left
LOOK_SECONDS = 0.03  # between two reads of the size of the log of events
EVENT_BYTES = 2**20  # of one answer
LARGEST_TEXT = 2**20  # bytes of a file in which the path of the run directory is replaced
OUTBOX = "outbox"  # links to the files of the last offer

# Dies with its parent, then becomes the command; a parent that is dead already is found out.
CHILD = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) or os._exit(1); os.execvp(sys.argv[2], sys.argv[2:])"
)


class Order(NamedTuple):
    """Order for an actor: the process to run. Messages of pieces may be references to them."""

    name: str  # of the actor, and of its folder on the node
    command: tuple[str, ...]
    python: str  # of the tuner's machine; the node has its own
    run_dir: str  # on the tuner's machine; the command and small files name it
    threads: int
    events: bytes  # that the run has written so far
    stamps: dict[str, Stamp]  # of its files
    files: list[Any]  # messages of their pieces
    tokens: str | None = None  # name of the folder of the prepared text
    token_sizes: Mapping[str, int] = {}  # bytes of its files
    token_files: Iterable[Any] = ()  # messages of their pieces


class News(NamedTuple):
    """News of a trial."""

    offset: int  # in its log of events
    content: bytes  # from there on
    ended: bool  # its process has, and `content` is the last
    exit_code: int | None
    full: str | None  # why the node's disk cannot be written


class TrialActor:
    """Runs one attempt at a trial."""

    def __init__(self, order: Order) -> None:
        import ray

        self._order = order
        self._node = ray.util.get_node_ip_address()
        self._home = cache_folder() / "trials" / order.name
        self._run_dir = self._home / Path(order.run_dir).name
        self._own = FileLock(self._home.with_name(f"{order.name}.lock"), thread_local=False)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._asked_to_stop = self._ended = False
        self._exit_code: int | None = None
        self._full: str | None = None
        self._outbox = self._run_dir
        self._came: dict[str, Stamp] = {}  # files as they were unpacked
        self._messages: list[list[tuple[str, int, int]]] = []
        threading.Thread(target=self._run, daemon=True).start()  # the child dies with this thread

    # --- what the tuner asks -----------------------------------------------------------------

    def poll(self, offset: int, patience: float) -> News:
        """Return the events after byte `offset`, as soon as there are any, or the end."""
        path, deadline = self._run_dir / FILE, time.monotonic() + patience
        while True:
            ended = self._ended  # first: the log of an ended process is complete
            size = path.stat().st_size if path.exists() else 0
            if size > offset or ended or time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
        content = b""
        if size > offset:
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(EVENT_BYTES)
        ended = ended and offset + len(content) >= size
        return News(offset, content, ended, self._exit_code, self._full)

    def stop(self) -> None:
        """Ask the process for a checkpoint and an end."""
        with self._lock:
            self._asked_to_stop = True
            if self._process is not None:
                self._process.terminate()

    def kill(self) -> None:
        """End the process now, and what it has started."""
        with self._lock:
            self._asked_to_stop = True
            if self._process is not None and not self._ended:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def offer(self, have: dict[str, Stamp]) -> tuple[Offer, int]:
        """Say which files the tuner does not have, and in how many messages they come."""
        self._outbox = self._home / OUTBOX
        try:
            found = snapshot(self._run_dir, self._outbox, have, self._came)
        except OSError:  # the disk takes not even links
            self._outbox = self._run_dir
            found = snapshot(self._run_dir, self._outbox, have, self._came)
        sizes = {name: stamp.size for name, stamp in found.stamps.items()}
        self._messages = list(messages_of(sizes))
        return found, len(self._messages)

    def message(self, number: int) -> list[Piece]:
        """Return one of the messages of the last offer."""
        return read_pieces(self._outbox, self._messages[number])

    def close(self) -> None:
        """Remove the folder; the process has ended."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._own.release()
        Path(self._own.lock_file).unlink(missing_ok=True)

    # --- the process -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._home.parent.mkdir(parents=True, exist_ok=True)
            self._own.acquire(timeout=60)
            self._remove_leftovers()
            self._prepare_tokens()
            self._unpack()
            self._exit_code = self._train()
            self._note_a_full_disk(self._exit_code)
        except OSError as error:
            self._exit_code = StorageError.exit_code if is_disk_error(error) else 1
            self._note_a_full_disk(self._exit_code)
            self._log_failure(f"{error.strerror}: {error.filename}")
        except Exception as error:  # such as a tuner that died before all had been sent
            self._exit_code = 1
            self._log_failure(f"{type(error).__name__}: {error}")
        finally:
            self._ended = True

    def _note_a_full_disk(self, exit_code: int) -> None:
        if exit_code == StorageError.exit_code:
            place = f"{cache_folder()} on node {self._node}"
            self._full = f"{place} must be writable, but its disk is full or does not take it"

    def _log_failure(self, message: str) -> None:
        first = message.splitlines()[0] if message else "it said nothing"
        with suppress(OSError):
            self._run_dir.mkdir(parents=True, exist_ok=True)
            text = f"could not start on node {self._node}: {first}"
            append_event(self._run_dir, "error", outcome="error", step=0, message=text)

    def _remove_leftovers(self) -> None:
        """Remove folders of actors that were killed on this node."""
        for path in self._home.parent.glob("*.lock"):
            folder = path.with_suffix("")
            if folder != self._home:
                with suppress(Timeout, OSError), FileLock(path, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
                    path.unlink()

    def _prepare_tokens(self) -> None:
        """Have the text in the node's cache, where every trial of the node finds it."""
        name, sizes = self._order.tokens, self._order.token_sizes
        if name is None:
            return
        folder = tokens_folder(name)

        def there() -> bool:
            files = {path.name: path.stat().st_size for path in folder.glob("*")}
            return all(files.get(file) == size for file, size in sizes.items())

        if there():
            return
        with lock(cache_folder() / "locks" / name, lambda text: None):
            if not there():
                with complete_or_absent(folder) as temporary:
                    self._write(temporary, self._order.token_files)

    def _unpack(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        self._run_dir.mkdir(parents=True)
        self._write(self._run_dir, self._order.files)
        for name, stamp in self._order.stamps.items():
            if "/" not in name and stamp.size <= LARGEST_TEXT:
                self._replace_paths(self._run_dir / name)
        (self._run_dir / FILE).write_bytes(self._order.events)
        set_times(self._run_dir, self._order.stamps)
        self._came = stamps_of(self._run_dir)

    def _replace_paths(self, path: Path) -> None:
        """Let a file name the run directory on the node, as it stands in text and in JSON."""
        before = content = path.read_bytes()
        old, new = self._order.run_dir, str(self._run_dir.resolve())
        for form in (json.dumps, str):
            content = content.replace(form(old).strip('"').encode(), form(new).strip('"').encode())
        if content != before:
            path.write_bytes(content)

    @staticmethod
    def _write(folder: Path, messages: Iterable[Any]) -> None:
        import ray

        for message in messages:
            here = ray.get(message) if isinstance(message, ray.ObjectRef) else message
            write_pieces(folder, here)

    def _train(self) -> int:
        """Start the process and wait for its end; return the exit code."""
        own = {
            self._order.python: sys.executable,
            self._order.run_dir: str(self._run_dir.resolve()),
        }
        command = [own.get(word, word) for word in self._order.command]
        threads = str(self._order.threads)
        with (self._run_dir / "log.txt").open("ab") as log:
            with self._lock:
                if self._asked_to_stop:
                    return -signal.SIGTERM
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", CHILD, str(os.getpid()), *command],
                    cwd=self._run_dir,
                    env={**os.environ, "OMP_NUM_THREADS": threads, "WORLD_SIZE": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            return self._process.wait()
