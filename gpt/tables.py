"""The column text of a table of any kind that `datasets` reads, a batch of rows at a time.

Knows nothing of where the table lies: that is said by gpt.text_files and gpt.hub.
"""

import logging
from collections.abc import Iterator
from typing import Any

from gpt.errors import InputError

ROWS_AT_ONCE = 1_000


def texts(name: str, source: str, **options: Any) -> Iterator[str]:
    """The texts of a table, as they are read; a row without text is left out.

    Args:
        name: Of the table, for messages.
        source: What datasets.load_dataset() takes first: a builder or a data set of the hub.
        options: What else it takes.

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
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _strings(values: list[Any], name: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif value is not None:
            raise InputError(f"{name} must hold strings in its column text, but got {value!r:.60}.")
