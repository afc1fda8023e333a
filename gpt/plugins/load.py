"""Load plugins from files and installed packages, and carry files into run directories."""

import hashlib
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from gpt.config import TrainConfig
from gpt.errors import InputError
from gpt.plugins.registry import forget, is_registered, register

GROUP = "squen_sweep.plugins"

# A file's path, or the name of an entry point, and its SHA-256 or its package's version.
Plugins = Mapping[str, str]

_loaded: dict[str, str] = {}  # name of a file -> SHA-256 of what this process has loaded


def is_file(plugin: str) -> bool:
    """Return True for the path of a file, False for the name of an entry point."""
    return plugin.endswith(".py")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a plugin's file, in hex.

    Raises:
        InputError: it cannot be read.
    """
    return hashlib.sha256(_content(path)).hexdigest()


def load_plugins(plugins: Plugins, folder: Path) -> None:
    """Add the choices of plugins to ours; one that this process has loaded is left as it is.

    Args:
        plugins: See `Plugins`.
        folder: That paths are relative to.

    Raises:
        InputError: one is not there, is not the file that was meant, cannot be imported, defines
            nothing, or defines a name that exists.
    """
    for plugin, version in plugins.items():
        if is_file(plugin):
            load_file(folder / plugin, version)
        else:
            load_installed(plugin)
            if (found := installed_version(plugin)) != version:
                raise InputError(
                    f"plugin {plugin} must be the version that was started with, {version}, but "
                    f"{found} is installed; install that one, or start a new study with --as "
                    f"NEW_NAME."
                )


def load_file(path: Path, sha256: str | None = None) -> None:
    """Add the choices of a file; the same file in another version replaces its own.

    Args:
        path: Of the file.
        sha256: That it must have; None: any.

    Raises:
        InputError: see `load_plugins`.
    """
    content = _content(path)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(
            f"plugin {path} must be the file that was started with (SHA-256 {sha256[:8]}), but it "
            f"has changed ({found[:8]}); bring it back, or start a new study with --as NEW_NAME."
        )
    if _loaded.get(path.name) == found:
        return
    module = ModuleType(f"squen_plugin_{path.stem}_{found[:8]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickles ask for it
    forget(path.name)
    _loaded.pop(path.name, None)

    def run() -> None:
        exec(compile(content, str(path), "exec"), module.__dict__)

    if not register(run, path.name, f"plugin {path}", str(path)):
        raise InputError(
            f"plugin {path} must add to LOSSES, OPTIMIZERS or SCHEDULES, but adds nothing; "
            f'write LOSSES["my_loss"] = Loss(...).'
        )
    _loaded[path.name] = found


@cache
def load_installed(name: str | None = None) -> None:
    """Add the choices of installed packages: of all, or of one entry point.

    Raises:
        InputError: see `load_plugins`.
    """
    found = entry_points(group=GROUP)
    if name is not None and name not in found.names:
        raise InputError(
            f"plugin {name} must be installed, but no package has an entry point {name} in the "
            f"group {GROUP}; install it, or name a file that ends in .py."
        )
    for one in found if name is None else [found[name]]:
        if not is_registered(one.name):
            register(one.load, one.name, f"plugin {one.name}", "")


def installed_version(name: str) -> str:
    """Return the version of the package that has an entry point."""
    distribution = entry_points(group=GROUP)[name].dist
    return distribution.version if distribution is not None else ""


def with_plugins(config: TrainConfig, folder: Path, run_dir: Path) -> TrainConfig:
    """Copy the files of a run's plugins beside its config.json, and return what stands there.

    Args:
        config: With paths relative to `folder`.
        folder: Where they are.
        run_dir: Of the run.
    """
    for plugin, sha256 in config.plugins.items():
        copy = run_dir / Path(plugin).name
        # a copy may be torn: the process was killed, or the disk was full
        if is_file(plugin) and not (copy.exists() and file_sha256(copy) == sha256):
            load_file(folder / plugin, sha256)  # or it has changed
            shutil.copyfile(folder / plugin, copy)
    return in_run_dir(config)


def in_run_dir(config: TrainConfig) -> TrainConfig:
    """Return a configuration as a run directory holds it: its plugins' files lie beside it."""
    beside = {Path(plugin).name: version for plugin, version in config.plugins.items()}
    return config.model_copy(update={"plugins": beside})


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"plugin {path} must be a file to read, but: {error.strerror}.") from None
