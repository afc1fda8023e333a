import json
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

import optuna
import pandas as pd
import pytest
from stored_studies import BUILT_IN, STUDY, StoredStudy, evaluation
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from sweep.analysis.study_reader import read
from sweep.dashboard.artifacts import curve_svg
from sweep.dashboard.notes import DashboardFeed, figures, publish, study_note, trial_note
from sweep.dashboard.server import make_server
from sweep.storage.rdb import load_study, open_storage
from sweep.verdict.record import keep

NO_ARMS = STUDY.replace('compare = "loss"', "").partition("[search.square_weight]")[0]

FIGURES = [
    "curves-by-arm",
    "best-so-far-by-arm",
    "expected-best-by-arm",
    "learning-rate-by-arm",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After a sweep of four trials that was shown to the dashboard."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        spec = tiny_study(folder, write_stories(folder / "text"))
        run_tiny(spec, folder, trials=4, callback=DashboardFeed())
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[WSGIServer]:
    with make_server(open_storage(str(folder / "sweep.db")), port=0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: WSGIServer, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200
    body = response.read()
    connection.close()
    return body


def detail(server: WSGIServer) -> dict[str, Any]:
    return json.loads(get(server, "/api/studies/1"))


def test_dashboard_shows_the_question_the_answer_and_the_best_of_each_arm(server):
    note = detail(server)["note"]["body"]
    assert "## Does it run?" in note
    assert "Not confirmed yet" in note
    assert "4 of 4 trials finished: 4 complete." in note
    assert "| cross\\_entropy |" in note
    assert "| squentropy |" in note


def test_dashboard_holds_our_figures_under_fixed_ids(server):
    shown = detail(server)["plotly_graph_objects"]
    assert sorted(plot["id"] for plot in shown) == sorted(FIGURES)
    drawn = json.loads(shown[0]["graph_object"])
    assert {trace["type"] for trace in drawn["data"]} == {"scatter"}


def test_dashboard_has_a_note_with_a_story_for_each_trial(server):
    for trial in detail(server)["trials"]:
        assert "| learning_rate |" in trial["note"]["body"]
        assert "> Once upon a time" in trial["note"]["body"]


def test_dashboard_serves_the_files_of_a_trial(server, folder):
    trial = detail(server)["trials"][0]
    files = {artifact["filename"]: artifact for artifact in trial["artifacts"]}
    assert set(files) == {"curve.csv", "curve.svg", "samples.jsonl"}
    assert files["curve.svg"]["mimetype"] == "image/svg+xml"
    where = f"/artifacts/1/{trial['trial_id']}"
    curve = get(server, f"{where}/{files['curve.csv']['artifact_id']}").decode().splitlines()
    assert curve[0].startswith("step,tokens,train_loss,perplexity")
    assert [line.split(",")[0] for line in curve[1:]] == ["4", "8", "12"]
    sample = json.loads(get(server, f"{where}/{files['samples.jsonl']['artifact_id']}"))
    assert sample["text"].startswith(sample["prompt"])


def test_publishing_again_replaces_notes_and_figures(folder, server):
    storage = open_storage(str(folder / "sweep.db"))
    before = detail(server)
    publish(load_study(storage, "tiny"), storage)
    after = detail(server)
    assert after["note"]["version"] == before["note"]["version"] + 1
    assert len(after["plotly_graph_objects"]) == len(FIGURES)


def test_figures_of_a_thousand_trials_are_together_under_200_kilobytes(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0])
    small = read(stored.storage, stored.study)
    trials = pd.concat([small.trials] * 1000, ignore_index=True)
    trials["number"] = range(1000)
    trials["arm"] = [("cross_entropy", "squentropy")[i % 2] for i in range(1000)]
    trials["perplexity"] = [40.0 + 1000 / (1 + i) for i in range(1000)]  # each is the best so far
    steps = pd.concat([small.evaluations] * 100, ignore_index=True)
    steps["step"] = range(100, 10_100, 100)
    evaluations = pd.concat([steps] * 1000, ignore_index=True)
    evaluations["trial_number"] = [i // 100 for i in range(100_000)]
    confirm_runs = pd.DataFrame(
        {"phase": "confirm", "number": i, "of_trial": 1, "outcome": "complete"}
        | {
            "arm": ("cross_entropy", "squentropy")[i % 2],
            "seed": 2000 + i // 2,
            "perplexity": 50 + i,
        }
        for i in range(1800)  # the most that a verdict takes
    )
    many = replace(small, trials=trials, evaluations=evaluations, confirm_runs=confirm_runs)
    drawn = figures(many)
    assert list(drawn) == [*FIGURES, "confirm-runs"]
    assert {trace.type for figure in drawn.values() for trace in figure.data} == {"scatter"}
    assert sum(len(figure.to_json()) for figure in drawn.values()) < 200_000


def test_the_study_note_warns_of_text_that_is_not_tinystories(tmp_path):
    stored = StoredStudy(tmp_path, **BUILT_IN)
    note = study_note(read(stored.storage, stored.study))
    assert "> NOT TinyStories" in note
    assert "0 of 40 trials finished: none yet." in note
    assert "Which loss is \\<b\\>better" in note  # markup is shown as text


def test_the_study_note_leads_with_the_verdict_once_there_is_one(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0])
    assert "Not confirmed yet" in study_note(read(stored.storage, stored.study))
    answer = "squentropy is worse: it was measured. With 5 seeds."
    keep(stored.study, {"answer": answer, "headline": ["squentropy is worse: it was measured."]})
    note = study_note(read(stored.storage, stored.study))
    assert note.splitlines()[2:5] == [
        "**squentropy is worse: it was measured.**",
        "",
        "With 5 seeds.",
    ]
    assert "Not confirmed yet" not in note
    assert "squen-sweep verdict" not in note


def test_a_study_that_compares_nothing_has_a_note_without_a_verdict_or_a_comparison(tmp_path):
    stored = StoredStudy(tmp_path, NO_ARMS)
    stored.add("all", [60.0])
    note = study_note(read(stored.storage, stored.study))
    assert "The best trial reached a validation perplexity of 60.00." in note
    assert "verdict" not in note
    assert "side by side" not in note


def test_the_note_of_a_pruned_trial_says_why_and_tells_no_story(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("squentropy", [90.0], outcome="pruned")
    note = trial_note(stored.study.trials[0], "pruned", 90.0, evaluation(100, 90.0), None)
    assert note.startswith("**squentropy**, pruned: perplexity 90.00\n\nit pruned\n")
    assert "| bits_per_byte | 1.623 |" in note
    assert "A story:" not in note


def test_updates_begin_when_trials_train_and_keep_their_distance(tmp_path):
    stored = StoredStudy(tmp_path)
    now = [0.0]
    feed = DashboardFeed(clock=lambda: now[0])

    def version() -> int:
        return stored.storage.get_study_system_attrs(1).get("dashboard:note_ver", 0)

    versions = []
    with feed:
        feed.opened(stored.study, stored.storage)
        for moment in (0.0, 9.0, 11.0, 20.0, 22.0):  # ten seconds apart at least
            now[0] = moment
            feed.counts(1, 40, {})
            versions.append(version())
        feed.counts(2, 40, {})
    assert versions == [0, 0, 1, 1, 2]
    assert version() == 3  # the end of the sweep catches up


def test_what_cannot_be_shown_is_said_and_stops_nothing(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("squentropy", [90.0], outcome="running", run_dir=str(tmp_path / "gone"))
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    (tmp_path / "gone").mkdir()
    said: list[str] = []
    feed = DashboardFeed(said.append)
    feed.opened(stored.study, stored.storage)
    trial = optuna.trial.Trial(stored.study, 1)
    feed.trial_ending(trial, "pruned", 90.0)
    assert len(said) == 1
    assert "the dashboard lacks news of trial 0: FileExistsError" in said[0]


def test_curve_svg_draws_every_point_from_the_highest_to_the_lowest():
    svg = curve_svg([(0, 100.0), (50, 60.0), (100, 20.0)])
    assert 'points="48.0,48.0 240.0,130.0 432.0,212.0"' in svg
    assert ">100</text>" in svg
    assert ">20</text>" in svg
