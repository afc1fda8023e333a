"""Options and helpers that several commands share."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import InputError
from gpt.system.files import is_special

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

DEFAULT_STORAGE = "runs/sweep.db"  # the file of sweep.storage.rdb's default URL

StudyFile = Annotated[str, typer.Option("--study", help="A shipped study, or the path of a .toml.")]
StoredStudy = Annotated[str, typer.Option("--study", help="A study that was run, or its .toml.")]
Storage = Annotated[str, typer.Option(help="Database: a path or a SQLAlchemy URL.")]
Timeout = Annotated[
    str | None, typer.Option(help="Stop at checkpoints after 90s, 15m, 8h; resumable.")
]
HangTimeout = Annotated[
    str, typer.Option(help="Restart a trial that says nothing for so long, or off.")
]
Arm = Annotated[str | None, typer.Option(help="Only this choice of what the study compares.")]


def stored_study(study: str, storage: str) -> "tuple[RDBStorage, optuna.Study]":
    """A study to read, by its name or by the path of its file, and its storage."""
    from sweep.storage.rdb import load_study, open_storage

    opened = open_storage(storage, create=False)
    return opened, load_study(opened, _name_of(study))


def _name_of(study: str) -> str:
    if not study.endswith(".toml"):
        return study
    from sweep.study.toml_file import read_study_file

    return read_study_file(study, "cpu").name


def check_output(path: Path) -> None:
    """Raise InputError unless a file can be written at `path`."""
    if path.is_dir():
        raise InputError(f"{path} must be a file to write, but it is a directory.")
    if is_special(path):
        raise InputError(f"{path} must be an ordinary file to write; pass another path.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} must be a directory, but there is none; make it first.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path} must be writable, but it is not; pass another path.")


@contextmanager
def resumable() -> Iterator[None]:
    """Around a command that the same command continues: says so when Ctrl-C ends it."""
    try:
        yield
    except KeyboardInterrupt:
        say_how_to_go_on("interrupted")
        raise typer.Exit(130) from None


def say_how_to_go_on(what: str) -> None:
    """Print what ended early, and the command that continues it, on stderr."""
    command = shlex.join(["squen-sweep", *sys.argv[1:]])
    print(f"{what}; run the same command again to continue: {command}", file=sys.stderr)


def workers_of(text: str) -> int | None:
    """What --workers says; None for "auto"."""
    if text == "auto":
        return None
    if not re.fullmatch("[1-9][0-9]{0,2}", text):
        raise InputError(f"--workers must be auto or from 1 to 999, but got {text!r}.")
    return int(text)
