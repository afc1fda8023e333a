"""Choosing trackers, and what they log."""

import pytest
from stored_studies import evaluation

from gpt.errors import InputError
from sweep.callbacks.metrics import metrics_of
from sweep.callbacks.trackers import TRACKERS, make_trackers
from sweep.tuner.callback import Evaluated, TrialFinished, TrialStarted


def test_metrics_are_the_fields_of_an_evaluation_without_its_step():
    metrics = metrics_of(evaluation(100, 90.0))
    assert metrics["perplexity"] == 90.0
    assert metrics["tokens"] == 1000.0
    assert "step" not in metrics


def test_an_unknown_tracker_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match="one of tensorboard, wandb, mlflow, but got 'aim'"):
        make_trackers(["aim"], "tiny", tmp_path, print)


def test_a_tracker_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.callbacks.trackers.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs wandb.*pip install 'squen-sweep\[wandb\]'"):
        make_trackers(["wandb"], "tiny", tmp_path, print)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_tracker_that_fails_is_left_out_with_one_line_and_the_sweep_goes_on(tmp_path):
    (tmp_path / "tiny").write_text("a file where its folder should be")
    said: list[str] = []
    (tracker,) = make_trackers(["tensorboard"], "tiny", tmp_path, said.append)
    with tracker:
        tracker.on(TrialStarted(0, "all", {}, 200, {}))
        tracker.on(Evaluated(0, evaluation(100, 90.0)))
        tracker.on(TrialFinished(0, "all", "complete", 90.0, None))
    assert len(said) == 1
    assert "tensorboard" in said[0]
    assert "\n" not in said[0]


def test_trackers_are_those_that_the_help_names():
    assert set(TRACKERS) == {"wandb", "mlflow", "tensorboard"}
