"""Starts trainings without importing torch each time: this process has, and forks one for each.

    python -P -m sweep.backends.fork_server ROOM

ROOM is a long argument, so that a fork's own command line fits in this one's place. Each line of
standard input asks for a process, and is answered by its pid; its end is told in the same way:

    {"run_dir": "runs/mine/3", "folder": "/home/me", "environment": {"OMP_NUM_THREADS": "1"}}
    {"pid": 4711}
    {"pid": 4711, "exit_code": -9}

A fork is what `python -m gpt.train RUN_DIR` would be: in a session of its own, its output in
log.txt, its memory freed at its end, so that a crash costs one training. It goes on when this
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
from pathlib import Path
from typing import Any

STAT_ARG_START = 48 - 3  # of proc(5)'s fields of /proc/PID/stat, counted after the name


def main() -> int:
    """0 at the end of standard input; a fork ends with the exit code of `gpt.train`."""
    woken, wake = _wakeup()
    _import_training()
    for request in _requests(woken):
        if os.fork() == 0:
            _become(request, woken, wake)
            os._exit(_exit_code())  # a slot would wait 0.2 s while Python takes torch apart
    return 0


def _import_training() -> None:
    """All that a training needs, and not a fork's to import again.

    Collecting garbage meanwhile would take a quarter of the time and find none; in a fork it would
    copy the pages that it shares.
    """
    gc.disable()
    import torch._dynamo  # noqa: F401 - an optimiser's first use imports it, which takes a second

    import gpt.train  # noqa: F401

    gc.freeze()
    gc.enable()


def _wakeup() -> tuple[int, int]:
    """A descriptor that can be read after a child has ended, and the one that is written then."""
    read, write = os.pipe()
    for descriptor in (read, write):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read, write


def _requests(woken: int) -> Iterator[dict[str, Any]]:
    """What is asked for, until standard input ends; tells the ends of children meanwhile."""
    text = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends()
        if 0 in ready:
            new = os.read(0, 65536)
            if not new:
                return
            *lines, text = (text + new).split(b"\n")
            yield from map(json.loads, lines)


def _tell_ends() -> None:
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
    """Turn a fork into the process that `python -m gpt.train RUN_DIR` starts."""
    run_dir = request["run_dir"]
    command = [sys.executable, "-P", "-m", "gpt.train", run_dir]
    os.setsid()
    _show_as(command)
    _answer(pid=os.getpid())  # by now others can find this process
    signal.set_wakeup_fd(-1)  # in a fork, Python 3.13 has forgotten which it was
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in wakeup:
        os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(run_dir) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for descriptor, place in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, place)
    os.close(nothing)
    os.close(log)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = command[3:]


def _exit_code() -> int:
    """Of the training that this fork is; what it did not expect is in the log, as Python has it."""
    from gpt import train

    try:
        return train.main()
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
