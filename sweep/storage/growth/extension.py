"""Extensions of a study: what it may grow by without losing the trials that it has.

Choices may be added, ranges widened, baselines and plugins added, and what applies to new choices
alone. Then every earlier trial is one that the extended study could have asked for. All else is
another recipe.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import optuna

from gpt.errors import InputError
from sweep.storage.schema import study_attrs
from sweep.study.spec import StudySpec

Table = Mapping[str, Any]  # of a parameter, as in StudySpec.meaning


@dataclass(frozen=True)
class Extension:
    """An entry of the study's attribute "extensions"."""

    study: str  # whose trials were taken over
    keys: list[str]  # of the study file, that differ
    trials: dict[str, int]  # taken over, by arm

    def line(self) -> str:
        """Return it in words."""
        by_arm = ", ".join(f"{arm} {count}" for arm, count in self.trials.items())
        return f"{sum(self.trials.values())} trials taken over ({by_arm or 'none'})"


def extensions(study: optuna.Study) -> list[Extension]:
    """Read the extensions of a study, the oldest first."""
    return [Extension(**one) for one in study_attrs(study).extensions or []]


def extended_keys(old: StudySpec, new: StudySpec) -> list[str]:
    """Return the dotted keys by which a study extends another; empty where they mean the same.

    Args:
        old: As it is stored.
        new: As its file says now.

    Raises:
        InputError: it changes the recipe, or leaves out what earlier trials may have.
    """
    before, after = old.meaning, new.meaning
    grown = list(_grown_search(before["search"], after["search"]))
    known, now = before.get("plugins", {}), after.get("plugins", {})
    tables = ["search", "baselines"]  # whose differences are checked apart
    if all(now.get(plugin) == version for plugin, version in known.items()):
        tables.append("plugins")
        grown += [f"plugins.{plugin}" for plugin in now if plugin not in known]
    for key in new.differences(old.model_dump(mode="json")):
        if key.partition(".")[0] not in tables:
            raise InputError(
                f"an extension must keep the recipe of study {old.name!r}, but {key} differs; "
                f"set it back, or start a new study with --as NEW_NAME."
            )
    return [*grown, *_grown_baselines(before["baselines"], after["baselines"])]


def is_extension(old: StudySpec, new: StudySpec) -> bool:
    """Return True if a study extends another, or means the same."""
    try:
        extended_keys(old, new)
    except InputError:
        return False
    return True


def _grown_search(before: Mapping[str, Table], after: Mapping[str, Table]) -> Iterator[str]:
    for name in before:
        if name not in after:
            raise InputError(_narrows(f"search.{name}", "it is no longer searched"))
    for name, table in after.items():
        if name in before:
            yield from _grown_parameter(name, before, after)
        elif not _applies_to_new_alone(table, before):
            raise InputError(
                f"an extension must keep what earlier trials searched, but search.{name} is new "
                f"to them; give it a when of choices that are new, or start a new study with "
                f"--as NEW_NAME."
            )
        else:
            yield f"search.{name}"


def _grown_parameter(
    name: str, before: Mapping[str, Table], after: Mapping[str, Table]
) -> Iterator[str]:
    key, old, new = f"search.{name}", before[name], after[name]
    if old["log"] != new["log"]:
        raise InputError(_narrows(f"{key}.log", "it differs"))
    if (old["choices"] is None) != (new["choices"] is None) or type(old["low"]) is not type(
        new["low"]
    ):
        raise InputError(_narrows(key, "its kind differs"))
    if old["choices"] is not None:
        for choice in old["choices"]:
            if not _is_among(choice, new["choices"]):
                raise InputError(_narrows(f"{key}.choices", f"{choice!r} is gone"))
        if old["choices"] != new["choices"]:
            yield f"{key}.choices"
    else:
        yield from _grown_range(key, old, new)
    yield from _grown_condition(key, old["when"], new["when"], before)


def _grown_range(key: str, old: Table, new: Table) -> Iterator[str]:
    ends = f"{old['low']} to {old['high']} became {new['low']} to {new['high']}"
    if new["low"] > old["low"]:
        raise InputError(_narrows(f"{key}.low", ends))
    if new["high"] < old["high"]:
        raise InputError(_narrows(f"{key}.high", ends))
    if new["step"] is not None and not _on_the_steps(old, new):
        raise InputError(_narrows(f"{key}.step", f"{old['step']} became {new['step']}"))
    yield from (f"{key}.{end}" for end in ("low", "high", "step") if old[end] != new[end])


def _on_the_steps(old: Table, new: Table) -> bool:
    """Return True if every value of the old range is a value of the new one."""
    if old["step"] is None:
        return False
    step = Decimal(str(new["step"]))
    apart = Decimal(str(old["low"])) - Decimal(str(new["low"]))
    return not apart % step and not Decimal(str(old["step"])) % step


def _grown_condition(
    key: str,
    old: Mapping[str, list[Any]],
    new: Mapping[str, list[Any]],
    before: Mapping[str, Table],
) -> Iterator[str]:
    """Yield the key of a condition that newly holds for new choices; refuse any other change."""
    for other in {**old, **new}:
        gone = [value for value in old.get(other, []) if not _is_among(value, new.get(other, []))]
        added = [value for value in new.get(other, []) if not _is_among(value, old.get(other, []))]
        known = before[other]["choices"] if other in before else None
        if other not in old or gone or any(_is_known(value, known) for value in added):
            raise InputError(_narrows(f"{key}.when.{other}", "earlier trials had it otherwise"))
        if added:
            yield f"{key}.when.{other}"


def _applies_to_new_alone(table: Table, before: Mapping[str, Table]) -> bool:
    """Return True if no earlier trial would have had the parameter."""
    return any(
        other in before and not any(_is_known(value, before[other]["choices"]) for value in values)
        for other, values in table["when"].items()
    )


def _is_known(value: Any, choices: list[Any] | None) -> bool:
    """Return True if earlier trials may have the value; of a range that counts as possible."""
    return choices is None or _is_among(value, choices)


def _is_among(value: Any, values: list[Any]) -> bool:
    return any(value == one and type(value) is type(one) for one in values)


def _grown_baselines(before: list[Table], after: list[Table]) -> Iterator[str]:
    now = {baseline["name"]: baseline["params"] for baseline in after}
    for baseline in before:
        name, params = baseline["name"], baseline["params"]
        if name not in now or any(now[name].get(arm) != one for arm, one in params.items()):
            raise InputError(_narrows(f"baselines.{name}", "it differs"))
    known = {baseline["name"] for baseline in before}
    yield from (f"baselines.{name}" for name in now if name not in known)


def _narrows(key: str, change: str) -> str:
    return (
        f"an extension must keep what earlier trials may have, but {key} does not: {change}; "
        f"set it back, or start a new study with --as NEW_NAME."
    )
