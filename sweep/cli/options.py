"""Options and helpers that several commands share. Light: `--help` imports it."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt.errors import BusyError, InputError
from gpt.system.files import is_replaceable
from sweep.study.paths import read_path, read_source

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

    from sweep.tuner.summary import Summary


def as_path(param: typer.CallbackParam, value: Path | None) -> Path | None:
    """Read the path that an option or argument gives."""
    return None if value is None else read_path(value, param.opts[0])


def as_source(param: typer.CallbackParam, value: str | None) -> str | None:
    """Read the text that --data gives: a name or a path."""
    return None if value is None else read_source(value, param.opts[0])


StudyFile = Annotated[
    str, typer.Option("--study", help="Name of a shipped study, or path of a .toml file.")
]
StoredStudy = Annotated[
    str, typer.Option("--study", help="Name of a study that ran, or path of its .toml file.")
]
Storage = Annotated[str, typer.Option(help="Path of a SQLite file, or SQLAlchemy URL.")]
Runs = Annotated[Path, typer.Option(help="Folder of all run directories.", callback=as_path)]
Timeout = Annotated[
    str | None,
    typer.Option(help="Stop at checkpoints after this time (90s, 15m, 8h). Rerun to resume."),
]
HangTimeout = Annotated[
    str,
    typer.Option(help="Restart a trial that writes nothing for this long; off for never."),
]
BackendName = Annotated[
    str,
    typer.Option("--backend", help="local; slurm or ray: a job or an actor for each trial."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="For --backend ray: auto, HOST:PORT or ray://HOST:PORT; none starts a Ray."),
]
Sbatch = Annotated[
    str,
    typer.Option(
        help='For --backend slurm, after those of [backend.slurm]: "--gres=gpu:1 --time=4:00:00".'
    ),
]
DeviceOfSweep = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:N or mps; by default the sweep's.")
]
Workers = Annotated[str, typer.Option("--workers", help="Runs at a time, or auto.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print every figure as JSON.")]
Column = Annotated[
    str | None, typer.Option(help="Column of the text; by default text, or the only one.")
]
Arm = Annotated[str | None, typer.Option(help="Only this arm.")]


def stored_study(study: str, storage: str) -> "tuple[RDBStorage, optuna.Study]":
    """Return a storage and a study of ours in it, given by its name or the path of its file."""
    from sweep.analysis.results import require_ours
    from sweep.storage.rdb import open_storage
    from sweep.storage.reader import load_study

    opened = open_storage(storage, create=False)
    stored = load_study(opened, _name_of(study))
    require_ours(stored)
    return opened, stored


def shown_study(study: str, storage: str) -> "tuple[RDBStorage, optuna.Study]":
    """Return what `stored_study` does, only to be shown: its trials are read once and fast."""
    from sweep.analysis.results import require_ours
    from sweep.storage.location import storage_path
    from sweep.storage.rdb import open_storage

    if storage_path(storage) is None:
        return stored_study(study, storage)
    stored = study_now(study, storage)
    require_ours(stored)
    return open_storage(storage), stored


def study_now(study: str, storage: str) -> "optuna.Study":
    """Return a study as it is now, only to be shown; in half the time of `stored_study`."""
    from sweep.storage.reader import load_study, open_snapshot

    return load_study(open_snapshot(storage), _name_of(study))


def _name_of(study: str) -> str:
    if not study.endswith(".toml"):
        return study
    from sweep.study.toml_file import find_study_file, read_study_file, read_tables

    name = read_tables(find_study_file(study)).get("name")  # all else may have changed since
    return name if isinstance(name, str) else read_study_file(study, "cpu").name


def check_output(path: Path) -> None:
    """Raise InputError unless a file can be written at `path`."""
    if path.is_dir():
        raise InputError(f"{path} must be a file to write, but it is a directory.")
    if not is_replaceable(path):
        raise InputError(f"{path} must be an ordinary file to write; pass another path.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} must be a directory, but there is none; make it first.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path} must be writable, but it is not; pass another path.")


@contextmanager
def resumable() -> Iterator[None]:
    """Print how to resume when Ctrl-C ends what runs within."""
    try:
        yield
    except KeyboardInterrupt:
        say_how_to_resume("interrupted")
        raise typer.Exit(130) from None


def say_how_to_resume(what: str) -> None:
    """Print what ended early, and the command that resumes it, on stderr."""
    command = shlex.join(["squen-sweep", *sys.argv[1:]])
    start = "\r" if sys.stderr.isatty() else ""  # over the ^C that the terminal wrote
    print(f"{start}{what}; run the same command again to continue: {command}", file=sys.stderr)


def stop_if_interrupted(summary: "Summary", what: str) -> None:
    """Exit where a sweep was interrupted, once it is said how to resume it.

    Args:
        summary: Of the sweep.
        what: That it counts, in words.
    """
    if summary.interrupted:
        say_how_to_resume(f"stopped at {summary.finished} of {summary.total} {what}")
        raise typer.Exit(128 + summary.signal if summary.signal else BusyError.exit_code)


def workers_of(text: str) -> int | None:
    """Return the number that --workers gives; None for "auto"."""
    if text == "auto":
        return None
    if not re.fullmatch("[1-9][0-9]{0,2}", text):
        raise InputError(f"--workers must be auto or from 1 to 999, but got {text!r}.")
    return int(text)


def sbatch_words(text: str) -> list[str]:
    """Split what --sbatch gives, as a shell does."""
    from sweep.study.program import split_text

    try:
        return list(split_text(text))
    except ValueError as error:
        raise InputError(f"--sbatch {error}.") from None
