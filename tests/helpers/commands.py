"""Commands as a user types them in a folder, run in this process."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from sweep.cli import main


class Outcome(NamedTuple):
    """What a command leaves on the terminal."""

    code: int
    out: str
    err: str

    @property
    def is_right(self) -> bool:
        """True if it is done, or refused with one line."""
        refused = self.err.startswith("error: ") and self.err.count("\n") == 1
        return self.code == 0 or (self.code in (2, 65, 74, 75) and refused)


class Commands:
    """Runs `squen-sweep` in a folder."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.folder = folder

    def __call__(self, *words: str) -> Outcome:
        self._monkeypatch.chdir(self.folder)
        self._monkeypatch.setattr(sys, "argv", ["squen-sweep", *words])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = self._capsys.readouterr()
        return Outcome(int(ended.value.code or 0), shown.out, shown.err)
