"""Have malloc keep freed memory, since tensors come and go at the same sizes.

By default glibc gives every large block back to the system and asks for it again, a page fault for
each 4 KiB: passes over (n, V) logits then take up to seven times as long.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of malloc.h
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")  # glibc's own variables
_KEPT_BYTES = 2**30 - 1  # below it, blocks are kept; larger ones are rare and long-lived


def keep_freed_memory() -> None:
    """Raise glibc's thresholds for this process, unless the environment sets them.

    On other systems nothing happens.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _CHOSEN):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
