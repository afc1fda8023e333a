"""Freed memory is used again without a page fault, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from gpt.system.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB, 16,384 pages, as logits (256, 50257) have
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(10):
    faults()  # until the heap has grown
print(sum(faults() for _ in range(10)))
"""


def page_faults(mode: str) -> int:
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    if platform.libc_ver()[0] == "glibc":
        assert page_faults("keep") >= 10 * 16384


def test_memory_that_was_freed_is_kept_for_the_next_tensor():
    kept = page_faults("keep")
    if platform.libc_ver()[0] == "glibc":
        assert kept < 16384
        assert page_faults("default") >= 10 * 16384
