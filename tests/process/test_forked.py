"""Commands that tests fork are as those that users start; what trains is in test_forkserver.py."""

from pathlib import Path

import pytest
from forked import Forked, start_anew


@pytest.mark.parametrize(
    "words",
    [("--version",), ("status", "--study", "none"), ("run", "--study", "nowhere"), ("nonsense",)],
)
def test_a_forked_command_prints_and_returns_what_a_started_one_does(
    tmp_path: Path, words: tuple[str, ...]
):
    started, forked = start_anew(tmp_path, *words), Forked(tmp_path, *words)
    assert forked.communicate()[0] == started.communicate()[0] != ""
    assert forked.returncode == started.returncode
