"""Choices that plugins add to LOSSES, OPTIMIZERS and SCHEDULES, and which plugin each is of."""

import traceback
from collections.abc import Callable, MutableMapping
from inspect import signature
from typing import Any, cast

from gpt.config import TrainConfig, choices
from gpt.errors import InputError

Choices = dict[tuple[str, str], Any]  # (field of TrainConfig, name) -> a loss, an optimiser, ...

_owners: dict[tuple[str, str], str] = {}  # (field, name of a choice) -> the plugin that defines it


def choices_of(plugin: str, field: str) -> list[str]:
    """Return the names of a field's choices that a plugin defines.

    Args:
        plugin: An entry point, or the name of a file.
        field: "loss", "optimizer" or "schedule".
    """
    return [name for (of, name), owner in _owners.items() if of == field and owner == plugin]


def plugin_of(field: str, choice: str) -> str | None:
    """Return the entry point or the name of the file that defines a choice; None: it is ours.

    Args:
        field: "loss", "optimizer" or "schedule".
        choice: Its name.
    """
    return _owners.get((field, choice))


def is_registered(plugin: str) -> bool:
    """Return True if a plugin has added something."""
    return plugin in _owners.values()


def register(run: Callable[[], object], plugin: str, what: str, file: str) -> bool:
    """Run a plugin and keep what it adds, if all of that can be; return whether it adds any."""
    before = known_choices()
    try:
        run()
    except (Exception, SystemExit) as error:
        restore(before)
        raise _not_importable(what, error, file) from None
    added = {key: one for key, one in known_choices().items() if one is not before.get(key)}
    restore(before)
    for (field, name), choice in added.items():
        _check_choice(field, name, choice, what)
    restore(before | added)
    _owners.update(dict.fromkeys(added, plugin))
    return bool(added)


def known_choices() -> Choices:
    """Return all choices of all fields."""
    return {(field, name): one for field, known in choices().items() for name, one in known.items()}


def restore(known: Choices) -> None:
    """Let the registries hold these choices alone."""
    for field in choices():
        _registry(field).clear()
    for (field, name), choice in known.items():
        _registry(field)[name] = choice


def _check_choice(field: str, name: str, choice: Any, what: str) -> None:
    registry = _registry(field)
    kind = type(next(iter(registry.values())))
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{what}: a {field} must have a name like my_{field}, but got {name!r}.")
    if name in registry:
        raise InputError(f"{what}: {field} {name!r} exists already; give it another name.")
    if not isinstance(choice, kind):
        raise InputError(f"{what}: {field} {name!r} must be a {kind.__name__}, but is {choice!r}.")
    for option in choice.options:
        if option in TrainConfig.model_fields:
            raise InputError(
                f"{what}: {field} {name!r} must not have an option {option!r}, which is a field of "
                f"the training; give it another name."
            )
        if option in _arguments(field, kind):
            raise InputError(
                f"{what}: {field} {name!r} must not have an option {option!r}, which is an "
                f"argument of every {field}; give it another name."
            )


def _arguments(field: str, kind: type) -> set[str]:
    """Return the names that are taken where a choice is called with its options by name."""
    from gpt.losses.fused_linear import linear_loss  # imports torch

    calls = [kind.__call__, *([linear_loss] if field == "loss" else [])]
    found = [one for call in calls for one in signature(call).parameters.values()]
    return {one.name for one in found if one.kind is not one.VAR_KEYWORD}


def _registry(field: str) -> MutableMapping[str, Any]:
    return cast(MutableMapping[str, Any], choices()[field])


def forget(plugin: str) -> None:
    """Remove the choices of a file that has changed since this process loaded it."""
    for field, name in [key for key, owner in _owners.items() if owner == plugin]:
        del _registry(field)[name]
        del _owners[field, name]


def _not_importable(what: str, error: BaseException, file: str) -> InputError:
    """Return the error of a plugin whose code raised one, with its line where that is known."""
    frames = traceback.extract_tb(error.__traceback__)
    numbers = [frame.lineno for frame in frames if frame.filename == file]
    number = error.lineno if isinstance(error, SyntaxError) else next(reversed(numbers), None)
    at = f"line {number}: " if number else ""
    said = " ".join(str(error).split())
    return InputError(f"{what} must import, but {at}{type(error).__name__}: {said}.")
