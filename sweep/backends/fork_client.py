"""Asks sweep.backends.fork_server, which has imported torch, to fork trainings on the CPU.

One for this process, started when it is first needed. It ends with this process, whatever ends
it; what it has forked goes on.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOM = " " * 4096  # for the longest path
PATIENCE = 60.0  # seconds for its imports, which take two
SUPPORTED = sys.platform == "linux"  # elsewhere a fork of what has imported torch is not safe


@cache
def fork_server(module: str) -> "ForkServer":
    """Return this process's server for a module, started now if it is not there yet."""
    server = ForkServer(module)
    atexit.register(server.close)
    return server


def warm_up(module: str) -> None:
    """Start the server before it is needed, unless trials will rather have a GPU."""
    if SUPPORTED and not Path("/dev/nvidiactl").exists():
        fork_server(module)


def fork(
    module: str, command: Sequence[str], run_dir: Path, environment: Mapping[str, str]
) -> tuple[int, "ForkServer"] | None:
    """Fork a process that calls module.main() as `command` would.

    Returns:
        Its pid, and the server that knows its exit code; None: it cannot be had this way.
    """
    if not SUPPORTED:
        return None
    if fork_server.cache_info().currsize and not fork_server(module).alive:
        fork_server.cache_clear()
    server = fork_server(module)
    pid = server.fork(command, run_dir, environment)
    return None if pid is None else (pid, server)


class ForkServer:
    """A process that has imported a module and forks."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweep.backends.fork_server", module, ROOM],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # no thread before a fork
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        self._unread = b""
        self._silent = False  # it will not say anything any more
        self._forked: list[int] = []  # pids that no caller has had yet
        self._exit_codes: dict[int, int] = {}

    @property
    def alive(self) -> bool:
        """True while it accepts requests and reports exit codes."""
        return not self._silent and self._process.poll() is None

    def fork(
        self, command: Sequence[str], run_dir: Path, environment: Mapping[str, str]
    ) -> int | None:
        """Return the pid of a new process; None: the server is of no use any more."""
        request = {
            "command": list(command),
            "run_dir": str(run_dir.resolve()),
            "folder": str(Path.cwd()),
            "environment": dict(environment),
        }
        assert self._process.stdin is not None
        deadline = time.monotonic() + PATIENCE
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            return None
        while not self._forked:
            if not self.alive or time.monotonic() > deadline:
                self.close()
                return None
            self._listen(1.0)
        return self._forked.pop()

    def exit_code(self, pid: int) -> int | None:
        """Exit code of a process that it forked; None: it still runs, or the server has gone."""
        while not self._silent and self._listen(0.0):
            pass
        return self._exit_codes.get(pid)

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self._silent = True
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _listen(self, seconds: float) -> bool:
        """Read its answers, waiting at most so many seconds; return whether there were any."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return False
        new = os.read(self._process.stdout.fileno(), 65536)
        self._silent = not new
        *lines, self._unread = (self._unread + new).split(b"\n")
        for answer in map(json.loads, lines):
            if "exit_code" in answer:
                self._exit_codes[answer["pid"]] = answer["exit_code"]
            else:
                self._exit_codes.pop(answer["pid"], None)  # of an earlier one with this number
                self._forked.append(answer["pid"])
        return bool(new)
