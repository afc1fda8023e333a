"""A process that is killed while it writes checkpoints."""

import itertools
import multiprocessing
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import groups  # noqa: F401 - processes are forked from one that has imported torch
import torch

from gpt import checkpoint


def save_for_ever(run_dir: Path, saved: Connection) -> None:
    torch.set_num_threads(1)
    for step in itertools.count(1):
        weights = {f"w{i}": torch.full((100_000,), float(step)) for i in range(4)}
        checkpoint.save(run_dir, step, weights, {"m": torch.full((10,), float(step))}, {})
        saved.send(step)


def test_kill_at_any_moment_leaves_a_whole_checkpoint_at_most_one_step_old(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    for attempt in range(5):
        run_dir = tmp_path / str(attempt)
        reports, saved = context.Pipe(duplex=False)
        process = context.Process(target=save_for_ever, args=(run_dir, saved))
        process.start()
        saved.close()
        reported = reports.recv()
        time.sleep(0.013 * attempt)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        while reports.poll():
            try:
                reported = reports.recv()
            except EOFError:  # it is dead
                break
        loaded = checkpoint.load(run_dir)
        assert loaded is not None
        assert loaded.step >= reported
        assert all((value == loaded.step).all() for value in loaded.model.values())
