"""Search over training runs: ask, launch, report, prune, compare. Imports gpt."""

from typing import TYPE_CHECKING

__version__: str

if not TYPE_CHECKING:

    def __getattr__(name: str) -> str:
        """Read `__version__` from the installed package when it is asked for: it takes 0.1 s."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("squen-sweep")
