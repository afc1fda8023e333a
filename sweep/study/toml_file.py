"""Study files: find one, read its TOML, lay a device's budget over it, check it."""

import os
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import studies
from gpt.config import DataConfig, explain
from gpt.errors import InputError
from sweep.study.external.plugins import read_plugins, with_installed_plugins
from sweep.study.paths import SOURCES, read_path
from sweep.study.program import MetricSpec, TrainerSpec
from sweep.study.search_space import Parameter
from sweep.study.spec import (
    BackendSpec,
    Baseline,
    PrunerSpec,
    ResourcesSpec,
    SamplerSpec,
    SlurmSpec,
    StudySpec,
    VerdictSpec,
    word,
)
from sweep.study.suggest import nearest, unknown
from sweep.study.validation import check_study_name, validate

DEVICES = ("cpu", "cuda")
BUDGET_TABLES = (
    *("trainer", "data", "train", "search", "baselines", "sampler", "pruner", "verdict"),
    "background",
)

TomlTable = dict[str, Any]


def shipped_files() -> dict[str, Path]:
    """Return the study files of the package by name."""
    folder = Path(str(studies.__file__)).parent
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_study_file(study: str) -> Path:
    """Return the file of a shipped study, or of the path that was given.

    Raises:
        InputError: there is neither; the message lists the shipped studies and the nearest.
    """
    shipped = shipped_files()
    if study in shipped:
        return shipped[study]
    path = read_path(study, "--study")
    if path.is_file():
        return path
    if study.endswith(".toml") or os.sep in study:
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(f"{study}: must be a study file, but {what}.")
    raise InputError(
        f"study must be one of {', '.join(shipped)} or the path of a .toml file, "
        f"but got {study!r}{nearest(study, shipped)}."
    )


def read_tables(path: Path) -> TomlTable:
    """Read the tables of a TOML file.

    Raises:
        InputError: it is unreadable, or no TOML; the message says where.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: must be readable, but {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be TOML in UTF-8, but {error.reason}.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(one_line(f"{path.name}: must be TOML, but is not: {error}.")) from None


def budget_of(tables: TomlTable, device: str) -> TomlTable:
    """Return the tables of [budget.<device>]; empty without one.

    Raises:
        ValueError: a budget is no table, for no known device, or holds an unknown table.
    """
    budgets = tables.get("budget", {})
    _require_table("budget", budgets)
    require_known("budget", budgets, DEVICES)
    budget = budgets.get(device, {})
    _require_table(f"budget.{device}", budget)
    require_known(f"budget.{device}", budget, BUDGET_TABLES)
    return dict(budget)


def merged(base: TomlTable, over: TomlTable) -> TomlTable:
    """Return `base` with `over` laid over it: tables merge by key, other values are replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def written_at(key: str, budget: TomlTable, device: str) -> str:
    """Return the dotted key under which a merged value stands in the file."""
    table: Any = budget
    for part in key.split("."):
        table = _child(table, part)
    return key if table is None else f"budget.{device}.{key}"


def _child(table: Any, part: str) -> Any:
    if isinstance(table, dict):
        return table.get(part)
    if isinstance(table, list):  # [[baselines]]: by index or by name
        named = [item for item in table if isinstance(item, dict) and item.get("name") == part]
        by_index = table[int(part) : int(part) + 1] if part.isdecimal() else []
        return next(iter(named + by_index), None)
    return None


def require_known(table: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for the first key that is not known, with the nearest one that is."""
    known = list(known)
    for key in keys:
        if key not in known:
            raise ValueError(f"{table}.{key}: {unknown(key, known)}")


def one_line(text: str) -> str:
    """Return a message on one line, whatever keys and values it quotes."""
    return "\\n".join(text.splitlines())


def _require_table(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must be a table, but got {value!r}")


def read_study_file(study: str, device: str) -> StudySpec:
    """Read and check a study file.

    Args:
        study: The name of a shipped study, or the path of a .toml file.
        device: "cpu" or "cuda"; a budget for another device is checked as well, but not used.

    Raises:
        InputError: there is no such study, or one line that names the file, the key, what must hold
            and what came instead.
    """
    path = find_study_file(study)
    tables = read_tables(path)
    if "vocab_size" in tables:
        raise InputError(
            f"{path.name}: must be a study, but it is the configuration of one run; "
            f"`squen-sweep train {shlex.quote(str(path))}` trains it."
        )
    try:
        tables = tables | {"plugins": read_plugins(tables.get("plugins", []), path.parent)}
        budgets = {key: budget_of(tables, key) for key in DEVICES}
        specs = {
            key: _resolve(tables, budget, key, path.parent)
            for key, budget in budgets.items()
            if budget or key == device
        }
    except ValueError as error:
        raise InputError(one_line(f"{path.name}: {error}.")) from None
    spec = specs[device]
    return with_installed_plugins(spec) if spec.trainer is None else spec


def read_resources(study: str) -> ResourcesSpec:
    """Read [resources] of a study file, on which the kind of device depends.

    Returns:
        The defaults where something is wrong with the table, which read_study_file then says.
    """
    with suppress(ValidationError):
        return ResourcesSpec.model_validate(
            read_tables(find_study_file(study)).get("resources", {})
        )
    return ResourcesSpec()


def sbatch_of(study: str) -> list[str]:
    """Return the arguments of sbatch in a study file, before it is read for a kind of device.

    They say whether a job has a GPU. A file at fault has none here: `read_study_file` says why.
    """
    with suppress(InputError, ValidationError):
        tables = read_tables(find_study_file(study))
        return BackendSpec.model_validate(tables.get("backend", {})).slurm.sbatch
    return []


def renamed(spec: StudySpec, name: str) -> StudySpec:
    """Return the study under another name.

    Raises:
        InputError: no study may have this name.
    """
    try:
        check_study_name(word(name))
    except ValueError as error:
        raise InputError(f"--as {error}.") from None
    return spec.model_copy(update={"name": name})


def _resolve(tables: TomlTable, budget: TomlTable, device: str, folder: Path) -> StudySpec:
    """Return the study on one device; ValueErrors are "key: what must hold, but got what"."""
    base = {key: value for key, value in tables.items() if key != "budget"}
    try:
        both = _with_source(merged(base, budget), folder)
        spec = StudySpec.model_validate(_with_program_files(both, folder))
        validate(spec)
    except ValueError as error:
        fault = _explain(error) if isinstance(error, ValidationError) else str(error)
        key, colon, rest = fault.partition(": ")
        raise ValueError(written_at(key, budget, device) + colon + rest) from None
    return spec


def _with_source(tables: TomlTable, folder: Path) -> TomlTable:
    """Return the tables with a text that is beside the study file alone as seen from here."""
    data = tables.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(source, str) and source not in SOURCES:
        with suppress(OSError):  # of what can be no path: whoever reads it says so
            if not Path(source).exists() and (folder / source).exists():
                return tables | {"data": {**data, "source": str(folder / source)}}
    return tables


def _with_program_files(tables: TomlTable, folder: Path) -> TomlTable:
    """Return the tables with [trainer]'s folder as seen from here, and its template's text.

    Args:
        tables: Of the study file.
        folder: Which holds it: paths in [trainer] are relative to it.
    """
    trainer = tables.get("trainer")
    if not isinstance(trainer, dict):
        return tables
    trainer = {"folder": ".", **trainer}
    if "template_text" in trainer:
        raise ValueError("trainer.template_text: is read from trainer.template; name that file")
    if isinstance(trainer["folder"], str):
        own = read_path(trainer["folder"], "trainer.folder")
        trainer["folder"] = str(folder / own)
    if isinstance(template := trainer.get("template"), str):
        try:
            trainer["template_text"] = (folder / template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ValueError(
                f"trainer.template: must be a file beside the study file, but {template}: {reason}"
            ) from None
    return tables | {"trainer": trainer}


def _explain(error: ValidationError) -> str:
    """Return gpt.config.explain's line, with the nearest key for an unknown one."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{key}: must be given"
    if first["type"] != "extra_forbidden":
        return explain(error).rstrip(".")
    *tables, name = (str(part) for part in first["loc"])
    table = next(key for key in (".".join(tables), *tables[:1], "") if key in _KEYS)
    known = [*_KEYS[table].model_fields, *([] if tables else ["budget"])]
    return f"{key}: {unknown(name, known)}"


_KEYS: dict[str, type[BaseModel]] = {
    "": StudySpec,
    "search": Parameter,
    "baselines": Baseline,
    "sampler": SamplerSpec,
    "pruner": PrunerSpec,
    "verdict": VerdictSpec,
    "resources": ResourcesSpec,
    "backend": BackendSpec,
    "backend.slurm": SlurmSpec,
    "data": DataConfig,
    "trainer": TrainerSpec,
    "trainer.metric": MetricSpec,
}
