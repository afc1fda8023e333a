"""Check an evidence pack: every byte, then the report made again from its database, offline.

Nothing of a pack is run, and nothing is written outside of a temporary folder.
"""

import hashlib
import json
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt.data.formats import first_line
from gpt.errors import DataError, InputError
from gpt.system.files import sha256_of
from sweep.export.evidence.pack import (
    COMMENT,
    DATABASE,
    FORMAT,
    MANIFEST,
    PACK_VERSION,
    REPORT,
    hash_before_comment,
    read_and_render,
)
from sweep.export.evidence.page_figures import differences, page_figures
from sweep.study.format import Show, unseen

MOST_NAMES = 3  # of changed files in a message
_NAME = re.compile(r"[\w.-][\w. -]*(/[\w.-][\w. -]*)*")  # of a file in a pack


@dataclass(frozen=True)
class Verified:
    """Account of a pack that is as it was written."""

    study: str
    packed: str  # when, ISO 8601
    answer: str | None  # of the verdict
    sha256: str  # of the zip file
    files: int
    figures: int  # drawn again alike
    versions: str  # with which it was packed


def verify_pack(path: Path, *, show: Show = unseen) -> Verified:
    """Check a pack, and compare its report with the one that its database gives now.

    Args:
        path: Of the zip file.
        show: Called with each step.

    Raises:
        InputError: there is no file, or it is no pack.
        DataError: a byte has changed, the file is cut off, a name leads out of the pack, or the
            report's figures are not those of the database; the message names what differs.
    """
    if not path.is_file():
        there = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(f"{path} must be a pack of `squen-sweep pack`, but {there}.")
    show("checking the hashes")
    with tempfile.TemporaryDirectory(prefix="squen-sweep-") as name:
        folder = Path(name)
        manifest = _unpack(path, folder)
        with zipfile.ZipFile(path) as pack:
            comment = pack.comment
        if comment != COMMENT + hash_before_comment(path).encode():
            raise DataError(
                f"{path} must be as it was packed, but bytes beside its files have changed, or it "
                f"is cut off."
            )
        figures = _compare_report(path, folder, manifest["study"], show)
    return Verified(
        study=manifest["study"],
        packed=manifest["packed"],
        answer=manifest["answer"],
        sha256=sha256_of(path),
        files=len(manifest["files"]) + 1,
        figures=figures,
        versions=manifest["provenance"]["versions"],
    )


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Write a pack's files below a folder, once every one has the hash of the manifest."""
    try:
        pack = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises nearly any error for a damaged directory
        raise DataError(
            f"{path} must be a pack of `squen-sweep pack`, but it is cut off, damaged or another "
            f"kind of file ({first_line(error)})."
        ) from None
    with pack:
        names = [entry.filename for entry in pack.infolist()]
        for name in names:
            _check_name(path, name)
        manifest = _manifest_of(path, pack, names)
        listed: dict[str, Any] = manifest["files"]
        for name in listed:
            _check_name(path, name)
        changed = [name for name in listed if not _extract(pack, name, listed[name], folder)]
    if strangers := sorted(set(names) - {MANIFEST, *listed}):
        raise DataError(
            f"{path} must hold the files of its {MANIFEST} alone, but holds {strangers[0]} too."
        )
    if changed:
        more = len(changed) - MOST_NAMES
        shown = ", ".join(changed[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        has = "has" if len(changed) == 1 else "have"
        raise DataError(
            f"{path} must be as it was packed, but {shown} {has} changed (SHA-256 or size)."
        )
    return manifest


def _check_name(path: Path, name: str) -> None:
    """Raise DataError for a name that could lead out of the folder that a pack is unpacked to."""
    if not _NAME.fullmatch(name) or ".." in name.split("/"):
        raise DataError(f"{path} must hold files below its own folder, but names {name!r}.")


def _manifest_of(path: Path, pack: zipfile.ZipFile, names: list[str]) -> dict[str, Any]:
    if MANIFEST not in names:
        raise InputError(
            f"{path} must be a pack of `squen-sweep pack`, but it has no {MANIFEST}: it is another "
            f"kind of file."
        )
    if len(names) > len(set(names)):
        raise DataError(f"{path} must hold each file once, but holds one twice.")
    try:
        manifest: dict[str, Any] = json.loads(pack.read(MANIFEST))
        version = manifest["format_version"] if manifest["format"] == FORMAT else None
        texts = [manifest["study"], manifest["packed"], manifest["provenance"]["versions"]]
        hashes = [(each["sha256"], each["bytes"]) for each in manifest["files"].values()]
        well_formed = all(isinstance(text, str) for text in texts) and bool(hashes)
        _ = manifest["answer"]
    except Exception as error:  # of a damaged stream, too
        raise DataError(
            f"{path} must be as it was packed, but {MANIFEST} has changed ({first_line(error)})."
        ) from None
    if version != PACK_VERSION or not well_formed:
        raise InputError(
            f"{path} must be a pack of version {PACK_VERSION}, but its {MANIFEST} says "
            f"{version!r}; verify it with the squen-sweep that packed it."
        )
    return manifest


def _extract(pack: zipfile.ZipFile, name: str, listed: dict[str, Any], folder: Path) -> bool:
    """Write one file; return whether it has the size and the hash that the manifest lists."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    sha, left = hashlib.sha256(), int(listed["bytes"])
    try:
        with pack.open(name) as source, target.open("xb") as file:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:  # a stranger's may unpack to more than a disk has
                    return False
                sha.update(block)
                file.write(block)
    except Exception:  # zipfile, zlib and struct raise each their own for damaged bytes
        return False
    return left == 0 and sha.hexdigest() == listed["sha256"]


def _compare_report(path: Path, folder: Path, study: str, show: Show) -> int:
    """Render the report again, compare it, and return the number of its figures."""
    for name in (DATABASE, REPORT):
        if not (folder / name).is_file():
            raise DataError(f"{path} must hold {name}, but it does not.")
    packed = (folder / REPORT).read_text(encoding="utf-8")
    _, page = read_and_render(folder, study, show)
    if found := differences(packed, page):
        raise DataError(
            f"{path} must hold the report of its own database, but made again it differs in "
            f"{', '.join(found[:MOST_NAMES])}."
        )
    return len(page_figures(page)[0])
