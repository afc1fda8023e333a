"""Databases that open in a few milliseconds."""

import functools


def read_once() -> None:
    """Have Optuna read its migrations once, not at each opening to know the newest."""
    from alembic.script import ScriptDirectory

    newest = functools.cache(lambda folder: read(ScriptDirectory(folder)))
    read = ScriptDirectory.get_current_head
    ScriptDirectory.get_current_head = lambda self: newest(self.dir)  # type: ignore[method-assign]
