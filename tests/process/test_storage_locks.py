"""A check of a database that other connections of this process have open."""

import subprocess
import sys
from pathlib import Path

import optuna

from sweep.storage.rdb import check_storage, open_storage


def test_a_second_look_at_the_file_does_not_cost_what_is_written_afterwards(tmp_path: Path):
    path = tmp_path / "sweep.db"
    first = open_storage(str(path), create=True)  # its connections stay in a pool
    study = optuna.create_study(storage=first)
    check_storage(str(path))
    study.set_user_attr("written", "before")
    read_in_another_process(path)  # and believes to be the last one, if our locks are gone
    study.set_user_attr("written", "afterwards")
    assert "afterwards" in read_in_another_process(path)


def read_in_another_process(path: Path) -> str:
    """All attributes of studies; the connection is closed, as SQLite's own shell does."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "print(c.execute('SELECT * FROM study_user_attributes').fetchall()); c.close()"
    )
    words = [sys.executable, "-c", script, str(path)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
