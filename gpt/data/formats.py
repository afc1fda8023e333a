"""Formats of text files: how the stories of one file are read.

Add a format by adding one reader and one READERS entry, a compression by a DECOMPRESSORS entry.
JSON and CSV are not read through `datasets`, which converts: it writes 5 as a string where other
texts are strings, takes the text "NA" of a CSV for none, and names no line.
"""

import bz2
import csv
import gzip
import io
import json
import logging
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gpt.data.encodings import looks_like
from gpt.data.tokenizer import END_OF_TEXT
from gpt.errors import InputError

DEFAULT_COLUMN = "text"
RECORDS_TO_JUDGE = 100  # the first ones of a file show which columns there are
ROWS_AT_ONCE = 1_000
LARGEST_FIELD = 1 << 30  # characters of a field of a CSV file; Python's own limit is 131,072


class _Record(NamedTuple):
    """A record of a table, and its position in the file."""

    position: str  # "line 60", "record 60"
    value: Any  # a dict of columns, unless the file is wrong
    cure: str  # what leaves this record out


def format_of(file: Path) -> str:
    """Return the suffix that a file is read by, a key of READERS; empty if it cannot be read."""
    suffix, compression = _suffixes(file)
    return suffix if suffix in READERS and (suffix in STREAMS or not compression) else ""


def is_plain(file: Path) -> bool:
    """Return whether a file has a format that every version has read."""
    return file.suffix.lower() in (".txt", ".jsonl", ".parquet")


def known_formats() -> str:
    """Return ".txt, .jsonl, .json, .csv or .parquet"."""
    *first, last = READERS
    return f"{', '.join(first)} or {last}"


def read(file: Path, column: str | None) -> Iterator[str]:
    """Yield the texts of one file; a record without text is left out.

    Args:
        file: format_of(file) is not empty.
        column: The column of the text; None: text, or the only one that holds strings.

    Raises:
        InputError: the file or one record cannot be read; the message names the record.
    """
    try:
        yield from READERS[format_of(file)](file, column)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{file} must be UTF-8 text, but holds a byte 0x{byte:02x}{_conversion(file, error)}."
        ) from None
    except (EOFError, OSError, zlib.error) as error:  # a damaged archive has no strerror
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{file} must be readable, but: {reason}.") from None


def _suffixes(file: Path) -> tuple[str, str]:
    """Return the suffixes of the format and of the compression, in lower case."""
    *_, before, last = ("", "", *(suffix.lower() for suffix in file.suffixes))
    return (before, last) if last in DECOMPRESSORS else (last, "")


# --- plain text -----------------------------------------------------------------------------


def _txt(path: Path, column: str | None) -> Iterator[str]:
    """Yield the pieces between <|endoftext|>.

    Not through datasets: its text loader gives lines, or, with sample_by="document", a complete
    file as one row, 90 times slower than this (12 MB: 2.3 s against 0.03 s).
    """
    rest = ""
    with _opened(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as file:
        # as much again as is held: a long document is copied a few times, not once for each block
        while block := file.read(max(len(rest), 1 << 20)):
            if "\0" in block:
                raise InputError(
                    f"{path} must be UTF-8 text, but holds a zero byte{_conversion(path)}."
                )
            *complete, rest = (rest + block).split(END_OF_TEXT)
            yield from map(_without_mark, complete)
    yield _without_mark(rest)


def _without_mark(piece: str) -> str:
    """Drop a byte-order mark, as where files were joined."""
    return piece.lstrip().removeprefix("\ufeff")


# --- tables ---------------------------------------------------------------------------------


def _json(path: Path, column: str | None) -> Iterator[str]:
    """Yield texts of an array of objects, or of one object a line."""
    with _opened(path) as file:
        start = file.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        records = _array(path, file) if start.startswith(b"[") else _lines(path, file)
        yield from _texts(path, records, column)


def _array(path: Path, file: BinaryIO) -> Iterator[_Record]:
    try:
        values = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise InputError(f"{path} must be a JSON array, but: {first_line(error)}.") from None
    for number, value in enumerate(values, 1):
        yield _Record(f"record {number:,}", value, "set its text to null or remove it")


def _lines(path: Path, file: BinaryIO) -> Iterator[_Record]:
    compressed = bool(_suffixes(path)[1])
    for number, line in enumerate(file, 1):
        cure = (
            "remove it" if compressed else f"sed -i {number}d {shlex.quote(str(path))} removes it"
        )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError as error:
            way = _conversion(path, error) or f"; correct it, or {cure}"
            raise InputError(
                f"{path} must be UTF-8 text, but line {number} holds a byte "
                f"0x{error.object[error.start]:02x}{way}."
            ) from None
        except (ValueError, RecursionError) as error:
            way = _conversion(path) if b"\0" in line else ""
            why = (
                f"{error.msg} at column {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else first_line(error)
            )
            raise InputError(
                f"{path} must be a {_suffixes(path)[0]} file, but line {number} is no JSON "
                f"({why}){way or f'; correct it, or {cure}'}."
            ) from None
        yield _Record(f"line {number}", value, cure)


def _csv(path: Path, column: str | None) -> Iterator[str]:
    """Yield texts of a table whose first line names the columns."""
    csv.field_size_limit(LARGEST_FIELD)
    with (
        _opened(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
    ):
        yield from _texts(path, _rows(path, csv.DictReader(file, strict=True)), column)


def _rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[_Record]:
    try:
        if any("\0" in name for name in reader.fieldnames or ()):
            raise InputError(
                f"{path} must be UTF-8 text, but holds a zero byte{_conversion(path)}."
            )
        for row in reader:
            position = f"line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(
                    f"{path} must have {len(reader.fieldnames or ())} fields in each line, as in "
                    f"the first, but {position} has another number; correct or remove it."
                )
            yield _Record(position, {k: v or None for k, v in row.items()}, "empty or remove it")
    except csv.Error as error:
        raise InputError(
            f"{path} must be a .csv file, but: {error} after line {reader.line_num}; correct or "
            f"remove what is there."
        ) from None


def _texts(path: Path, records: Iterator[_Record], column: str | None) -> Iterator[str]:
    """Yield the column of the text of each record; records without it are left out."""
    first = list(islice(records, RECORDS_TO_JUDGE))
    if not first:
        return
    for record in first:
        _require_object(path, record)
    columns = list(dict.fromkeys(name for record in first for name in record.value))
    strings = [name for name in columns if _holds_strings(r.value.get(name) for r in first)]
    chosen = choose_column(str(path), column, columns, strings)
    for record in chain(first, records):
        _require_object(path, record)
        text = record.value.get(chosen)
        if text is None:
            continue
        if fault := _fault(text):
            raise InputError(
                f"{path} must hold strings in its column {chosen}, but {record.position} {fault}; "
                f"correct it, or {record.cure}."
            )
        yield text


def _require_object(path: Path, record: _Record) -> None:
    if not isinstance(record.value, dict):
        raise InputError(
            f'{path} must hold objects like {{"text": "Once upon a time"}}, but '
            f"{record.position} is {record.value!r:.60}; correct it, or {record.cure}."
        )


def _holds_strings(values: Iterable[Any]) -> bool:
    """Return whether there are values, all are strings, and one at least is no number."""
    known = [value for value in values if value is not None]
    return all(isinstance(value, str) for value in known) and not all(map(_is_number, known))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fault(text: Any) -> str:
    """Say what is wrong with a text; empty if nothing is."""
    if not isinstance(text, str):
        return f"holds {text!r:.60}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half a character, {error.object[error.start]!r}"
    return ""


def choose_column(name: str, asked: str | None, columns: list[str], strings: list[str]) -> str:
    """Choose the column of the text.

    Args:
        name: Name of the table, for messages.
        asked: The column that the user named, if any.
        columns: All columns.
        strings: Those that hold strings.

    Raises:
        InputError: it is not there, or several could be meant.
    """
    there = ", ".join(columns)
    if asked is not None and asked not in columns:
        raise InputError(f"{name} must have a column {asked}, but has: {there}.")
    if asked is not None or DEFAULT_COLUMN in columns:
        return asked or DEFAULT_COLUMN
    if len(strings) == 1:
        return strings[0]
    raise InputError(
        f"{name} must have a column text, or only one that holds strings, but has: {there}; name "
        f"the one to read: --column NAME, or column under [data]."
    )


# --- through datasets -----------------------------------------------------------------------


def _parquet(path: Path, column: str | None) -> Iterator[str]:
    if path.stat().st_size == 0:
        return
    import datasets  # takes a second or more

    quiet()
    try:
        rows = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        yield from column_of(str(path), rows, column)
    except InputError:
        raise
    except Exception as error:  # pyarrow and datasets each raise their own
        raise InputError(f"{path} must be a .parquet file, but: {first_line(error)}") from None


def quiet() -> None:
    """Keep `datasets` from printing."""
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def column_of(name: str, rows: Any, column: str | None) -> Iterator[str]:
    """Yield the texts of a table as they are read; a row without text is left out.

    Args:
        name: Name of the table, for messages.
        rows: A datasets.IterableDataset.
        column: See `read`.

    Raises:
        InputError: there is no such column, or it holds something else.
        Exception: whatever datasets, pyarrow or the network raise; nothing is printed.
    """
    types = _types(rows)
    strings = [key for key, kind in types.items() if kind in ("string", "large_string", "str")]
    chosen = choose_column(name, column, list(types) or [DEFAULT_COLUMN], strings)
    if rows.features is not None and chosen not in strings:
        raise InputError(
            f"{name} must hold strings in its column {chosen}, but it holds {types[chosen]}; "
            f"name another with --column NAME, or convert it."
        )
    selected = rows.select_columns([chosen])
    if chosen in strings and rows.features is not None:
        batches = selected.with_format("arrow").iter(ROWS_AT_ONCE)  # much faster, the type is known
        lists = (batch[chosen].to_pylist() for batch in batches)
    else:
        lists = (batch[chosen] for batch in selected.iter(ROWS_AT_ONCE))
    for number, text in enumerate(chain.from_iterable(lists), 1):
        if text is None:
            continue
        if fault := _fault(text):
            raise InputError(
                f"{name} must hold strings in its column {chosen}, but row {number:,} {fault}; "
                f"correct it, or set it to null to leave it out."
            )
        yield text


def _types(rows: Any) -> dict[str, str]:
    """Return the type of each column; of the first row's values where no schema is known."""
    if rows.features is not None:
        return {
            key: getattr(feature, "dtype", None) or type(feature).__name__
            for key, feature in rows.features.items()
        }
    return {key: type(value).__name__ for row in rows.take(1) for key, value in row.items()}


# --- bytes ----------------------------------------------------------------------------------


def _opened(path: Path) -> Any:
    """Open a file, decompressed, as a buffered binary stream."""
    return DECOMPRESSORS[_suffixes(path)[1]](path)


def _zst(path: Path) -> BinaryIO:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


def _conversion(path: Path, error: UnicodeDecodeError | None = None) -> str:
    """Say which encoding a file looks like, and the command that converts it; may be empty."""
    with _opened(path) as file:
        start = file.read(1 << 16)
    around = error.object[max(error.start - 500, 0) : error.start + 500] if error else b""
    encoding = looks_like(start, around)
    if encoding is None:
        return ""
    suffix = _suffixes(path)[1]
    plain = path.with_suffix("") if suffix else path
    source, target = shlex.quote(str(path)), shlex.quote(str(plain))
    convert = f"iconv -f {encoding} -t UTF-8"
    command = (
        f"{DECOMPRESS[suffix]} {source} | {convert} > {target}"
        if suffix
        else f"{convert} {source} > {target}.utf8 && mv {target}.utf8 {target}"
    )
    return f"; it looks like {encoding}, and this converts it: {command}"


def first_line(error: Exception) -> str:
    """First line of an error's message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


READERS: dict[str, Callable[[Path, str | None], Iterator[str]]] = {
    ".txt": _txt,
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
STREAMS = (".txt", ".jsonl", ".json", ".csv")  # those that may be compressed
DECOMPRESSORS: dict[str, Callable[[Path], Any]] = {
    "": lambda path: path.open("rb"),
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".zst": _zst,
}
DECOMPRESS = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".zst": "zstd -dc"}
