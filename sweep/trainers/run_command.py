"""Run a program of the user's in a run directory, and log what it reports in events.jsonl.

    python -P -m sweep.trainers.run_command RUN_DIR

runs the program of RUN_DIR/program.json in a process group of its own: what it prints goes to
log.txt, lines that match its pattern become evaluations. SIGTERM, SIGINT and SIGHUP are passed on,
with time to write a checkpoint; whatever is left of the group is killed at the end, also when this
process is killed itself. It is one process per trial, so it imports little.
"""

import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from gpt.errors import BusyError, StorageError
from gpt.events import FILE, Event, append_event, parse_event, read_lines
from gpt.system.files import is_disk_error
from gpt.system.signals import noted
from sweep.study.external.pattern import LINE_LENGTH, SlowPatternError, limited

if TYPE_CHECKING:
    import psutil

PROGRAM_FILE = "program.json"
PARAMS_FILE = "params.json"
LOG = "log.txt"
OLD_LOG = "log.1.txt"  # what log.txt held before it was full
OURS = (PROGRAM_FILE, PARAMS_FILE, FILE, LOG, OLD_LOG, ".lock")  # all else a program has left
MAX_LOG_BYTES = 8 * 2**20  # of each of the two
STOP_SECONDS = 30.0  # for a program that was asked to end; below the tuner's for this process
SIGN_SECONDS = 10.0  # between two signs of life, of a program that prints something
DRAIN_SECONDS = 2.0  # for what is still in the pipe when the program has ended
WAIT_SECONDS = 0.1
MAX_NATS = 700.0  # a token, of which the perplexity is a float: the largest is exp(709.8)
MAX_STEP = 2**53  # up to which a float holds every whole number
LAST_LINES = 20  # in which the reason of its end is looked for
OUT_OF_MEMORY = re.compile(
    rb"out of memory|OutOfMemoryError|MemoryError|can't allocate memory|ALLOC_FAILED"
)

# Kills a process group once the pipe to its standard input is closed, however that came to be.
GUARD = 'read -r group; cat > /dev/null; kill -s KILL -- "-$group" 2> /dev/null'


def reported(event: Event, name: str) -> tuple[int, float] | None:
    """Return step and value of an evaluation that a program wrote; None for any other event.

    Args:
        event: Such as {"step": 50, "value": 1.2}, or {"step": 50, "val_loss": 1.2}.
        name: That of the metric.
    """
    step, value = as_float(event.get("step")), as_float(event.get("value", event.get(name)))
    if event.get("event", "evaluation") != "evaluation" or step is None or value is None:
        return None
    return (int(step), value) if is_step(step) else None


def as_float(value: object) -> float | None:
    """Return a number of JSON as a float, which may be NaN; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with suppress(OverflowError):  # an integer of 400 digits
        return float(value)
    return None


def is_step(number: float) -> bool:
    """Return True for a whole number that databases take as a step."""
    return 0 <= number <= MAX_STEP and number == int(number)


def parse_report(line: bytes) -> Event | None:
    """Parse a line of events.jsonl; one of a program's own need not name its event."""
    if (event := parse_event(line)) is not None:
        return event
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and "step" in found:
            return {"event": "evaluation", **found}
    return None


class Supervisor:
    """The process of a program, and what it has reported so far.

    Args:
        run_dir: Holds PROGRAM_FILE.
        signals: Those that this process has received; it grows.
    """

    def __init__(self, run_dir: Path, signals: list[int]) -> None:
        self._run_dir = run_dir
        self._signals = signals
        self._program: dict[str, Any] = json.loads((run_dir / PROGRAM_FILE).read_text())
        self._metric = self._program["metric"]
        pattern = self._metric["pattern"]
        self._pattern = re.compile(pattern) if pattern else None
        lines, self._offset = read_lines(run_dir)
        events = [event for line in lines if (event := parse_report(line)) is not None]
        steps = [one[0] for event in events if (one := reported(event, self._metric["name"]))]
        self._last_step: int | None = max(steps, default=None)  # of all attempts
        spent = [seconds for e in events if (seconds := as_float(e.get("seconds"))) is not None]
        self._seconds = max(spent, default=0.0)
        self._attempt = 1 + sum(event["event"] == "start" for event in events)
        self._printed: int | None = None  # the last step of this attempt
        self._rest = b""  # of a line that is not complete
        self._last: list[bytes] = []  # lines
        self._fault: dict[str, Any] | None = None  # for which it is ended
        self._killed_at: float | None = None
        self._asked: dict[psutil.Process, list[psutil.Process]] = {}  # to end, and their children
        self._heard = False  # since the last sign of life
        self._noted = False  # that steps are not in order

    def run(self) -> int:
        """Run the program to its end; return the exit code, 0 if it is done or stopped."""
        append_event(self._run_dir, "start", pid=os.getpid(), attempt=self._attempt)
        self._started = self._alive_at = time.monotonic()
        command = list(self._program["command"])
        if self._attempt > 1 and self._has_left_something():
            command += self._program["resume"]
        with self._log_file() as self._log, _guard() as guard:
            told = guard.stdin.fileno()  # type: ignore[union-attr]
            try:
                process = subprocess.Popen(
                    command,
                    cwd=self._program["folder"],
                    env={**os.environ, **self._program["environment"]},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                    bufsize=0,
                    # in the child, before it is the program: this process may die meanwhile
                    preexec_fn=lambda: os.write(told, f"{os.getpid()}\n".encode()),  # noqa: PLW1509
                )
            except OSError as error:
                message = f"could not start {command[0]}: {error.strerror}"
                append_event(self._run_dir, "error", outcome="unusable", step=0, message=message)
                return 1
            self._follow(process)
            return self._end(process.wait())

    def _has_left_something(self) -> bool:
        ours = {*OURS, self._program["rendered"]}
        return any(path.name not in ours for path in self._run_dir.iterdir())

    @contextmanager
    def _log_file(self) -> Iterator[int]:
        descriptor = os.open(self._run_dir / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    # --- while it runs -----------------------------------------------------------------------

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        """Hear what it prints until it has ended; what it left running is killed."""
        assert process.stdout is not None
        output, ended, open_ = process.stdout.fileno(), False, True
        drained = math.inf  # the clock from when what a process outside of the group prints is left
        while not ended:
            ended = process.poll() is not None and not self._has_heirs(process)
            if ended:
                _kill_group(process.pid)
                drained = time.monotonic() + DRAIN_SECONDS
            while open_ and time.monotonic() < drained and _has_output(output, ended):
                chunk = os.read(output, 2**16)
                open_ = bool(chunk)
                self._hear(chunk)
                if not ended:
                    break
            if not open_ and not ended:
                time.sleep(WAIT_SECONDS)  # it has closed its output and goes on
            if self._pattern is None:
                self._read_events()
            self._show_alive()
            if not ended:
                self._ask_to_end(process)
        process.stdout.close()
        if self._rest:
            self._match([self._rest])

    def _hear(self, chunk: bytes) -> None:
        self._write_log(chunk)
        self._heard = self._heard or bool(chunk)
        *lines, rest = re.split(rb"[\r\n]+", self._rest + chunk)  # progress bars end with \r
        self._rest = rest[: 4 * LINE_LENGTH]
        self._match(lines)

    def _match(self, lines: list[bytes]) -> None:
        self._last = [*self._last, *lines[-LAST_LINES:]][-LAST_LINES:]
        if self._pattern is None or self._fault:
            return
        found = []
        try:
            with limited():
                for line in lines:
                    text = line[: 4 * LINE_LENGTH].decode(errors="replace")[:LINE_LENGTH]
                    if match := self._pattern.search(text):
                        found.append((match["step"], match["value"]))
        except SlowPatternError:
            shown = text if len(text) <= 80 else f"{text[:77]}..."
            self._fail("unusable", f"its metric's pattern takes too long on the line {shown!r}")
        for step, value in found:
            self._evaluate_text(step, value)

    def _evaluate_text(self, step: str, value: str) -> None:
        try:
            number = int(step.replace(",", ""))
            figure = float(value.rstrip(",;)%").replace(",", ""))
        except (ValueError, AttributeError):  # a group that took no part in the match is None
            number, figure = -1, 0.0
        if is_step(number):
            self._evaluate(number, figure)
        else:
            self._fail(
                "unusable",
                f"its metric's pattern must find a whole number from 0 on as step and a number as "
                f"value, but found {step!r} and {value!r}",
            )

    def _evaluate(self, step: int, value: float, log: bool = True) -> None:
        """Log an evaluation; the first of each step counts, and steps only grow."""
        if self._fault:
            return
        if not math.isfinite(value):
            self._last_step = step
            self._fail("diverged", f"{self._metric['name']} became {value} at step {step}")
            return
        if self._metric.get("nats") and value >= MAX_NATS:
            self._last_step = step
            self._fail(
                "diverged",
                f"{self._metric['name']} was {value:g} at step {step}, too much for nats per "
                f"token; if it is another figure, set trainer.metric.unit",
            )
            return
        before, self._printed = self._printed, step
        if before is not None and step < before and not self._noted:
            self._noted = True
            message = f"reports step {step} after step {before}: of each step the first counts"
            append_event(self._run_dir, "note", message=message)
        if self._last_step is None or step > self._last_step:
            self._last_step = step
            if log:
                seconds = self._seconds + time.monotonic() - self._started
                append_event(self._run_dir, "evaluation", step=step, value=value, seconds=seconds)

    def _read_events(self) -> None:
        """Read what the program itself appends."""
        lines, self._offset = read_lines(self._run_dir, self._offset)
        for event in map(parse_report, lines):
            if event and (found := reported(event, self._metric["name"])):
                self._evaluate(*found, log=False)
                self._heard = True

    def _show_alive(self) -> None:
        now = time.monotonic()
        if self._heard and now - self._alive_at > SIGN_SECONDS:
            self._heard, self._alive_at = False, now
            append_event(self._run_dir, "alive")

    def _write_log(self, chunk: bytes) -> None:
        """Append to log.txt; a full one is kept beside it, the one before that is lost."""
        with suppress(OSError):  # a full disk ends the run by its events
            os.write(self._log, chunk)
            if os.fstat(self._log).st_size > MAX_LOG_BYTES:
                shutil.copyfile(self._run_dir / LOG, self._run_dir / OLD_LOG)
                os.ftruncate(self._log, 0)

    def _fail(self, outcome: str, message: str) -> None:
        self._fault = self._fault or {"outcome": outcome, "message": message}

    def _ask_to_end(self, process: "subprocess.Popen[bytes]") -> None:
        """Pass on a request to end; after a time of grace, kill."""
        if not (self._signals or self._fault):
            return
        if self._killed_at is None:
            self._killed_at = time.monotonic() + STOP_SECONDS
            self._ask(process.pid)  # it alone: it may need its helpers to write a checkpoint
        elif time.monotonic() > self._killed_at:
            _kill_group(process.pid)

    def _ask(self, pid: int) -> None:
        """Send SIGTERM to a process, and note its children first: a shell dies and leaves them."""
        import psutil  # late: it takes as long to import as the rest

        with suppress(psutil.Error):  # it has ended
            process = psutil.Process(pid)
            self._asked[process] = process.children()
            process.terminate()

    def _has_heirs(self, process: "subprocess.Popen[bytes]") -> bool:
        """Return whether a program that died of our request, as a shell does, has left others.

        They are asked in its place and have the rest of its time.
        """
        if self._fault or self._killed_at is None or process.returncode != -signal.SIGTERM:
            return False
        for parent, children in list(self._asked.items()):
            if not _runs(parent):
                del self._asked[parent]
                for child in filter(_runs, children):
                    self._ask(child.pid)
        return bool(self._asked) and time.monotonic() < self._killed_at

    # --- its end -----------------------------------------------------------------------------

    def _end(self, code: int) -> int:
        step = self._last_step or 0
        complete = code == 0 and self._last_step is not None
        if self._fault:
            append_event(self._run_dir, "error", step=step, **self._fault)
        elif self._signals and not (complete and step >= (self._program["max_steps"] or step + 1)):
            append_event(self._run_dir, "stopped", step=step)
            return 0
        elif complete:
            append_event(self._run_dir, "done", step=step)
            return 0
        elif code == 0:
            name, pattern = self._metric["name"], self._metric["pattern"]
            way = f"no line matched {pattern!r}" if pattern else f"it appended nothing to {FILE}"
            message = f"ended without a report of {name}: {way}"
            append_event(self._run_dir, "error", outcome="unusable", step=0, message=message)
        else:
            memory = any(OUT_OF_MEMORY.search(line) for line in self._last)
            outcome = "oom" if memory and code > 0 else "error"
            message = self._reason(code)
            append_event(self._run_dir, "error", outcome=outcome, step=step, message=message)
        return 1

    def _reason(self, code: int) -> str:
        if code < 0:
            return f"was killed by signal {-code}"
        last = next((line for line in reversed(self._last) if line.strip()), b"")
        shown = last.decode(errors="replace").strip()[:200]
        return f"ended with exit code {code}" + (f": {shown}" if shown else "")


@contextmanager
def _guard() -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process that kills the group it is given, when this process ends for any reason."""
    guard = subprocess.Popen(
        ["sh", "-c", GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        bufsize=0,
    )
    try:
        yield guard
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def _has_output(descriptor: int, ended: bool) -> bool:
    return bool(select.select([descriptor], [], [], 0 if ended else WAIT_SECONDS)[0])


def _runs(process: "psutil.Process") -> bool:
    """Return whether a process has not ended; one that nobody has reaped has."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def preload() -> None:
    """Import what a run would import later: nothing."""


def main() -> int:
    """Run `python -m sweep.trainers.run_command RUN_DIR`; return the exit code."""
    run_dir = Path(sys.argv[1])
    signals: list[int] = []
    try:
        with noted(signals), FileLock(run_dir / ".lock", timeout=0):
            return Supervisor(run_dir, signals).run()
    except Timeout:
        return BusyError.exit_code
    except OSError as error:
        if is_disk_error(error):
            return StorageError.exit_code
        raise


if __name__ == "__main__":
    sys.exit(main())
