"""Formats of text files: how the stories of one file are read.

Add a format by adding one reader and one READERS entry.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpt.data.tokenizer import END_OF_TEXT
from gpt.errors import InputError


def format_of(file: Path) -> str:
    """Return the suffix that a file is read by, a key of READERS; empty if it cannot be read."""
    suffix = file.suffix.lower()
    return suffix if suffix in READERS else ""


def known_formats() -> str:
    """Return ".txt, .jsonl or .parquet"."""
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
