"""Every study that can be run or was run: shipped, in ./studies, in the storage. Reads only."""

from dataclasses import dataclass
from pathlib import Path

import optuna

from gpt.errors import InputError
from sweep.storage.location import storage_path
from sweep.storage.reader import open_snapshot
from sweep.storage.schema import is_confirm_study, is_ours, study_attrs
from sweep.study.toml_file import read_tables, shipped_files

FOLDER = Path("studies")  # where users keep files of their own


@dataclass(frozen=True)
class Entry:
    """One study."""

    name: str  # what --study takes: a shipped or stored name, or the path of a file
    progress: str  # "12 of 40"; empty where it never ran here
    description: str


def catalogue(storage: str) -> list[Entry]:
    """List shipped studies, then files in FOLDER, then the others of the storage; each once.

    Args:
        storage: URL or path of a database, which may be missing.

    Raises:
        InputError: the storage cannot be read.
    """
    stored = _stored(storage)
    shipped = [_of_file(name, path, stored) for name, path in shipped_files().items()]
    known = {path.name: path.read_bytes() for path in shipped_files().values()}
    files = [  # not copies, as in a clone of this repository beside an installed package
        path for path in sorted(FOLDER.glob("*.toml")) if not _is_copy(path, known.get(path.name))
    ]
    own = [_of_file(str(path), path, stored) for path in files]
    others = [Entry(name, _progress(study), _description(study)) for name, study in stored.items()]
    return [*shipped, *own, *others]


def _is_copy(path: Path, content: bytes | None) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _of_file(name: str, path: Path, stored: dict[str, optuna.Study]) -> Entry:
    try:
        tables = read_tables(path)
    except InputError as error:
        return Entry(name, "", f"not a study: {error}")
    study = stored.pop(str(tables.get("name")), None)
    return Entry(name, _progress(study), str(tables.get("description", "")))


def _stored(storage: str) -> dict[str, optuna.Study]:
    """Return the studies of a storage by name, without the confirm runs."""
    path = storage_path(storage)
    if path is not None and not path.exists():
        return {}
    opened = open_snapshot(storage)
    studies = (
        optuna.load_study(study_name=name, storage=opened)
        for name in optuna.get_all_study_names(opened)
    )
    return {study.study_name: study for study in studies if not is_confirm_study(study)}


def _description(study: optuna.Study) -> str:
    if not is_ours(study):
        return "made by another program"
    return str((study_attrs(study).spec or {}).get("description", ""))


def _progress(study: optuna.Study | None) -> str:
    if study is None:
        return ""
    trials = study.get_trials(deepcopy=False)
    finished = sum(trial.state.is_finished() for trial in trials)
    asked = study_attrs(study).n_trials if is_ours(study) else None
    return f"{finished} of {asked or len(trials)}"
