"""A time of day that can be set for some processes and not for the machine."""

from pathlib import Path

import pytest

# Read by Python at its start. Everything here tells the time of day by it; monotonic clocks go on.
SHIM = """
import pathlib, time

true_time = time.time
time.time = lambda: true_time() + float(pathlib.Path({file!r}).read_text() or 0)
time.time_ns = lambda: int(time.time() * 1e9)
"""


class Clock:
    """The time of day of Python processes that are started under `prepare`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "offset"
        (folder / "sitecustomize.py").write_text(SHIM.format(file=str(self._file)))
        self.set(0)

    def set(self, hours: int) -> None:
        """So many hours after the machine's clock, or before it."""
        self._file.write_text(str(3600 * hours))

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        """Change the environment of the processes that are started from now on."""
        patch.setenv("PYTHONPATH", str(self._file.parent))
