"""Bytes of tensors on the CPU, counted as torch allocates and frees them."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_of_tensors(do: Callable[[], object]) -> int:
    """The most that a call holds of what it allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        do()
    results = profiled.profiler.kineto_results  # type: ignore[union-attr]
    changes = [e for e in results.events() if e.name() == "[memory]"]
    now = most = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        now += change.nbytes()
        most = max(most, now)
    return most
