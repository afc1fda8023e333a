"""One searched parameter: which files are accepted, and which values come out."""

import math
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweep.study.search_space import Parameter

SPACES = [
    Parameter(low=1e-4, high=1e-2, log=True),
    Parameter(low=0.0, high=0.3),
    Parameter(low=0.0, high=0.3, step=0.1),
    Parameter(low=1, high=6),
    Parameter(low=32, high=128, step=32),
    Parameter(low=1, high=1000, log=True),
    Parameter(choices=["a", 3, 2.5, True]),
    Parameter(choices=["only"]),
]
unit = st.floats(0.0, 1.0, exclude_max=True)


@pytest.mark.parametrize("space", SPACES, ids=str)
@given(u=unit)
def test_every_place_has_a_value_that_the_space_and_optuna_accept(
    space: Parameter, u: float
) -> None:
    value = space.at(u)

    assert space.contains(value)
    optuna.trial.create_trial(
        params={"x": value}, distributions={"x": space.distribution()}, value=0.0
    )


@pytest.mark.parametrize(
    ("space", "u", "expected"),
    [
        (Parameter(low=0.0, high=0.3), 0.5, 0.15),
        (Parameter(low=1e-4, high=1e-2, log=True), 0.5, 1e-3),
        (Parameter(low=1, high=6), 0.0, 1),
        (Parameter(low=1, high=6), 0.99, 6),
        (Parameter(low=32, high=128, step=32), 0.26, 64),
        (Parameter(low=0.0, high=0.3, step=0.1), 0.99, 0.3),
        (Parameter(low=1, high=3, log=True), 0.49, 1),  # [1, 2) has half of [1, 4) in the logarithm
        (Parameter(low=1, high=3, log=True), 0.51, 2),
        (Parameter(choices=["a", "b"]), 0.49, "a"),
        (Parameter(choices=["a", "b"]), 0.5, "b"),
    ],
)
def test_places_map_to_values_worked_out_by_hand(space: Parameter, u: float, expected: Any) -> None:
    value = space.at(u)

    assert type(value) is type(expected)
    assert math.isclose(value, expected) if isinstance(value, float) else value == expected


def test_whole_numbers_have_equal_shares() -> None:
    values = [Parameter(low=1, high=6).at((i + 0.5) / 600) for i in range(600)]

    assert [values.count(n) for n in range(1, 7)] == [100] * 6


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_suggest_asks_optuna_for_the_distribution_of_the_space(space: Parameter) -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()

    value = space.suggest(trial, "x")

    assert space.contains(value)
    assert trial.distributions == {"x": space.distribution()}


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (Parameter(low=1, high=6), 7),
        (Parameter(low=1, high=6), 2.0),
        (Parameter(low=1, high=6), True),
        (Parameter(low=1, high=6), "2"),
        (Parameter(low=32, high=128, step=32), 48),
        (Parameter(low=0.0, high=0.3, step=0.1), 0.25),
        (Parameter(low=0.0, high=0.3), 0.31),
        (Parameter(choices=[1, 2]), True),
        (Parameter(choices=["a"]), "b"),
    ],
)
def test_values_outside_of_a_space_are_not_in_it(space: Parameter, value: Any) -> None:
    assert not space.contains(value)


def test_three_steps_of_a_tenth_reach_three_tenths() -> None:
    assert Parameter(low=0.0, high=0.3, step=0.1).contains(0.3)


def test_every_value_that_optuna_draws_itself_is_in_the_space() -> None:
    space = Parameter(low=0.0, high=0.3, step=0.05)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {space.suggest(study.ask(), "dropout") for _ in range(60)}
    assert 0.05 + 2 * 0.05 in drawn  # which is not 0.15
    assert all(map(space.contains, drawn))


def test_values_of_short_ranges_are_all_listed_and_of_long_ones_their_ends() -> None:
    assert Parameter(low=2, high=8, step=2).values() == [2, 4, 6, 8]
    assert Parameter(low=1, high=10_000).values() == [1, 10_000]
    assert Parameter(low=0.0, high=0.3).values() == [0.0, 0.3]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"low": 2, "high": 1}, "low must be below high, but got low=2 and high=1"),
        ({"low": 2, "high": 2}, "low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "low must be above 0 where log = true"),
        ({"low": -1.0, "high": 1.0, "log": True}, "low must be above 0 where log = true"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "must have log or step"),
        ({"low": 1, "high": 9, "step": 0}, "step must be above 0, but got 0"),
        ({"low": 1, "high": 9, "step": 0.5}, "step must be an integer between integers"),
        ({"low": 1, "high": 4, "step": 2}, "high must be low plus a multiple of step"),
        ({"low": 0.0, "high": 1.0, "step": 0.3}, "high must be low plus a multiple of step"),
        ({"low": 1}, "must have low and high, or choices, but got no high"),
        ({}, "must have low and high, or choices, but got no low and high"),
        ({"choices": [1], "low": 0}, "must have choices or a range, but got choices and low"),
        ({"choices": [1, 2], "log": True}, "must have choices or a range, but got choices and log"),
        ({"choices": []}, "choices must not be empty"),
        ({"choices": [1, 1.0]}, "choices must differ from each other"),
        ({"choices": [1, "1"]}, "choices must differ from each other"),
        ({"low": float("nan"), "high": 1.0}, "must be a number, at most 1e+15 in size"),
        ({"low": 0, "high": 10**16}, "must be a number, at most 1e+15 in size"),
        ({"choices": [None]}, "must be text, a number, true or false, but got None"),
    ],
)
def test_impossible_spaces_are_refused_with_what_must_hold(
    keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as error:
        Parameter(**keys)

    assert message in str(error.value)
