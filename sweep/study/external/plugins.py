"""Plugins of a study: those that its file lists, and installed packages that it uses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt.config import choices
from sweep.study.paths import read_path
from sweep.study.spec import StudySpec

KEY = "plugins"


def read_plugins(listed: Any, folder: Path) -> dict[str, str]:
    """Load the plugins that a study file lists, and those that are installed.

    Args:
        listed: Paths of files; or a table of paths and the SHA-256 that each must have, as a
            report's copy of the study file has it.
        folder: That paths are relative to.

    Returns:
        The absolute path of each listed file, and its SHA-256.

    Raises:
        ValueError: it is no such list.
        InputError: see gpt.plugins.load.load_plugins.
    """
    from gpt.plugins.load import file_sha256, is_file, load_file, load_installed  # imports torch

    load_installed()
    paths = list(listed) if isinstance(listed, list | dict) else None
    if paths is None or not all(isinstance(one, str) for one in paths):
        raise ValueError(
            f'{KEY}: must be a list of files, such as ["my_losses.py"], but got {listed!r}'
        )
    found: dict[str, str] = {}
    for one in paths:
        if not is_file(one):
            if isinstance(listed, dict):  # an installed one, which the study uses or not
                continue
            raise ValueError(f"{KEY}: must name files that end in .py, but got {one!r}")
        path = (folder / read_path(one, KEY)).resolve()
        if path.name in {Path(other).name for other in found}:
            raise ValueError(
                f"{KEY}: must have files of different names, but got {path.name} twice"
            )
        load_file(path, listed[one] if isinstance(listed, dict) else None)
        found[str(path)] = file_sha256(path)
    return found


def with_installed_plugins(spec: StudySpec) -> StudySpec:
    """Return the study with the installed plugins whose choices it names, pinned by version."""
    from gpt.plugins.load import installed_version, is_file
    from gpt.plugins.registry import plugin_of

    named = [
        (field, str(name))
        for field in choices()
        for name in (spec.search[field].values() if field in spec.search else [spec.base(field)])
    ]
    plugins = {plugin for key in named if (plugin := plugin_of(*key)) and not is_file(plugin)}
    used = {plugin: installed_version(plugin) for plugin in sorted(plugins)}
    return spec.model_copy(update={KEY: spec.plugins | used}) if used else spec


def load_spec_plugins(spec: StudySpec) -> None:
    """Load the plugins of a study whose paths are absolute.

    Raises:
        InputError: see gpt.plugins.load.load_plugins.
    """
    if spec.plugins:
        from gpt.plugins.load import load_plugins

        load_plugins(spec.plugins, Path())


def check_plugin(path: Path, show: Callable[[str], None]) -> int:
    """Run the tests of losses on those of a plugin's file, and return how many failed.

    Args:
        path: Of the file.
        show: Called with a line per test.

    Raises:
        InputError: see gpt.plugins.load.load_file.
    """
    from gpt.losses.check import check_losses
    from gpt.plugins.load import load_file
    from gpt.plugins.registry import choices_of

    load_file(path)
    failed = 0
    for loss, one in check_losses(choices_of(path.name, "loss")):
        failed += one.fault is not None
        show(f"loss {loss}: {one.name}: {one.fault or 'passed'}")
    for field in choices():
        if field != "loss":
            for name in choices_of(path.name, field):
                show(f"{field} {name}: can be named; trials show whether it trains")
    return failed
