"""What becomes of a trial, for every combination of what was wanted and how its process ended."""

import signal

import pytest

from gpt.errors import BusyError
from gpt.train import is_out_of_memory
from sweep.trainers.run_command import OUT_OF_MEMORY
from sweep.tuner.exits import Ending, Exit, Intent, ending_of, exit_of

TABLE = """
           done      stopped   diverged  oom       disk      unusable   crashed
train      done      stopped   diverged  oom       disk      unusable   crashed
prune      pruned    pruned    pruned    pruned    pruned    pruned    pruned
timeout    done      timeout   diverged  oom       disk      unusable   timeout
stop       done      stopped   diverged  oom       disk      unusable   stopped
"""
HEADER, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CASES = [
    (Intent(intent), Ending(ending), Exit(expected))
    for intent, *exits in ROWS
    for ending, expected in zip(HEADER, exits, strict=True)
]


def test_the_table_has_every_combination():
    assert {(intent, ending) for intent, ending, _ in CASES} == {
        (intent, ending) for intent in Intent for ending in Ending
    }


@pytest.mark.parametrize(
    ("words", "memory"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`", False),
    ],
)
def test_memory_that_a_library_of_cuda_could_not_have_is_out_of_memory(words: str, memory: bool):
    assert is_out_of_memory(RuntimeError(words)) == memory
    assert bool(OUT_OF_MEMORY.search(f"RuntimeError: {words}".encode())) == memory


@pytest.mark.parametrize(("intent", "ending", "expected"), CASES)
def test_exit_of_is_the_table(intent: Intent, ending: Ending, expected: Exit):
    assert exit_of(intent, ending) is expected


@pytest.mark.parametrize(
    ("event", "exit_code", "ending"),
    [
        ({"event": "done", "step": 9}, 0, Ending.DONE),
        ({"event": "stopped", "step": 9}, 0, Ending.STOPPED),
        ({"event": "error", "outcome": "diverged"}, 1, Ending.DIVERGED),
        ({"event": "error", "outcome": "oom"}, 1, Ending.OOM),
        ({"event": "error", "outcome": "disk"}, 74, Ending.DISK),
        ({"event": "error", "outcome": "error"}, 1, Ending.CRASHED),
        ({"event": "error", "outcome": "unusable"}, 1, Ending.UNUSABLE),
        (None, 74, Ending.DISK),  # the disk did not take the event either
        (None, BusyError.exit_code, Ending.STOPPED),  # another process trains it
        (None, -signal.SIGTERM, Ending.STOPPED),  # asked before it had begun to listen
        (None, -signal.SIGINT, Ending.STOPPED),
        (None, -signal.SIGHUP, Ending.STOPPED),
        (None, -signal.SIGKILL, Ending.CRASHED),
        (None, 1, Ending.CRASHED),
        (None, None, Ending.CRASHED),  # nobody can know
    ],
)
def test_an_event_says_how_a_process_ended_and_without_one_its_exit_code(
    event: dict[str, object] | None, exit_code: int | None, ending: Ending
):
    assert ending_of(event, exit_code) is ending
