"""Paths as users write them in options and study files: relative, absolute, from ~."""

import re
from pathlib import Path

from gpt.errors import InputError

DEFAULT_STORAGE = "runs/sweep.db"
SOURCES = ("auto", "hub", "built-in")  # texts that have a name; others are a path

# Two letters at least, so that a Windows drive is no URL. Path("a://b") has one slash left.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def read_path(text: str | Path, what: str) -> Path:
    """Return a path with ~ resolved to the home folder.

    Args:
        text: As the user wrote it.
        what: What an error line calls it, such as "--runs".

    Raises:
        InputError: it is a URL, or begins with the home of a user who does not exist.
    """
    if _URL.match(str(text)):
        raise InputError(
            f"{what} must be a path on this machine, but got the URL {str(text)!r}; "
            f"download or mount it first and pass the path."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(
            f"{what} must be a path on this machine, but got {str(text)!r}, the home of an unknown "
            f"user; write ./{text} for a folder of that name."
        ) from None


def read_source(text: str, what: str) -> str:
    """Return where a text comes from: one of SOURCES as it is, anything else read as a path.

    Raises:
        InputError: see `read_path`.
    """
    if text in SOURCES:
        return text
    path = read_path(text, what)
    return str(path) if text.startswith("~") else text  # "./hub" must not become "hub"
