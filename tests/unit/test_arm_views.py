import json
from collections.abc import Iterator
from http.client import HTTPConnection
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

import optuna
import pytest
from stored_studies import STUDY, StoredStudy

from sweep.dashboard.arm_views import view_id, with_arm_views
from sweep.dashboard.artifacts import attach
from sweep.dashboard.notes import publish
from sweep.dashboard.server import make_server
from sweep.storage.rdb import open_storage
from sweep.tuner.doctor import examine

NO_ARMS = STUDY.replace('compare = "loss"', "").partition("[search.square_weight]")[0]
FIRST, SECOND = view_id(1, 1), view_id(1, 2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """Trials 0 to 3, of two arms in turn, with a note and a confirm phase of their own."""
    stored = StoredStudy(tmp_path_factory.mktemp("stored"))
    for end in (60.0, 50.0):
        stored.add("cross_entropy", [90.0, end], learning_rate=1e-3)
        stored.add("squentropy", [90.0, end + 5], learning_rate=2e-3)
    confirm = optuna.create_study(storage=stored.storage, study_name="tiny.confirm")
    for key, value in (stored.study.user_attrs | {"of": "tiny"}).items():
        confirm.set_user_attr(key, value)
    publish(stored.study, stored.storage)
    return stored


@pytest.fixture(scope="module")
def server(stored: StoredStudy) -> Iterator[WSGIServer]:
    with make_server(open_storage(str(stored.path)), port=0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: WSGIServer, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text else None


def test_the_dashboard_lists_every_arm_of_a_sweep_beside_the_studies(server):
    listed = ask(server, "/api/studies")[1]["study_summaries"]
    assert [(study["study_id"], study["study_name"]) for study in listed] == [
        (1, "tiny"),
        (2, "tiny.confirm"),  # has no views: it belongs to a sweep
        (FIRST, "tiny: cross_entropy"),
        (SECOND, "tiny: squentropy"),
    ]
    assert {tuple(study["directions"]) for study in listed} == {("minimize",)}  # or none compares


def test_a_view_has_the_trials_of_its_arm_counted_from_zero(server):
    view = ask(server, f"/api/studies/{SECOND}")[1]
    assert [trial["number"] for trial in view["trials"]] == [0, 1]
    assert [trial["values"] for trial in view["trials"]] == [[65.0], [55.0]]
    assert view["best_trials"][0]["values"] == [55.0]
    in_sweep = [
        attribute["value"]
        for trial in view["trials"]
        for attribute in trial["user_attrs"]
        if attribute["key"] == "number_in_sweep"
    ]
    assert in_sweep == ["1", "3"]
    assert "The trials of squentropy in study tiny" in view["note"]["body"]
    assert view["plotly_graph_objects"] == []
    assert view["objective_names"] == ["validation perplexity"]


def test_a_view_is_never_out_of_date(tmp_path):
    stored = StoredStudy(tmp_path)
    views = with_arm_views(stored.storage)
    with pytest.raises(ValueError, match="No trials are completed yet"):
        views.get_best_trial(FIRST)
    stored.add("cross_entropy", [70.0])
    stored.add("squentropy", [60.0])
    assert views.get_best_trial(FIRST).value == 70.0
    stored.add("cross_entropy", [50.0])
    assert views.get_best_trial(FIRST).value == 50.0
    optuna.delete_study(study_name="tiny", storage=stored.storage)
    assert views.get_all_studies() == []
    with pytest.raises(KeyError):
        views.get_study_name_from_id(FIRST)


def test_optuna_itself_reads_the_trials_of_a_view(stored):
    study = optuna.load_study(
        study_name="tiny: cross_entropy", storage=with_arm_views(stored.storage)
    )
    assert [trial.value for trial in study.trials] == [60.0, 50.0]
    assert study.user_attrs == {"arm": "cross_entropy", "study": "tiny"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", f"/api/studies/{FIRST}", None),
        ("POST", f"/api/studies/{FIRST}/rename", {"study_name": "mine"}),
        ("PUT", f"/api/studies/{FIRST}/note", {"body": "a note", "version": 2}),
    ],
)
def test_a_view_cannot_be_changed(stored, server, method, path, body):
    status, answer = ask(server, path, method, body)
    assert status == 403
    assert "change the study itself" in answer["reason"]
    assert len(optuna.get_all_study_names(stored.storage)) == 2


def test_no_other_command_meets_a_view(stored, tmp_path):
    said: list[str] = []
    examine(str(stored.path), tmp_path, said.append)
    studies = [line.split()[1] for line in said if line.startswith("study")]
    assert studies == ["tiny:", "tiny.confirm:"]
    assert optuna.get_all_study_names(stored.storage) == ["tiny", "tiny.confirm"]


def test_a_view_shows_the_files_and_notes_of_its_trials(tmp_path):
    stored = StoredStudy(tmp_path)
    number = stored.add("squentropy", [90.0], outcome="running", run_dir=str(tmp_path))
    trial = optuna.trial.Trial(stored.study, stored.study.trials[number]._trial_id)
    attach(stored.storage, trial, tmp_path, ["Once"], ["Once upon a time"])
    with make_server(stored.storage, port=0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        shown = ask(server, f"/api/studies/{SECOND}")[1]["trials"][0]
        (file,) = shown["artifacts"]
        path = f"/artifacts/{SECOND}/{shown['trial_id']}/{file['artifact_id']}"
        assert ask(server, path) == (200, {"prompt": "Once", "text": "Once upon a time"})
        server.shutdown()
        thread.join()


def test_a_study_that_compares_nothing_has_no_view(tmp_path):
    stored = StoredStudy(tmp_path, NO_ARMS)
    assert len(with_arm_views(stored.storage).get_all_studies()) == 1


def test_a_study_with_the_id_of_a_view_is_the_one_that_is_shown(tmp_path):
    stored = StoredStudy(tmp_path)
    with stored.storage.engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO studies (study_id, study_name) VALUES ({FIRST}, 'ten thousandth')"
        )
    views = with_arm_views(stored.storage)
    assert views.get_study_name_from_id(FIRST) == "ten thousandth"
    assert views.get_study_name_from_id(SECOND) == "tiny: squentropy"


def test_the_compare_page_draws_each_arm_by_its_name(browser, server):
    page = browser.new_page()
    port = server.server_port
    page.goto(f"http://127.0.0.1:{port}/dashboard/compare-studies?ids={FIRST},{SECOND}")
    page.wait_for_function("document.querySelectorAll('.legendtext').length >= 4")
    legend = page.locator(".legendtext").all_text_contents()
    page.close()
    assert "Best Value of tiny: cross_entropy" in legend
    assert "Best Value of tiny: squentropy" in legend
