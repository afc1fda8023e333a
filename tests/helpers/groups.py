"""Groups of processes that train one run directory, as torchrun would start them, in less time.

They are forked from a process that has imported the trainer already; a real torchrun imports torch
once for each of them and once for itself.
"""

import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["gpt.train"])
PATIENCE = 180.0  # seconds, on a busy machine


class Group:
    """Processes that train a run directory; what they print is in OUTPUT of their rank.

    Args:
        run_dir: With a config.json.
        size: Number of processes.
        timeout: Seconds after which one that waits for the others gives up.
        of_last: Environment of the last process, over that of all.
        program: What each process runs in place of gpt.train; returns its exit code.
    """

    def __init__(
        self,
        run_dir: Path,
        size: int,
        timeout: float | None = None,
        of_last: Mapping[str, str] | None = None,
        program: Callable[[], int] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.outputs = [run_dir.parent / f"{run_dir.name}.{rank}.txt" for rank in range(size)]
        common = {
            **os.environ,
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        self.processes: list[BaseProcess] = []
        for rank, output in enumerate(self.outputs):
            environment = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            if rank == size - 1:
                environment |= of_last or {}
            given = (run_dir, environment, output, timeout, program)
            process = _CONTEXT.Process(target=_run, args=given)
            process.start()
            self.processes.append(process)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the group does."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, [path.read_text() for path in self.outputs]
            time.sleep(0.02)

    def join(self) -> list[int | None]:
        """Wait for the end; return the exit codes by rank."""
        for process in self.processes:
            process.join(PATIENCE)
            process.kill()
            process.join()
        return [process.exitcode for process in self.processes]

    def printed(self) -> list[str]:
        """Return the lines that all have printed."""
        return [line for path in self.outputs for line in path.read_text().splitlines()]


def _run(
    run_dir: Path,
    environment: dict[str, str],
    output: Path,
    timeout: float | None,
    program: Callable[[], int] | None,
) -> None:
    from gpt import train
    from gpt.system import distributed

    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    warnings.simplefilter("error")
    if timeout is not None:
        distributed.GROUP_TIMEOUT = timedelta(seconds=timeout)
    sys.argv = ["gpt.train", str(run_dir)]
    sys.exit((program or train.main)())
