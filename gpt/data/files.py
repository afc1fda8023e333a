"""Stories of .txt, .jsonl and .parquet files, split into training and validation by file name.

Add a format by adding one reader and one READERS entry.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt.data.tokenizer import END_OF_TEXT
from gpt.errors import InputError

# train.txt, valid-00000-of-00001.parquet, TinyStoriesV2-GPT4-train.txt; but not constraint.txt,
# value.txt
_SPLITS = {
    "train": re.compile(r"(?<![a-z])train(ing)?(?![a-z])"),
    "validation": re.compile(r"(?<![a-z])(val|valid|validation|dev)(?![a-z])"),
    "test": re.compile(r"(?<![a-z])test(ing)?(?![a-z])"),
}


def find(path: Path) -> tuple[list[Path], list[Path]]:
    """Find training and validation files at a path, each list in the order of names.

    A file is the training text. In a folder, the words in file names decide (train, valid, val,
    dev; test where nothing else validates); files without such a word train where no name says
    train, and are ignored otherwise. There may be no validation files.

    Raises:
        InputError: nothing readable is there.
    """
    if path.is_file():
        if path.suffix not in READERS:
            raise InputError(f"{path} must be a {_formats()} file, or a folder of them.")
        return [path], []
    named: dict[str, list[Path]] = {}
    for file in _files_below(path):
        named.setdefault(_split_of(file), []).append(file)
    train = named.get("train") or named.get("", [])
    validation = named.get("validation") or named.get("test", [])
    if not train:
        raise InputError(
            f"{path} must hold text to train on, but its files only validate: {validation[0].name}."
        )
    return train, validation


def read(files: Iterable[Path]) -> Iterator[str]:
    """Yield the raw text of every story, file by file; lazily, so that a limit ends the reading.

    Raises:
        InputError: a file cannot be read, is no text, or has no column text.
    """
    for file in files:
        yield from READERS[file.suffix](file)


def stamp(file: Path) -> tuple[str, int, int]:
    """Return a file's path, size in bytes and modification time in ns, to detect a change."""
    status = file.stat()
    return str(file.resolve()), status.st_size, status.st_mtime_ns


def _files_below(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(
            f"--data must be auto, hub, built-in, or a file or folder that exists, but got {path}."
        )
    files = (file for file in path.rglob("*") if file.suffix in READERS and file.is_file())
    found = sorted(file for file in files if not _hidden(file.relative_to(path)))
    if not found:
        raise InputError(f"{path} must hold {_formats()} files, but there are none.")
    return found


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _split_of(file: Path) -> str:
    """Return "train", "validation", "test", or "" if the file's name has no such word."""
    name = file.name.lower()
    return next((split for split, word in _SPLITS.items() if word.search(name)), "")


def _formats() -> str:
    *first, last = READERS
    return f"{', '.join(first)} or {last}"


def _txt(path: Path) -> Iterator[str]:
    """Yield the pieces between <|endoftext|>.

    Not through datasets: its text loader gives lines, or, with sample_by="document", a whole file
    as one row, 90 times slower than this (12 MB: 2.3 s against 0.03 s).
    """
    rest = ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            while block := file.read(1 << 20):
                if "\0" in block:
                    raise InputError(f"{path} must be UTF-8 text, but holds a zero byte.")
                *complete, rest = (rest + block).split(END_OF_TEXT)
                yield from complete
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{path} must be UTF-8 text, but holds a byte 0x{byte:02x}.") from None
    except OSError as error:
        raise InputError(f"{path} must be readable, but: {error.strerror}.") from None
    yield rest


def _table(builder: str) -> Callable[[Path], Iterator[str]]:
    """Make a reader of the column text through a builder of datasets, without its cache."""

    def reader(path: Path) -> Iterator[str]:
        if path.stat().st_size == 0:
            return
        try:
            yield from texts(str(path), builder, data_files=str(path), split="train")
        except InputError:
            raise
        except Exception as error:  # pyarrow, json and datasets each raise their own
            reason = first_line(error)
            raise InputError(f"{path} must be a {path.suffix} file, but: {reason}") from None

    return reader


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _txt,
    ".jsonl": _table("json"),
    ".parquet": _table("parquet"),
}


ROWS_AT_ONCE = 1_000


def texts(name: str, source: str, **options: Any) -> Iterator[str]:
    """Yield the texts of a table as they are read; a row without text is skipped.

    Args:
        name: Name of the table, for messages.
        source: First argument of datasets.load_dataset(): a builder or a data set of the hub.
        options: Its other arguments.

    Raises:
        InputError: there is no column text, or it holds something else.
        Exception: whatever datasets, pyarrow or the network raise; nothing is printed.
    """
    import datasets  # takes a second or more

    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    rows = datasets.load_dataset(source, streaming=True, **options)
    columns = rows.column_names or next((list(row) for row in rows), ["text"])
    if "text" not in columns:
        raise InputError(f"{name} must have a column text, but has: {', '.join(columns)}.")
    for batch in rows.select_columns(["text"]).with_format("arrow").iter(ROWS_AT_ONCE):
        yield from _strings(batch["text"].to_pylist(), name)


def first_line(error: Exception) -> str:
    """First line of an error's message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _strings(values: list[Any], name: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif value is not None:
            raise InputError(f"{name} must hold strings in its column text, but got {value!r:.60}.")
