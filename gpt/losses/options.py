"""Options of a choice: numbers of its own that a loss, an optimiser or a schedule takes.

A field of TrainConfig that names a choice (loss, optimizer, schedule) has a field for its options
beside it (loss_options, optimizer_options, schedule_options).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Option:
    """A number that a choice takes as a keyword argument.

    Attributes:
        default: Used where none is given.
        low: Lower end of the range that a study searches unless its file gives another.
        high: Upper end of that range.
        log: Search uniformly in the logarithm.
        at_least: Smallest valid value.
        below: Every valid value is smaller.
        is_weight: It multiplies all that a loss adds to cross-entropy: `loss_schedule` may take it
            to 0.
    """

    default: float
    low: float
    high: float
    log: bool = False
    at_least: float = 0.0
    below: float = math.inf
    is_weight: bool = False

    def fault(self, value: float) -> str | None:
        """Return the rule that a value breaks, "must be at least 0, but got -1", or None."""
        if not math.isfinite(value) or value < self.at_least:
            return f"must be at least {self.at_least:g}, but got {value}"
        if value >= self.below:
            return f"must be below {self.below:g}, but got {value}"
        return None


class Choice(Protocol):
    """A loss, an optimiser or a schedule, with the options that it takes by name."""

    @property
    def options(self) -> Mapping[str, Option]:
        """Options by name."""

    def checked(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return these options with the defaults of all others; ValueError if one cannot be."""


def check_choice(
    field: str, choices: Mapping[str, Choice], name: str, options: Mapping[str, float]
) -> None:
    """Raise ValueError with one line unless `name` is a choice that takes these options.

    Args:
        field: What is chosen, as TrainConfig names it.
        choices: The registry.
        name: The key that was given.
        options: Options that were given.
    """
    if name not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, but got {name!r}")
    choices[name].checked(options)


def checked_options(
    owner: str, known: Mapping[str, Option], options: Mapping[str, float]
) -> dict[str, float]:
    """Return these options with the defaults of all others.

    Args:
        owner: The name of the choice, for the message.
        known: The options that it takes.
        options: Those that were given.

    Raises:
        ValueError: an option that it does not take, or a value that one may not have.
    """
    for name, value in options.items():
        if name not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"{name} is no option of {owner}, which takes: {takes}")
        if fault := known[name].fault(value):
            raise ValueError(f"{name} {fault}")
    return {name: option.default for name, option in known.items()} | dict(options)
