"""Choosing trackers, and what they log."""

import pytest
from stored_studies import evaluation

from gpt.errors import InputError
from sweep.callbacks.metrics import metrics_of
from sweep.callbacks.trackers import TRACKERS, make_trackers


def test_metrics_are_the_fields_of_an_evaluation_without_its_step():
    metrics = metrics_of(evaluation(100, 90.0))
    assert metrics["perplexity"] == 90.0
    assert metrics["tokens"] == 1000.0
    assert "step" not in metrics


def test_an_unknown_tracker_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match="one of tensorboard, wandb, mlflow, but got 'aim'"):
        make_trackers(["aim"], "tiny", tmp_path)


def test_a_tracker_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.callbacks.trackers.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs wandb.*pip install 'squen-sweep\[wandb\]'"):
        make_trackers(["wandb"], "tiny", tmp_path)


def test_trackers_are_those_that_the_help_names():
    assert set(TRACKERS) == {"wandb", "mlflow", "tensorboard"}
