"""Train a run directory on several devices: one `python -m gpt.train RUN_DIR` for each.

This process starts them as torchrun would, reads the run's events, passes signals on, and ends all
when one has failed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import torch
import torch.distributed as dist

from gpt.errors import InputError
from gpt.events import FILE, Evaluation, evaluation_of, read_events
from gpt.system.distributed import PeerError, check_devices, reason_of_failure

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 15.0  # in which the others of a process that failed end by themselves


def check_gpus(gpus: int, device: str) -> None:
    """Raise InputError unless --gpus processes can have a device each.

    Args:
        gpus: Processes.
        device: "cuda", or "cpu", where each has a core.
    """
    if gpus < 1:
        raise InputError(f"--gpus must be at least 1, but got {gpus}.")
    cores, devices = os.cpu_count() or 1, torch.cuda.device_count()
    if device == "cpu" and gpus > cores:
        raise InputError(
            f"--gpus must be at most {cores} with --device cpu, the cores here, but got {gpus}."
        )
    if device == "cuda" and gpus > devices:
        raise InputError(
            f"--gpus must be at most {devices}, the CUDA devices that torch sees, but got {gpus}; "
            f"with --device cpu it counts processes."
        )
    check_devices(device, gpus)


def train_on_several(
    run_dir: Path,
    processes: int,
    stop: Callable[[], bool],
    show: Callable[[str], None],
) -> Generator[Evaluation, None, None]:
    """Train a run directory in several processes; their stderr goes to log.txt there.

    Args:
        run_dir: A folder with a config.json.
        processes: At least 2.
        stop: Called several times a second; true asks them to stop at a checkpoint.
        show: Called with each note of the log.

    Yields:
        The evaluations that they make; none if the run is done already.

    Raises:
        PeerError: one of them failed; all have ended then.
    """
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    path = run_dir / FILE
    offset = path.stat().st_size if path.exists() else 0
    children = _start(run_dir, processes, store.port)
    failed: tuple[int, int, float] | None = None  # rank, exit code, time of the first
    asked, running = False, True
    try:
        while running:
            codes = [child.poll() for child in children]
            running = None in codes  # before the last events are read
            events, offset = read_events(run_dir, offset)
            for event in events:
                if event["event"] == "note":
                    show(event["message"])
                elif event["event"] == "evaluation":
                    yield evaluation_of(event)
            if stop() and not asked:
                asked = True
                for child in children:
                    child.terminate()
            if failed is None:
                ended = [(rank, code) for rank, code in enumerate(codes) if code]
                failed = (*ended[0], time.monotonic()) if ended else None
            elif time.monotonic() - failed[2] > _GRACE_SECONDS:
                break
            time.sleep(_POLL_SECONDS if running else 0)
    finally:
        for child in children:
            child.kill()
            child.wait()
    reason = reason_of_failure(store)
    if reason is not None:
        raise reason
    if failed is not None and not asked:  # one that was asked before it listened did not fail
        rank, code, _ = failed
        end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise PeerError(
            f"process {rank} of {processes} must train to the end, but ended with {end}, see "
            f"{run_dir / 'log.txt'}; run the same command again to continue.",
            "error",
            1,
        )


def _start(run_dir: Path, processes: int, port: int) -> list[subprocess.Popen[bytes]]:
    common = {
        "WORLD_SIZE": processes,
        "LOCAL_WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,  # the store is here, and outlives them
    }
    children = []
    with (run_dir / "log.txt").open("ab") as log:
        for rank in range(processes):
            ours = common | {"RANK": rank, "LOCAL_RANK": rank}
            child = subprocess.Popen(
                (sys.executable, "-P", "-m", "gpt.train", str(run_dir.resolve())),
                env={**os.environ, **{name: str(value) for name, value in ours.items()}},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only this process, which passes it on
            )
            children.append(child)
    return children
