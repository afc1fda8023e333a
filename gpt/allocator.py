"""Let the process keep the memory that it frees, for tensors come and go at the same sizes.

By default glibc gives every large block back to the system and asks for it again, a page fault for
each 4 KiB: passes over (n, V) logits then take up to seven times as long.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of malloc.h
_KEPT_BYTES = 2**30 - 1  # below it, blocks are kept; larger ones are rare and long-lived


def keep_freed_memory() -> None:
    """Raise glibc's thresholds for this process; elsewhere, nothing happens."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
