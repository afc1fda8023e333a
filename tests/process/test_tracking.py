"""Each tracker with its real library, offline, read back by that library."""

import sys
from pathlib import Path
from typing import Any

import pytest
from invariants import wait_until
from stored_studies import StoredStudy, evaluation

from gpt.errors import InputError
from sweep.callbacks.trackers import make_trackers
from sweep.tuner.callback import Callback, Evaluated, Opened, TrialFinished, TrialStarted

CONFIG = {"n_embd": 64, "data": {"source": "built-in"}}
PARAMS = {"learning_rate": 1e-3, "n_layer": 2, "loss": "squentropy"}


def play(tracker: Callback, stored: StoredStudy) -> None:
    """Two trials at a time; the second is interrupted and continued by another call."""
    with tracker:
        tracker.on(Opened(stored.study, stored.storage))
        tracker.on(TrialStarted(0, "squentropy", PARAMS, 200, CONFIG))
        tracker.on(
            TrialStarted(1, "cross_entropy", PARAMS | {"loss": "cross_entropy"}, 200, CONFIG)
        )
        tracker.on(Evaluated(0, evaluation(100, 90.0)))
        tracker.on(Evaluated(1, evaluation(100, 95.0)))
        tracker.on(Evaluated(0, evaluation(200, 60.0)))
        tracker.on(TrialFinished(0, "squentropy", "complete", 60.0, None))


def play_on(tracker: Callback, stored: StoredStudy) -> None:
    with tracker:
        tracker.on(Opened(stored.study, stored.storage))
        tracker.on(
            TrialStarted(1, "cross_entropy", PARAMS | {"loss": "cross_entropy"}, 200, CONFIG)
        )
        tracker.on(Evaluated(1, evaluation(200, 80.0)))
        tracker.on(TrialFinished(1, "cross_entropy", "pruned", 80.0, "above the median"))


def wandb_records(path: Path) -> list[Any]:
    """What a .wandb file holds: LevelDB's log format, with Protocol Buffers of wandb's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts, records = path.read_bytes(), 7, b"", []  # after the file's header
    while place + 7 <= len(data):
        if place % 32768 > 32768 - 7:  # a block's rest that no header fits into
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


def written_records(path: Path) -> list[Any]:
    """All records of a run that has finished: wandb's own process may still be writing them."""
    wait_until(lambda: any(record.HasField("exit") for record in wandb_records(path)))
    return wandb_records(path)


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    (tmp_path / "study").mkdir()
    return StoredStudy(tmp_path / "study")


def tracked(name: str, stored: StoredStudy, runs: Path) -> None:
    for part in (play, play_on):
        (tracker,) = make_trackers([name], "tiny", runs, pytest.fail)
        part(tracker, stored)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_back_every_evaluation(stored, tmp_path):
    tracked("tensorboard", stored, tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = {}
    for folder in sorted((tmp_path / "tiny" / "tensorboard").iterdir()):
        read = EventAccumulator(str(folder)).Reload()
        curves[folder.name] = [(p.step, round(p.value)) for p in read.Scalars("perplexity")]
        session = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"n_embd" in session
        assert b"data.source" in session
    assert b"above the median" in session  # the reason of the last one
    assert curves == {
        "0000-squentropy": [(100, 90), (200, 60)],
        "0001-cross_entropy": [(100, 95), (200, 80)],
    }


@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_one_run_per_trial_in_a_sqlite_file(stored, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked("mlflow", stored, tmp_path)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = {run.data.tags["trial"]: run for run in client.search_runs([experiment])}
    assert set(runs) == {"0", "1"}
    params = runs["0"].data.params
    assert (params["n_layer"], params["n_embd"], params["data.source"]) == ("2", "64", "built-in")
    assert runs["0"].data.metrics["result"] == 60.0
    tags = runs["1"].data.tags
    assert (tags["outcome"], tags["reason"]) == ("pruned", "above the median")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    history = client.get_metric_history(runs["1"].info.run_id, "perplexity")
    assert [(metric.step, round(metric.value)) for metric in history] == [(100, 95), (200, 80)]


def test_wandb_writes_a_run_per_trial_offline(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracked("wandb", stored, tmp_path)
    found: dict[str, list[int]] = {}
    kept: dict[str, set[str]] = {}
    for path in sorted((tmp_path / "tiny" / "wandb").glob("offline-run-*/*.wandb")):
        records = written_records(path)
        name = next(record.run.display_name for record in records if record.HasField("run"))
        for record in records:
            items = {item.key or item.nested_key[0]: item for item in record.history.item}
            if "perplexity" in items:
                found.setdefault(name, []).append(int(items["_step"].value_json))
            for update in (*record.run.config.update, *record.summary.update):
                kept.setdefault(name, set()).add(update.key or update.nested_key[0])
    assert found == {"trial 0": [100, 200], "trial 1": [100, 200]}
    assert kept["trial 1"] >= {"n_embd", "data", "n_layer", "perplexity", "outcome", "reason"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_without_a_login_or_a_server_is_one_line_before_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # or it stays offline, as another test had it
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=f"--track {name} must start, but .*") as refused:
        make_trackers([name], "tiny", tmp_path, print)
    assert "\n" not in str(refused.value)
