"""A trial's configuration as a file: TOML or JSON for `squen-sweep train`, Python for nanoGPT.

Add a format by adding one function and one EXPORTERS entry.
"""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from gpt.config import TrainConfig
from gpt.errors import InputError
from sweep.export.nanogpt import to_nanogpt
from sweep.export.trial import Origin
from sweep.study.format import write_toml


def export_format(path: Path | None, name: str | None) -> str:
    """Return the name of a format: the given one, else the one of the suffix, else "toml".

    Raises:
        InputError: no format has this name or suffix, or the suffix is another format's.
    """
    formats = (*EXPORTERS, *OF_WEIGHTS)
    known = ", ".join(formats)
    if name is not None:
        if name not in formats:
            raise InputError(f"--format must be one of {known}, but got {name!r}.")
        if path is not None and SUFFIXES.get(path.suffix, name) != name:
            suffix = suffix_of(name) or "no suffix of a file"
            raise InputError(
                f"{path} must end in {suffix} for --format {name}, but {path.suffix} "
                f"means {SUFFIXES[path.suffix]}; leave one of the two out."
            )
        return name
    if path is None:
        return "toml"
    if path.suffix not in SUFFIXES:
        suffixes = ", ".join(SUFFIXES)
        raise InputError(f"{path} must end in one of {suffixes}, or name a --format: {known}.")
    return SUFFIXES[path.suffix]


def suffix_of(name: str) -> str:
    """Return the suffix of a format's files; empty for a folder."""
    return next((suffix for suffix, known in SUFFIXES.items() if known == name), "")


def is_export(path: Path) -> bool:
    """Return True if a file is one that `export` wrote, or empty: replacing it loses nothing.

    A run directory's config.json is a trial's own and none of ours to replace.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if not text or re.match(r"# Study .+, trial \d+ \(", text):
        return True
    try:
        TrainConfig.model_validate_json(text)
    except ValidationError:
        return False
    return not (path.parent / "events.jsonl").exists()


def to_toml(config: TrainConfig, origin: Origin, file: str) -> str:
    """Return TOML that `squen-sweep train` runs as it is; keys without a value are left out."""
    train = f"squen-sweep train {shlex.quote(file)}"
    header = (
        f"# {origin.line()}\n"
        f"# The same run again:  {train}\n"
        f"# A longer one:        {train} --steps {4 * config.max_steps}\n\n"
    )
    values = config.model_dump(mode="json")
    if not config.plugins:
        del values["plugins"]
    return header + write_toml(values)


def to_json(config: TrainConfig, origin: Origin, file: str) -> str:
    """Return JSON that `squen-sweep train` runs as it is: the text of a run's config.json."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


EXPORTERS: dict[str, Callable[[TrainConfig, Origin, str], str]] = {
    "toml": to_toml,
    "json": to_json,
    "nanogpt": to_nanogpt,
}

OF_WEIGHTS = ("huggingface", "nanogpt-checkpoint")  # a folder; a file
# A file's suffix, and the format that it means.
SUFFIXES = {".toml": "toml", ".json": "json", ".py": "nanogpt", ".pt": "nanogpt-checkpoint"}
