"""A process that has imported a trainer, and forks one for each job: no job imports torch again.

    python -P -m sweep.backends.fork_server MODULE ROOM

ROOM is a long argument, so that a fork's own command line fits into its memory. Each line of
standard input asks for a process and is answered by its pid; its exit code follows when it ends:

    {"command": ["python", "-P", "-m", "gpt.train", "/runs/mine/3"], "run_dir": "/runs/mine/3",
     "folder": "/home/me", "environment": {"OMP_NUM_THREADS": "1"}}
    {"pid": 4711}
    {"pid": 4711, "exit_code": -9}

A fork calls MODULE.main() and is what the command would be: in a session of its own, its output in
log.txt, its memory freed at its end, so that a crash costs one job. It goes on when this
process ends, which it does where its standard input does. Nothing here starts a thread, which a
fork would not have. Linux only, and for the CPU: imports may ask CUDA what there is, and after that
no fork can use it.
"""

import ctypes
import gc
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

STAT_ARG_START = 48 - 3  # of proc(5)'s fields of /proc/PID/stat, counted after the name


def main() -> int:
    """Serve until standard input ends; a fork ends with the exit code of its module's main()."""
    woken, wake = _wakeup()
    module = _imported(sys.argv[1])
    for request in _requests(woken):
        if os.fork() == 0:
            _become(request, woken, wake)
            os._exit(_exit_code(module))  # a slot would wait 0.2 s while Python takes torch apart
    return 0


def _imported(name: str) -> ModuleType:
    """Import a trainer, and with its preload() what it would import later.

    Collecting garbage meanwhile would take a quarter of the time and find none; in a fork it would
    copy the pages that it shares.
    """
    gc.disable()
    module = import_module(name)
    module.preload()
    gc.freeze()
    gc.enable()
    return module


def _wakeup() -> tuple[int, int]:
    """A descriptor that can be read after a child has ended, and the one that is written then."""
    read, write = os.pipe()
    for descriptor in (read, write):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read, write


def _requests(woken: int) -> Iterator[dict[str, Any]]:
    """Yield requests until standard input ends; report exit codes of children meanwhile."""
    text = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_exits()
        if 0 in ready:
            new = os.read(0, 65536)
            if not new:
                return
            *lines, text = (text + new).split(b"\n")
            yield from map(json.loads, lines)


def _report_exits() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _answer(pid=pid, exit_code=os.waitstatus_to_exitcode(status))


def _answer(**fields: int) -> None:
    os.write(1, f"{json.dumps(fields)}\n".encode())


def _become(request: dict[str, Any], *wakeup: int) -> None:
    """Turn a fork into the process that the command would start."""
    run_dir, command = request["run_dir"], request["command"]
    os.setsid()
    _show_as(command)
    _answer(pid=os.getpid())  # by now others can find this process
    signal.set_wakeup_fd(-1)  # in a fork, Python 3.13 has forgotten which it was
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in wakeup:
        os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(run_dir) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for descriptor, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    os.close(nothing)
    os.close(log)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = command[command.index("-m") + 1 :]


def _exit_code(module: ModuleType) -> int:
    """Run the job and return its exit code; log any traceback."""
    try:
        return int(module.main())
    except BaseException:
        with suppress(OSError):  # a full disk
            traceback.print_exc()
            sys.stderr.flush()
        return 1


def _show_as(command: list[str]) -> None:
    """Have `ps` show this command line, written where the kernel reads this process's."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(field) for field in fields[STAT_ARG_START : STAT_ARG_START + 2])
    text = b"".join(os.fsencode(part) + b"\0" for part in command)
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, min(len(text), end - start - 1))


if __name__ == "__main__":
    sys.exit(main())
