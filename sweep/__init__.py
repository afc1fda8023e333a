"""Search over training runs: ask, launch, report, prune, compare. Imports gpt.

from sweep import results
results.open("runs/sweep.db", "tinystories").trials
"""

from typing import TYPE_CHECKING, Any

__version__: str

if TYPE_CHECKING:
    from sweep.analysis import results as results
else:

    def __getattr__(name: str) -> Any:
        """Import `results`, and read `__version__`, when they are asked for: each takes 0.1 s."""
        if name == "results":
            from sweep.analysis import results

            return results
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("squen-sweep")
