"""Files of a run directory on their way between two machines, in pieces that fit a message.

A file that has the same size and time of change on both sides is not sent again.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gpt.errors import DataError
from gpt.events import FILE
from gpt.system.files import sha256_of, sync

PIECE_BYTES = 32 * 2**20  # of one message, at most
ARRIVING = ".arriving"  # folder in a run directory of files that are not complete yet


class Stamp(NamedTuple):
    """Size and time of change of a file, by which it is known to be the same."""

    size: int  # bytes
    mtime_ns: int  # of the machine that wrote it: compared, never ordered


class Piece(NamedTuple):
    """Part of a file."""

    name: str  # path in the run directory
    offset: int
    content: bytes


class Offer(NamedTuple):
    """Files of a run directory that another side does not have."""

    present: list[str]  # names of all files
    stamps: dict[str, Stamp]  # of those that are to be sent
    sha256: dict[str, str]  # of those, likewise


def stamps_of(folder: Path) -> dict[str, Stamp]:
    """Return the files that travel, by name: none that is hidden, nor the log of events."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if hidden or name == FILE or path.is_symlink():
            continue
        with suppress(FileNotFoundError):  # trainers remove old checkpoints meanwhile
            status = path.stat()
            if path.is_file():
                found[name] = Stamp(status.st_size, status.st_mtime_ns)
    return found


def messages_of(sizes: Mapping[str, int]) -> Iterator[list[tuple[str, int, int]]]:
    """Plan messages for files of these sizes: name, offset and bytes of each piece."""
    message: list[tuple[str, int, int]] = []
    room = PIECE_BYTES
    for name, size in sizes.items():
        offset = 0
        while offset < size or offset == 0:
            taken = min(room, size - offset)
            message.append((name, offset, taken))
            offset, room = offset + taken, room - taken
            if room == 0:
                yield message
                message, room = [], PIECE_BYTES
            if offset == size:
                break
    if message:
        yield message


def read_pieces(folder: Path, planned: Iterable[tuple[str, int, int]]) -> list[Piece]:
    """Read the pieces of one message."""
    found = []
    for name, offset, size in planned:
        with (folder / name).open("rb") as file:
            file.seek(offset)
            found.append(Piece(name, offset, file.read(size)))
    return found


def write_pieces(folder: Path, pieces: Iterable[Piece]) -> None:
    """Write pieces, those of a file in order, below a folder."""
    for name, offset, content in pieces:
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"a file of a trial must be in its run directory, but is {name!r}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(content)


def set_times(folder: Path, stamps: dict[str, Stamp]) -> None:
    """Give files the times that they have on the other side."""
    for name, stamp in stamps.items():
        with suppress(FileNotFoundError):
            os.utime(folder / name, ns=(stamp.mtime_ns, stamp.mtime_ns))


def snapshot(
    folder: Path, into: Path, have: Mapping[str, Stamp], came: Mapping[str, Stamp]
) -> Offer:
    """Link what the other side does not have into a folder, where nobody removes it.

    A folder that changes meanwhile, as one of a checkpoint that is removed, is left out.

    Args:
        folder: A run directory.
        into: Made anew; `folder` itself: nothing is linked, as where a disk is full.
        have: Files of the other side.
        came: Files that came from there, as they were then.
    """
    if into != folder:
        shutil.rmtree(into, ignore_errors=True)
    present = stamps_of(folder)
    wanted = {n: stamp for n, stamp in present.items() if stamp not in (have.get(n), came.get(n))}
    for name in wanted if into != folder else ():
        with suppress(FileNotFoundError):
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / name, into / name)
    after = stamps_of(folder)
    moved = {parent_of(name) for name in present.keys() ^ after.keys()} - {""}
    stable = {name: stamp for name, stamp in wanted.items() if after.get(name) == stamp}
    sent = {name: stamp for name, stamp in stable.items() if parent_of(name) not in moved}
    return Offer(sorted(after), sent, {name: sha256_of(into / name) for name in sent})


def put_in_place(run_dir: Path, offer: Offer) -> bool:
    """Move files that have arrived to their places, those of a new folder all at once.

    One that changed on its way is dropped, and comes with the next offer. In a folder below the run
    directory, such as `checkpoints`, what the other side has removed is removed here, too, once
    all that it has is here.

    Returns:
        True unless one was dropped.
    """
    arrived = run_dir / ARRIVING
    torn = {name for name in offer.stamps if sha256_of(arrived / name) != offer.sha256[name]}
    for name in torn:
        (arrived / name).unlink()
    set_times(arrived, {name: stamp for name, stamp in offer.stamps.items() if name not in torn})
    if arrived.exists():
        _merge(arrived, run_dir)
    here = stamps_of(run_dir)
    complete = here.keys() >= set(offer.present)
    folders = {name.split("/")[0] for name in offer.present if "/" in name}
    for name in here.keys() - set(offer.present):
        if complete and name.split("/")[0] in folders:
            (run_dir / name).unlink()
            with suppress(OSError):  # others are in it
                (run_dir / name).parent.rmdir()
    return not torn


def parent_of(name: str) -> str:
    """Return the folder of a file, by its name; "" is the run directory."""
    return name.rpartition("/")[0]


def _merge(source: Path, target: Path) -> None:
    """Move a folder's content into another; its files are on the disk before they are seen."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _merge(path, place)
            continue
        for written in [path, *path.rglob("*")]:
            sync(written)
        path.replace(place)
    source.rmdir()
    sync(target)
