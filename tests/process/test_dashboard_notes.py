import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from serving import get, serving
from stored_studies import BUILT_IN, STUDY, StoredStudy, evaluation
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from sweep.analysis.study_reader import read_study
from sweep.dashboard.notes import (
    DashboardNotes,
    dashboard_figures,
    publish,
    study_note,
    trial_note,
)
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.tuner.callback import Counts, Opened, TrialEnding
from sweep.verdict.record import keep

NO_ARMS = STUDY.replace('compare = "loss"', "").partition("[search.square_weight]")[0]

FIGURES = [
    "curves-by-arm",
    "tuning-curve-by-arm",
    "learning-rate-by-arm",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After a sweep of four trials that was shown to the dashboard."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        spec = tiny_study(folder, write_stories(folder / "text"))
        run_tiny(spec, folder, trials=4, callback=DashboardNotes())
    return folder


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with serving(folder / "sweep.db") as port:
        yield port


def detail(port: int) -> dict[str, Any]:
    return json.loads(get(port, "/api/studies/1").body)


def test_dashboard_shows_the_question_the_answer_and_the_best_of_each_arm(port):
    note = detail(port)["note"]["body"]
    assert "## Does it run?" in note
    assert "Not confirmed yet" in note
    assert "4 of 4 trials finished: 4 complete." in note
    assert "| cross\\_entropy |" in note
    assert "| squentropy |" in note


def test_dashboard_holds_our_figures_under_fixed_ids(port):
    shown = detail(port)["plotly_graph_objects"]
    assert sorted(plot["id"] for plot in shown) == sorted(FIGURES)
    drawn = json.loads(shown[0]["graph_object"])
    assert {trace["type"] for trace in drawn["data"]} == {"scatter"}


def test_dashboard_has_a_note_with_a_story_for_each_trial(port):
    for trial in detail(port)["trials"]:
        assert "| learning_rate |" in trial["note"]["body"]
        assert "> Once upon a time" in trial["note"]["body"]


def test_publishing_again_replaces_notes_and_figures(folder, port):
    storage = open_storage(str(folder / "sweep.db"))
    before = detail(port)
    publish(load_study(storage, "tiny"), storage)
    after = detail(port)
    assert after["note"]["version"] == before["note"]["version"] + 1
    assert len(after["plotly_graph_objects"]) == len(FIGURES)


def test_figures_of_a_thousand_trials_are_together_under_200_kilobytes(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0])
    small = read_study(stored.storage, stored.study)
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
    drawn = dashboard_figures(many)
    assert list(drawn) == [*FIGURES, "confirm-runs"]
    assert {trace.type for figure in drawn.values() for trace in figure.data} == {"scatter"}
    assert sum(len(figure.to_json()) for figure in drawn.values()) < 200_000


def test_the_study_note_warns_of_text_that_is_not_tinystories(tmp_path):
    stored = StoredStudy(tmp_path, **BUILT_IN)
    note = study_note(read_study(stored.storage, stored.study))
    assert "> NOT TinyStories" in note
    assert "0 of 40 trials finished: none yet." in note
    assert "Which loss is \\<b\\>better" in note  # markup is shown as text


def test_the_study_note_leads_with_the_verdict_once_there_is_one(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0])
    assert "Not confirmed yet" in study_note(read_study(stored.storage, stored.study))
    answer = "squentropy is worse: it was measured. With 5 seeds."
    keep(stored.study, {"answer": answer, "headline": ["squentropy is worse: it was measured."]})
    note = study_note(read_study(stored.storage, stored.study))
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
    note = study_note(read_study(stored.storage, stored.study))
    assert "The best trial reached a validation perplexity of 60.00." in note
    assert "verdict" not in note


def test_the_note_of_a_pruned_trial_says_why_and_has_no_story(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("squentropy", [90.0], outcome="pruned")
    note = trial_note(
        stored.study.trials[0], Path("runs/tiny/0"), "pruned", 90.0, evaluation(100, 90.0), None
    )
    assert note.startswith("**squentropy**, pruned: perplexity 90.00\n\nit pruned\n")
    assert "| bits_per_byte | 1.623 |" in note
    assert "| run directory | `runs/tiny/0` |" in note
    assert "A story:" not in note


def test_updates_begin_when_trials_train_and_keep_their_distance(tmp_path):
    stored = StoredStudy(tmp_path)
    now = [0.0]
    feed = DashboardNotes(clock=lambda: now[0])

    def version() -> int:
        return stored.storage.get_study_system_attrs(1).get("dashboard:note_ver", 0)

    versions = []
    with feed:
        feed.on(Opened(stored.study, stored.storage))
        for moment in (0.0, 9.0, 11.0, 20.0, 22.0):  # ten seconds apart at least
            now[0] = moment
            feed.on(Counts(1, 40, {}))
            versions.append(version())
        feed.on(Counts(2, 40, {}))
    assert versions == [0, 0, 1, 1, 2]
    assert version() == 3  # the end of the sweep catches up


def test_what_cannot_be_shown_is_said_and_stops_nothing(tmp_path):
    stored = StoredStudy(tmp_path)
    said: list[str] = []
    notes = DashboardNotes(said.append, clock=lambda: 0.0)
    notes.on(Opened(stored.study, stored.storage))
    notes.on(TrialEnding(stored.study.ask(), tmp_path, "pruned", 90.0))
    optuna.delete_study(study_name="tiny", storage=stored.storage)  # by somebody, meanwhile
    notes.on(Counts(1, 40, {}))
    assert len(said) == 1
    assert "the dashboard lacks news of trial 0: " in said[0]


def test_the_study_note_says_how_to_read_the_dashboards_own_plots(tmp_path):
    stored = StoredStudy(tmp_path)
    note = study_note(read_study(stored.storage, stored.study))
    assert all(word in note for word in ("Log y scale", "PED-ANOVA", "fANOVA"))
