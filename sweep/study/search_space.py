"""One searched parameter: its range or choices, and the condition under which it is searched."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Self

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LARGEST = 1e15  # beyond it, neighbouring integers are the same float and ranges overflow
MAX_LISTED = 100  # integer ranges up to this size are checked in full, longer ones at their ends


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f"must be a number, at most {LARGEST:g} in size, but got {value!r}")
    return value


def _condition(value: Any) -> Any:
    if not isinstance(value, list):
        return _scalar(value)
    if not value:
        raise ValueError("must be a value or a list of them, but got []")
    return [_scalar(one) for one in value]


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | bool | int | float):
        raise ValueError(f"must be text, a number, true or false, but got {value!r}")
    return value if isinstance(value, str | bool) else _number(value)


# With these validators a wrong value gives one clear line, not one per type of the union.
Number = Annotated[int | float, BeforeValidator(_number)]
Scalar = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
Condition = Annotated[Any, BeforeValidator(_condition)]  # a Scalar, or a list of them


class Spec(BaseModel):
    """Part of a study file: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Parameter(Spec):
    """A range (`low`, `high`) or a list of `choices`.

    A range of integers is written with integers only (low = 1, high = 6); any other is of reals.
    """

    low: Number | None = None
    high: Number | None = None  # included
    log: bool = False  # uniform in the logarithm
    step: Number | None = None  # between neighbours; None: 1 for integers, continuous for reals
    choices: list[Scalar] | None = None
    when: dict[str, Condition] = Field(default_factory=dict)  # searched only with these values

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> Self:
        of_ranges = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None}
        given = [key for key, value in of_ranges.items() if value is not None]
        if self.choices is None:
            self._check_range()
        elif given:
            raise ValueError(f"must have choices or a range, but got choices and {given[0]}")
        elif not self.choices:
            raise ValueError("choices must not be empty, but got []")
        elif _repeats(self.choices):
            raise ValueError(f"choices must differ from each other, but got {self.choices}")
        return self

    def _check_range(self) -> None:
        if self.low is None or self.high is None:
            missing = " and ".join(key for key in ("low", "high") if getattr(self, key) is None)
            raise ValueError(f"must have low and high, or choices, but got no {missing}")
        given = f"but got low={self.low} and high={self.high}"
        if self.low >= self.high:
            raise ValueError(f"low must be below high, {given}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log = true, {given}")
        if self.log and self.step is not None:
            raise ValueError(f"must have log or step, but got log = true and step={self.step}")
        if self.step is not None:
            self._check_step(self.low, self.high, self.step)

    def _check_step(self, low: float, high: float, step: float) -> None:
        if step <= 0:
            raise ValueError(f"step must be above 0, but got {step}")
        if isinstance(low, int) and isinstance(high, int) and isinstance(step, float):
            raise ValueError(
                f"step must be an integer between integers, but got {step}; "
                f"for real numbers write low={low}.0"
            )
        # In decimals, as they were written: 0.3 is three steps of 0.1 here, but not in floats.
        if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
            raise ValueError(
                f"high must be low plus a multiple of step, "
                f"but got low={low}, high={high} and step={step}"
            )

    @property
    def is_int(self) -> bool:
        """True for a range of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def applies(self, params: Mapping[str, Any]) -> bool:
        """Return True if this parameter is searched, given the unconditional ones."""
        return all(name in params and params[name] in self.allowed(name) for name in self.when)

    def allowed(self, name: str) -> list[Any]:
        """Return the values of another parameter with which this one is searched."""
        value = self.when[name]
        return value if isinstance(value, list) else [value]

    def contains(self, value: Any) -> bool:
        """Return True if a trial may have this value."""
        if self.choices is not None:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        low, high = self._ends()
        if isinstance(value, bool) or not isinstance(value, int if self.is_int else int | float):
            return False
        if not low <= value <= high:
            return False
        step = self.step or (1 if self.is_int else None)
        if step is None:
            return True
        # with the tolerance of Optuna, which itself draws 0.15000000000000002 in steps of 0.05
        steps: float = (value - low) / step
        return abs(steps - round(steps)) < 1e-8

    def distribution(self) -> BaseDistribution:
        """Return the same space as an Optuna distribution."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        low, high = self._ends()
        if self.is_int:
            return IntDistribution(int(low), int(high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(low, high, log=self.log, step=self.step)

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """Return the value that an Optuna trial suggests."""
        if self.choices is not None:
            return trial.suggest_categorical(name, self.choices)
        low, high = self._ends()
        if self.is_int:
            step = int(self.step or 1)
            return trial.suggest_int(name, int(low), int(high), log=self.log, step=step)
        return trial.suggest_float(name, low, high, log=self.log, step=self.step)

    def at(self, u: float) -> Any:
        """Return the value at position u in [0, 1), shared evenly by values (log: logarithms)."""
        if self.choices is not None:
            return self.choices[int(u * len(self.choices))]
        low, high = self._ends()
        if self.is_int or self.step:
            return self._at_step(u, low, high, self.step or 1)
        value = _between(u, low, high, self.log)
        return min(max(value, float(low)), float(high))  # rounding must not lead out of the range

    def _at_step(self, u: float, low: float, high: float, step: float) -> Any:
        if self.log:  # integers; n has the share [n, n + 1)
            return min(max(int(_between(u, low, high + 1, log=True)), low), high)
        steps = round((high - low) / step) + 1
        value = Decimal(str(low)) + int(u * steps) * Decimal(str(step))
        return int(value) if self.is_int else float(value)

    def values(self) -> list[Any]:
        """Return the values to check before a sweep: all of them, or the ends of a long range."""
        if self.choices is not None:
            return list(self.choices)
        low, high = self._ends()
        if self.is_int and (high - low) // (self.step or 1) < MAX_LISTED:
            return list(range(int(low), int(high) + 1, int(self.step or 1)))
        return [low, high]

    def __str__(self) -> str:
        if self.choices is not None:
            return ", ".join(repr(choice) for choice in self.choices)
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step else "")

    def _ends(self) -> tuple[float, float]:
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


def _repeats(choices: list[Scalar]) -> bool:
    """Return True if two choices are equal (1 and 1.0) or print as the same name (1 and "1")."""
    return min(len(set(choices)), len({str(choice) for choice in choices})) < len(choices)


def _between(u: float, low: float, high: float, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    return low + u * (high - low)
