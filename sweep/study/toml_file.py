"""A study file as plain tables: find it, read it, lay a device's budget over it."""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import studies
from gpt.errors import InputError

DEVICES = ("cpu", "cuda")
BUDGET_TABLES = ("data", "train", "search", "baselines", "sampler", "pruner", "verdict")

FEW = 8  # names that a message may list besides the nearest

Table = dict[str, Any]


def shipped_files() -> dict[str, Path]:
    """The study files of the package by name."""
    folder = Path(str(studies.__file__)).parent
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(study: str) -> Path:
    """The file of a shipped study, or the path that was given.

    Raises:
        InputError: neither; the message lists the shipped studies and names the nearest.
    """
    shipped = shipped_files()
    if study in shipped:
        return shipped[study]
    path = Path(study)
    if path.is_file():
        return path
    if study.endswith(".toml") or os.sep in study:
        raise InputError(f"{study}: must be a study file, but there is no such file.")
    raise InputError(
        f"study must be one of {', '.join(shipped)} or the path of a .toml file, "
        f"but got {study!r}{nearest(study, shipped)}."
    )


def read(path: Path) -> Table:
    """The tables of a TOML file.

    Raises:
        InputError: unreadable, or no TOML; the message says where.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: must be readable, but {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be TOML in UTF-8, but {error.reason}.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(one_line(f"{path.name}: must be TOML, but is not: {error}.")) from None


def budget_of(tables: Table, device: str) -> Table:
    """What [budget.<device>] holds; empty without one.

    Raises:
        ValueError: a budget is no table, for no known device, or holds what is no device's matter.
    """
    budgets = tables.get("budget", {})
    _require_table("budget", budgets)
    require_known("budget", budgets, DEVICES)
    budget = budgets.get(device, {})
    _require_table(f"budget.{device}", budget)
    require_known(f"budget.{device}", budget, BUDGET_TABLES)
    return dict(budget)


def merged(base: Table, over: Table) -> Table:
    """`base` with `over` laid over it: tables merge key by key, lists and values are replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def written_at(key: str, budget: Table, device: str) -> str:
    """The dotted key where a merged value stands in the file: in the device's budget, or not."""
    place: Any = budget
    for part in key.split("."):
        place = _child(place, part)
    return key if place is None else f"budget.{device}.{key}"


def _child(place: Any, part: str) -> Any:
    if isinstance(place, dict):
        return place.get(part)
    if isinstance(place, list):  # [[baselines]]: by index or by name
        named = [item for item in place if isinstance(item, dict) and item.get("name") == part]
        by_index = place[int(part) : int(part) + 1] if part.isdecimal() else []
        return next(iter(named + by_index), None)
    return None


def require_known(table: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for the first key that is not known, with the nearest one that is."""
    known = list(known)
    for key in keys:
        if key not in known:
            raise ValueError(f"{table}.{key}: {unknown(key, known)}")


def unknown(key: str, known: Iterable[str]) -> str:
    """What to say of a key that is not known: the nearest, and all of them where they are few."""
    known = list(known)
    near = nearest(key, known)
    every = f"; known are {', '.join(known)}" if len(known) <= FEW or not near else ""
    return f"is not a known key{near}{every}"


def nearest(name: str, known: Iterable[str]) -> str:
    """What a message says of the nearest known name; empty when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; the nearest is {near[0]!r}" if near else ""


def one_line(text: str) -> str:
    """A message on one line, whatever keys and values it quotes."""
    return "\\n".join(text.splitlines())


def _require_table(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must be a table, but got {value!r}")
