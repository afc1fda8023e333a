"""Commands in processes of their own that import nothing: they are forked from one that has.

A command that starts anew imports for four seconds of CPU time, and the fork server of its trials
for five more: more than all else in a test. Here both are forked, as trials are in a sweep, by
sweep.backends.fork_server, which has imported this module. Everything that a test can see of such
a process is as of one that was started: pid, command line, signals, exit code, output, what it
does at its end. `start_anew` does start one, where the start itself is tested.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType

import pytest

from sweep.backends import fork_client, fork_server

HELPERS = Path(__file__).parent
TRAINER = "gpt.train"
FOLDER = "SQUEN_TEST_FOLDER"  # in which a command runs


class Forked:
    """`squen-sweep` with some words, with as much of subprocess.Popen as tests need.

    Args:
        folder: Where it runs.
        words: Its command line.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self._server, rooms = _server()
        self._room = Path(tempfile.mkdtemp(dir=rooms))
        (self._room / "log.txt").touch()  # its pid is told before it has opened it
        environment = {**os.environ, FOLDER: str(folder)}
        command = [sys.executable, "-m", "sweep", *words]
        with _one_at_a_time, pytest.MonkeyPatch.context() as patch:
            patch.setattr(fork_client, "PATIENCE", 600.0)  # for imports on a busy machine
            pid = self._server.fork(command, self._room, environment)
        assert pid is not None
        self.pid, self.returncode = pid, None

    def __enter__(self) -> "Forked":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wait()

    def poll(self) -> int | None:
        if self.returncode is None:
            with _one_at_a_time:
                self.returncode = self._server.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("sweep", timeout or 0, self.printed().encode())
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; return what it has printed."""
        self.wait(timeout)
        return self.printed(), None

    def printed(self) -> str:
        return (self._room / "log.txt").read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_anew(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """The same command as its user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "sweep", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_signals,  # noqa: PLW1509 - it takes no lock
    )


def heed_signals() -> None:
    """Also where the tests were started in the background or with nohup, which ignores some."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


_one_at_a_time = threading.Lock()  # for the server


@cache
def _server() -> tuple[fork_client.ForkServer, Path]:
    """One for all tests of this process, and a folder for what its forks print."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HELPERS), prepend=os.pathsep)
        patch.delenv("SLURM_CONF", raising=False)  # a cluster that ends kills all that have its own
        server = fork_client.ForkServer(Path(__file__).stem)
    rooms = Path(tempfile.mkdtemp(prefix="forked-"))
    atexit.register(shutil.rmtree, rooms, ignore_errors=True)
    atexit.register(server.close)
    return server, rooms


# --- in the process that forks, and in its forks -------------------------------------------------


def preload() -> None:
    """Import what commands import, and what a trainer does."""
    import pandas  # noqa: F401
    import plotly.graph_objects  # noqa: F401
    import scipy.stats  # noqa: F401
    from migrations import read_once

    import gpt.train
    import sweep.cli
    import sweep.report.report
    import sweep.tuner.run  # noqa: F401

    gpt.train.preload()
    read_once()


def main() -> int:
    """Be the command that sys.argv has; return its exit code."""
    from sweep.cli import main as run

    heed_signals()
    os.chdir(os.environ.pop(FOLDER))
    of_trials = [_fork_server()]
    made = fork_client.ForkServer

    def server_of(module: str) -> fork_client.ForkServer:
        return of_trials.pop() if of_trials and module == TRAINER else made(module)

    fork_client.ForkServer = server_of  # type: ignore[assignment, misc]
    try:
        run()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:  # as Python itself ends
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return 0


def _fork_server() -> fork_client.ForkServer:
    """Fork the server of the trials, which a command starts later, while there is one thread."""
    requests, ask = os.pipe()
    answers, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _serve(requests, answer, others=[ask, answers])
    os.close(requests)
    os.close(answer)
    server = fork_client.ForkServer.__new__(fork_client.ForkServer)
    server._process = _Child(pid, ask, answers)  # type: ignore[assignment]
    server._unread, server._silent, server._forked, server._exit_codes = b"", False, [], {}
    return server


def _serve(requests: int, answer: int, others: Sequence[int]) -> None:
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_WRONLY)
        for descriptor, standard in ((requests, 0), (answer, 1), (nothing, 2)):
            os.dup2(descriptor, standard)
        for descriptor in (requests, answer, nothing, *others):
            os.close(descriptor)
        sys.argv = ["-P", "-m", "sweep.backends.fork_server", TRAINER]
        fork_server._show_as([sys.executable, *sys.argv])
        del sys.argv[:2]
        fork_server.main()
    finally:
        os._exit(0)


class _Child:
    """A fork, as far as a ForkServer asks its process."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid, self._code = pid, None
        self.stdin, self.stdout = os.fdopen(stdin, "wb", 0), os.fdopen(stdout, "rb", 0)

    def poll(self) -> int | None:
        return self._code if self._code is not None else self._ended(os.WNOHANG)

    def wait(self) -> int | None:
        return self._code if self._code is not None else self._ended(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _ended(self, options: int) -> int | None:
        pid, status = os.waitpid(self.pid, options)
        if pid:
            self._code = os.waitstatus_to_exitcode(status)
        return self._code
