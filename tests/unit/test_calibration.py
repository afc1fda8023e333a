"""Reliability by hand, and a temperature that is known because the truth is."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from gpt.losses.calibration import ONE_IN, Bin, calibration_error, held_back_nats, reliability


def test_bins_have_equal_numbers_of_targets_in_the_order_of_confidence():
    confidence = torch.tensor([0.9, 0.2, 0.4, 0.6])
    correct = torch.tensor([1.0, 0.0, 1.0, 0.0])
    low, high = reliability(confidence, correct, bins=2)
    assert low == Bin(2, pytest.approx(0.3), 0.5)
    assert high == Bin(2, pytest.approx(0.75), 0.5)


def test_calibration_error_weighs_bins_by_their_targets():
    assert calibration_error([Bin(3, 0.5, 0.4), Bin(1, 0.9, 0.5)]) == pytest.approx(0.175)


def test_a_model_that_means_what_it_says_has_no_calibration_error():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(200_000, generator=generator)
    correct = (torch.rand(200_000, generator=generator) < confidence).float()
    assert calibration_error(reliability(confidence, correct)) < 0.005


def world(temperature: float, stories: int) -> tuple[torch.Tensor, ...]:
    """Logits `temperature` times too large for the targets that they go with, by story."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 10, generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return temperature * logits, torch.eye(10), targets, torch.arange(20_000) % stories


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_the_temperature_that_spoiled_the_logits_is_found(temperature: float):
    right, weight, targets, story = world(1.0, stories=50)
    truth = cross_entropy(right, targets).item()
    spoiled, *_ = world(temperature, stories=50)
    assert held_back_nats(spoiled, weight, targets, story) == pytest.approx(truth, abs=1e-3)


def test_each_half_of_the_stories_is_measured_with_the_temperature_of_the_other():
    # even stories need temperature 2, odd ones none: crossed over, each gets the wrong one
    right, weight, targets, story = world(1.0, stories=50)
    mixed = torch.where((story % 2 == 0).unsqueeze(1), 2 * right, right)
    crossed = torch.where((story % 2 == 0).unsqueeze(1), 2 * right, right / 2)
    expected = cross_entropy(crossed, targets).item()
    assert held_back_nats(mixed, weight, targets, story) == pytest.approx(expected, abs=5e-3)


def test_the_fit_is_exact_to_what_can_be_seen():
    right, weight, targets, story = world(3.0, stories=50)
    expected = 0.0
    for here in (0, 1):
        f, y = (x[story % 2 == 1 - here] for x in (right.double(), targets))
        fit = minimize_scalar(lambda a, f=f, y=y: cross_entropy(a * f, y).item(), bracket=(0.1, 1))
        f, y = (x[story % 2 == here] for x in (right.double(), targets))
        expected += cross_entropy(fit.x * f, y, reduction="sum").item()
    found = held_back_nats(right, weight, targets, story)
    assert found == pytest.approx(expected / len(targets), abs=1e-6)


def test_a_single_story_keeps_temperature_1():
    logits, weight, targets, _ = world(3.0, stories=1)
    plain = cross_entropy(logits, targets).item()
    one_story = torch.zeros_like(targets)
    assert held_back_nats(logits, weight, targets, one_story) == pytest.approx(plain, rel=1e-5)


def test_a_model_that_is_always_right_does_not_send_the_fit_away():
    logits, targets = 5 * torch.eye(4), torch.arange(4)
    nats = held_back_nats(logits, torch.eye(4), targets, targets)
    assert 0 <= nats < math.log(4)


def test_a_first_guess_on_targets_that_are_all_wrong_does_not_send_the_fit_away():
    classes = torch.arange(256) % 10
    targets = classes.clone()
    targets[::ONE_IN] = (classes[::ONE_IN] + 1) % 10  # all that the first guess sees
    logits = 0.01 * torch.eye(10)[classes].repeat(2, 1)  # the same in both halves of the stories
    story = torch.arange(2).repeat_interleave(256)

    found = held_back_nats(logits, torch.eye(10), targets.repeat(2), story)

    # 7 of 8 targets are the likeliest class, 1 of 8 is one of the nine others
    expected = -(7 / 8 * math.log(7 / 8) + 1 / 8 * math.log(1 / 8 / 9))
    assert found == pytest.approx(expected, abs=1e-6)
