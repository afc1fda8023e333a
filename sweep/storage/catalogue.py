"""Every study that can be run or was run: shipped, in ./studies, in the storage. Reads only."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt.errors import InputError
from sweep.storage.schema import is_confirm_study, study_attrs
from sweep.study import toml_file as study_file
from sweep.study.toml_file import shipped_studies

if TYPE_CHECKING:
    import optuna

FOLDER = Path("studies")  # where users keep files of their own


@dataclass(frozen=True)
class Entry:
    """One study."""

    name: str  # what --study takes: a shipped or stored name, or the path of a file
    progress: str  # "12 of 40"; empty where it never ran here
    description: str


def catalogue(storage: str, folder: Path = FOLDER) -> list[Entry]:
    """List shipped studies, then files in `folder`, then the others of the storage; each once.

    Args:
        storage: URL or path of a database, which may be missing.
        folder: May be missing as well.

    Raises:
        InputError: the storage cannot be read.
    """
    stored = _stored(storage)
    shipped = [
        Entry(study.name, _progress(stored.pop(study.name, None)), study.description)
        for study in shipped_studies()
    ]
    known = {path.resolve() for path in study_file.shipped_files().values()}
    files = [path for path in sorted(folder.glob("*.toml")) if path.resolve() not in known]
    own = [_of_file(path, stored) for path in files]
    others = [
        Entry(name, _progress(study), (study_attrs(study).spec or {}).get("description", ""))
        for name, study in stored.items()
    ]
    return [*shipped, *own, *others]


def _of_file(path: Path, stored: "dict[str, optuna.Study]") -> Entry:
    try:
        tables = study_file.read_tables(path)
    except InputError as error:
        return Entry(str(path), "", f"not a study: {error}")
    study = stored.pop(str(tables.get("name")), None)
    return Entry(str(path), _progress(study), str(tables.get("description", "")))


def _stored(storage: str) -> "dict[str, optuna.Study]":
    """The sweeps of a storage by name: not the confirm runs, not studies of other programs."""
    from sweep.storage.rdb import open_storage, sqlite_path, storage_url

    path = sqlite_path(storage_url(storage))
    if path is not None and not path.exists():
        return {}
    import optuna

    opened = open_storage(storage)
    studies = (
        optuna.load_study(study_name=name, storage=opened)
        for name in optuna.get_all_study_names(opened)
    )
    return {
        study.study_name: study
        for study in studies
        if study_attrs(study).spec is not None and not is_confirm_study(study)
    }


def _progress(study: "optuna.Study | None") -> str:
    if study is None:
        return ""
    trials = study.get_trials(deepcopy=False)
    finished = sum(trial.state.is_finished() for trial in trials)
    return f"{finished} of {study_attrs(study).n_trials or len(trials)}"
