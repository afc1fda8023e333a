"""A process that is killed while it writes checkpoints."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gpt import checkpoint

KILLED = """
import itertools, sys, torch
from pathlib import Path
from gpt import checkpoint
torch.set_num_threads(1)
for step in itertools.count(1):
    weights = {f"w{i}": torch.full((100_000,), float(step)) for i in range(4)}
    checkpoint.save(Path(sys.argv[1]), step, weights, {"m": torch.full((10,), float(step))}, {})
    print(step, flush=True)
"""


def test_kill_at_any_moment_leaves_a_whole_checkpoint_at_most_one_step_old(tmp_path: Path):
    for attempt in range(5):
        run_dir = tmp_path / str(attempt)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(run_dir)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        reported = [1, *map(int, process.stdout.read().split())][-1]
        process.stdout.close()
        process.wait()
        loaded = checkpoint.load(run_dir)
        assert loaded is not None
        assert loaded.step >= reported
        assert all((value == loaded.step).all() for value in loaded.model.values())
