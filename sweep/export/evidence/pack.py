"""An evidence pack: a study as one zip file that can be checked, and its report made again.

    manifest.json     SHA-256 and size of every other file, versions, the study's text and answer
    sweep.db          the study and the runs of its verdict, no other study
    runs/             of each run its configuration, events, scores by story and log; no weights
    report.html       made of these
    study.toml        the study file as it was read
    best.toml         the best configuration, if a trial is complete
    plugins/          Python files that the study names

The zip's comment is the SHA-256 of everything before it, so that no byte can change unseen.
`sweep.export.evidence.verify` checks a pack. It is evidence against accidents: who changes it on
purpose can compute the hashes anew, so publish the pack's own beside a result.
"""

import hashlib
import json
import os
import sqlite3
import tempfile
import zipfile
from contextlib import chdir, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

from gpt.errors import InputError, StorageError
from gpt.system.files import sha256_of
from sweep.analysis.phases import CONFIRM, SCREENING, name_of_phase
from sweep.analysis.results import complete_trials, require_ours
from sweep.analysis.study_reader import StudyReader, read_study
from sweep.export.configuration import to_toml
from sweep.export.evidence.database import copy_studies
from sweep.export.trial import export, export_program, is_of_program
from sweep.report.facts import provenance, study_file
from sweep.report.report import render
from sweep.storage.location import MARKER, runs_folder
from sweep.storage.rdb import located_spec, open_storage
from sweep.storage.reader import load_study
from sweep.storage.schema import set_study_attrs, study_attrs
from sweep.study.format import Show, unseen

FORMAT = "squen-sweep evidence pack"
PACK_VERSION = 1
MANIFEST, DATABASE, REPORT = "manifest.json", "sweep.db", "report.html"
STUDY_FILE = "study.toml"
COMMENT = b"sha256:"  # before the hash of all bytes of the zip before it
HEX = 64  # digits of a SHA-256
OF_A_RUN = (
    "config.json",
    "params.json",
    "events.jsonl",
    "stories.json",
    "calibration.json",
    "log.txt",
)
_FOR_STORIES = ("checkpoints", "tokenizer.json")  # the report draws from them; they are not packed


@dataclass(frozen=True)
class Packed:
    """Account of a pack that was written."""

    path: Path
    files: int
    size: int  # bytes
    sha256: str  # of the zip file


def write_pack(
    storage: RDBStorage, study: optuna.Study, path: Path, *, show: Show = unseen
) -> Packed:
    """Write the evidence pack of a study, completely or not at all; a sweep may go on meanwhile.

    Args:
        storage: Holds the study.
        study: In any state.
        path: Replaced if it exists.
        show: Called with each step.

    Raises:
        InputError: another program made the study.
        StorageError: the pack cannot be written.
    """
    require_ours(study)
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        making.unlink(missing_ok=True)  # of a killed process with this id
        with tempfile.TemporaryDirectory(prefix="squen-sweep-") as name:
            folder = Path(name)
            files = _stage(storage, study, folder, show)
            show("compressing")
            _write_zip(making, folder, [MANIFEST, *files])
        packed = Packed(path, len(files) + 1, making.stat().st_size, sha256_of(making))
        making.replace(path)
    except OSError as error:
        raise StorageError(f"{path} must be writable, but: {error.strerror}.") from None
    finally:
        making.unlink(missing_ok=True)
    return packed


def _stage(storage: RDBStorage, study: optuna.Study, folder: Path, show: Show) -> list[str]:
    """Fill an empty folder with what is packed; return the names of the files but the manifest."""
    show("copying the database")
    names = {"search": study.study_name}
    stored = optuna.get_all_study_names(storage)
    for phase in (SCREENING, CONFIRM):
        if (name := name_of_phase(storage, study, phase)) in stored:
            names[phase] = name
    folders = {kind: runs_folder(load_study(storage, name)) for kind, name in names.items()}
    copy = copy_studies(storage, names.values(), folder / "copy.db")
    files = [DATABASE]
    for kind, name in names.items():
        copied = load_study(copy, name)
        set_study_attrs(copied, runs=f"runs/{kind}")
        for trial in copied.get_trials(deepcopy=False):
            number = str(trial.number)
            files += _stage_run(folders[kind] / number, folder, f"runs/{kind}/{number}")
        files += _copied(folders[kind], folder, f"runs/{kind}", (MARKER,))
    copy.remove_session()
    copy.engine.dispose()
    with closing(sqlite3.connect(folder / "copy.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(folder / DATABASE),))  # one file, without a log
    files += _stage_configurations(study, folder)
    written_with = _stage_report(folder, study.study_name, show)
    files += [REPORT, STUDY_FILE]
    hashes = {
        name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size}
        for name in files
    }
    manifest = {**_manifest(study), "provenance": written_with, "files": hashes}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return files


def _stage_run(run_dir: Path, folder: Path, name: str) -> list[str]:
    files = _copied(run_dir, folder, name, OF_A_RUN)
    for each in _FOR_STORIES:
        if files and (run_dir / each).exists():
            (folder / name / each).symlink_to((run_dir / each).resolve())
    return files


def _copied(source: Path, folder: Path, name: str, files: tuple[str, ...]) -> list[str]:
    """Copy those of a folder's files that are there; return their names in the pack."""
    copied = []
    for file in files:
        with suppress(FileNotFoundError):
            content = (source / file).read_bytes()
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_bytes(content)
            copied.append(f"{name}/{file}")
    return copied


def _stage_configurations(study: optuna.Study, folder: Path) -> list[str]:
    """Write the best configuration and the plugins; return their names."""
    files = []
    if complete_trials(study):
        if is_of_program(study):
            text, _ = export_program(study)
        else:
            text = to_toml(*export(study), "best.toml")
        (folder / "best.toml").write_text(text, encoding="utf-8")
        files.append("best.toml")
    for nth, plugin in enumerate(sorted(located_spec(study).plugins)):
        path = Path(plugin)
        if path.suffix == ".py" and path.is_file():
            (folder / "plugins").mkdir(exist_ok=True)
            name = f"plugins/{nth}-{path.name}"
            (folder / name).write_bytes(path.read_bytes())
            files.append(name)
    return files


def _stage_report(folder: Path, name: str, show: Show) -> dict[str, str]:
    """Write the report and the study file from the copied database; return the provenance."""
    reader, page = read_and_render(folder, name, show)
    (folder / REPORT).write_text(page, encoding="utf-8")
    (folder / STUDY_FILE).write_text(study_file(reader), encoding="utf-8")
    return provenance(reader)


def read_and_render(folder: Path, name: str, show: Show = unseen) -> tuple[StudyReader, str]:
    """Read a study from the database of an unpacked pack and render its report there.

    The current folder is the pack's meanwhile, so that no path in the report leads out of it.

    Returns:
        What the report is made of, and the page.
    """
    with chdir(folder):
        storage = open_storage(DATABASE)
        reader = read_study(storage, load_study(storage, name))
        page = render(reader, show=show)
        storage.remove_session()
        storage.engine.dispose()
    return reader, page


def _manifest(study: optuna.Study) -> dict[str, Any]:
    attrs = study_attrs(study)
    return {
        "format": FORMAT,
        "format_version": PACK_VERSION,
        "study": study.study_name,
        "packed": datetime.now(UTC).isoformat(timespec="seconds"),
        "question": (attrs.spec or {}).get("question"),
        "answer": (attrs.verdict or {}).get("answer"),
    }


def _write_zip(path: Path, folder: Path, files: list[str]) -> None:
    """Write files as a zip, the same files to the same bytes, and its hash as its comment."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as target:
        for name in files:
            entry = zipfile.ZipInfo(name)  # without a time
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            target.writestr(entry, (folder / name).read_bytes())
        target.comment = COMMENT + b"0" * HEX
    with path.open("r+b") as file:
        digest = hash_before_comment(path)
        file.seek(-HEX, os.SEEK_END)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def hash_before_comment(path: Path) -> str:
    """Return the SHA-256 of all bytes of a pack before the hash in its comment."""
    sha, left = hashlib.sha256(), path.stat().st_size - HEX
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            sha.update(block)
            left -= len(block)
    return sha.hexdigest()


def check_replaceable(path: Path) -> None:
    """Raise InputError where a file stands that is no pack."""
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as old:
            ours = old.comment.startswith(COMMENT) and MANIFEST in old.namelist()
    except (OSError, zipfile.BadZipFile):
        ours = False
    if not ours:
        raise InputError(
            f"{path} must be new or a pack that `squen-sweep pack` wrote, but it is another file; "
            f"pass another path."
        )
