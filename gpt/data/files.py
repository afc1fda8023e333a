"""Files of a text at a path, by split: words in the names of files and folders decide."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt.data import formats, nanogpt
from gpt.data.formats import format_of, is_plain, known_formats
from gpt.errors import InputError

# train.txt, valid-00000-of-00001.parquet, TinyStoriesV2-GPT4-train.txt, Validation/1.txt; but not
# constraint.txt, value.txt
_SPLITS = {
    "train": re.compile(r"(?<![a-z])train(ing)?(?![a-z])"),
    "validation": re.compile(r"(?<![a-z])(val|valid|validation|dev)(?![a-z])"),
    "test": re.compile(r"(?<![a-z])test(ing)?(?![a-z])"),
}
_ABOUT_THE_DATA = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|citation)(?![a-z])"
    r"|(dataset_infos?|dataset_dict|state|meta|metadata|tokenizer)\.json$"
)


@dataclass(frozen=True)
class TextFiles:
    """Files below a path, by what is done with them, each list in the order of names."""

    root: Path
    train: list[Path]
    validation: list[Path]  # empty: nothing there is named so
    unread: list[Path]

    def names(self, files: Iterable[Path]) -> list[str]:
        """Return the paths of files as seen from the root; the name of a file that is the root."""
        return [
            file.relative_to(self.root).as_posix() if file != self.root else file.name
            for file in files
        ]


def find(path: Path) -> TextFiles:
    """Find the files of a text.

    A file is the training text, unless its name says that it validates or tests. In a folder, the
    words train, valid, val, dev and test in the names of files, and of the folders around them,
    decide. Files of a test split validate where nothing else does, and never train. Files without
    such a word train where no name says train, and are not read otherwise. Where a split has .txt,
    .jsonl or .parquet files, its others (.json, .csv, compressed ones) are not read: they often are
    the same text once more. Tokens of nanoGPT are read where there is no text.

    Raises:
        InputError: nothing readable is there, nothing trains, or a file is of two splits.
    """
    try:
        return _found(path)
    except OSError as error:  # a folder that may not be entered, a name that is too long, a loop
        raise _unreadable(path, error) from None


def _found(path: Path) -> TextFiles:
    if not path.exists():
        raise InputError(
            f"--data, or source in [data], must be auto, hub, hub:NAME, built-in, or a file or "
            f"folder that exists, seen from where the command runs, but got {path}."
        )
    if path.is_file():
        return TextFiles(path, [_single(path)], [], [])
    readable, others = _files_below(path)
    if not readable:
        return _token_files(path, others)
    named: dict[str, list[Path]] = {}
    for file in readable:
        named.setdefault(_split_of(file, path), []).append(file)
    named = {split: _of_one_kind(files) for split, files in named.items()}
    train = named.get("train") or named.get("", [])
    validation = named.get("validation") or named.get("test", [])
    if not train:
        raise InputError(
            f"{path} must hold text to train on, but its files only validate: {validation[0].name}."
        )
    unread = {*readable, *others} - {*train, *validation}
    return TextFiles(path, train, validation, sorted(unread))


def read_files(files: Iterable[Path], column: str | None) -> Iterator[str]:
    """Yield the raw text of every story, file by file; lazily, so that a limit ends the reading.

    Args:
        files: Files that `find` found.
        column: See gpt.data.formats.read.

    Raises:
        InputError: a file cannot be read, is no text, or has no such column.
    """
    for file in files:
        if not nanogpt.is_token_file(file):
            yield from formats.read(file, column)
            continue
        try:
            yield from nanogpt.read_tokens(file)
        except OSError as error:
            raise _unreadable(file, error) from None


def may_be_document(files: list[Path]) -> bool:
    """Return whether the first file may be one text that is cut: a .txt, or tokens of nanoGPT."""
    return format_of(files[0]) == ".txt" or nanogpt.is_token_file(files[0])


def only_held_out(name: str) -> str:
    """Return "validation" or "test" if a name says that a text does not train; else ""."""
    words = _words(name)
    return words[0] if words and "train" not in words else ""


def stamp(file: Path) -> tuple[str, int, int]:
    """Return a file's path, size in bytes and modification time in ns, to detect a change."""
    status = file.stat()
    return str(file.resolve()), status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{error.filename or path} must be readable, but: {error.strerror}.")


def _single(file: Path) -> Path:
    if not format_of(file):
        raise InputError(f"{file} must be a {known_formats()} file, or a folder of them.")
    if held_out := only_held_out(file.name):
        raise InputError(
            f"{file} must be a text to train on, but by its name it is for {held_out}; rename it "
            f"to train on it, or give the folder that has a training text as well."
        )
    return file


def _files_below(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the files that can be read, and the others; hidden ones are neither."""
    below = [file for file in path.rglob("*") if file.is_file()]
    visible = sorted(file for file in below if not _is_hidden(file.relative_to(path)))
    readable = [file for file in visible if _is_text(file)]
    return readable, [file for file in visible if not _is_text(file)]


def _token_files(path: Path, others: list[Path]) -> TextFiles:
    """Find the tokens of a data set of nanoGPT, in a folder without any text."""
    train, validation = path / nanogpt.TRAIN, path / nanogpt.VALIDATION
    if train not in others:
        raise InputError(
            f"{path} must hold {known_formats()} files, but there are none, nor a {train.name} of "
            f"nanoGPT."
        )
    found = [validation] if validation in others else []
    return TextFiles(path, [train], found, sorted({*others} - {train, *found, path / nanogpt.META}))


def _of_one_kind(files: list[Path]) -> list[Path]:
    return [file for file in files if is_plain(file)] or files


def _is_text(file: Path) -> bool:
    return bool(format_of(file)) and not _ABOUT_THE_DATA.match(file.name.lower())


def _is_hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _split_of(file: Path, root: Path) -> str:
    """Return "train", "validation", "test", or "" where neither file nor folders say so.

    The folder train-and-test says nothing; a file of that name is refused, as is train/test.txt.
    """
    name, *folders = reversed(file.relative_to(root).parts)
    of_file = _words(name)
    of_folders = [words[0] for folder in folders if len(words := _words(folder)) == 1]
    splits = {*of_file, *of_folders}
    if len(splits) > 1:
        raise InputError(
            f"{file} must be of one split, but names say {' and '.join(sorted(splits))}; rename "
            f"it, or give a folder whose names are clear."
        )
    return next(iter(splits), "")


def _words(name: str) -> list[str]:
    return [split for split, word in _SPLITS.items() if word.search(name.lower())]
