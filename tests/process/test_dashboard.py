import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from threading import Thread
from wsgiref.simple_server import WSGIServer

import optuna
import pytest
from stored_studies import StoredStudy

from gpt.errors import InputError
from sweep.dashboard.server import address, make_server, serve
from sweep.storage.rdb import open_storage


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return StoredStudy(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def server(stored: StoredStudy) -> Iterator[WSGIServer]:
    """A server of the stored study, from a storage of its own, on a free port."""
    with make_server(open_storage(str(stored.path)), port=0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: WSGIServer, path: str, host: str | None = None) -> HTTPResponse:
    return ask(server, "GET", path, {"Host": host} if host else {})


def ask(
    server: WSGIServer, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    response.body = response.read()
    connection.close()
    return response


def test_dashboard_shows_the_stored_study(server):
    assert get(server, "/dashboard").status == 200
    studies = json.loads(get(server, "/api/studies").body)["study_summaries"]
    names = [study["study_name"] for study in studies]
    assert names == ["tiny", "tiny: cross_entropy", "tiny: squentropy"]


def test_dashboard_shows_trials_that_are_written_while_it_serves(stored, server):
    path = f"/api/studies/{stored.study._study_id}"
    assert json.loads(get(server, path).body)["trials"] == []
    stored.add("cross_entropy", [60.0])
    until = time.monotonic() + 20  # the dashboard reads the trials again after two seconds
    while not (trials := json.loads(get(server, path).body)["trials"]):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert trials[0]["values"] == [60.0]


def test_dashboard_answers_one_request_while_another_is_open(server):
    with socket.create_connection(("127.0.0.1", server.server_port)):  # says nothing
        assert get(server, "/dashboard").status == 200


def test_dashboard_is_bound_to_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert address(server) == f"http://127.0.0.1:{server.server_port}/dashboard"


def test_dashboard_turns_away_the_names_of_other_sites(server):
    assert get(server, "/dashboard", host="evil.example").status == 403
    assert get(server, "/dashboard", host=f"localhost:{server.server_port}").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_dashboard_takes_no_changes_from_pages_of_other_sites(stored, server, method, headers):
    path = f"/api/studies/{stored.study._study_id}"
    assert ask(server, method, path, headers).status == 403
    assert optuna.get_all_study_names(stored.storage) == ["tiny"]


def test_dashboard_takes_changes_from_its_own_page(stored, server):
    host = f"127.0.0.1:{server.server_port}"
    path = f"/api/studies/{stored.study._study_id}/note"
    headers = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"}
    note = json.dumps({"body": "a note", "version": 1})
    assert ask(server, "PUT", path, headers, note).status == 204


def test_dashboard_at_another_address_still_refuses_names_that_are_not_its_own(stored):
    with make_server(stored.storage, host="0.0.0.0", port=0, anyone=True) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        assert get(server, "/dashboard", host=f"192.0.2.7:{server.server_port}").status == 200
        assert get(server, "/dashboard", host="evil.example").status == 403
        server.shutdown()
        thread.join()


def test_dashboard_at_another_address_says_what_that_means_and_what_is_safer(stored):
    call = f"serve({str(stored.path)!r}, '0.0.0.0', 0, anyone=True)"
    code = f"from sweep.dashboard.server import serve\n{call}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert "WARNING: everyone who reaches 0.0.0.0 can see and delete every study" in line
    assert "ssh -L " in line


def test_dashboard_refuses_to_listen_to_other_machines(stored):
    with pytest.raises(InputError, match=r"host must be 127.0.0.1 or localhost.*ssh -L 8080"):
        make_server(stored.storage, host="0.0.0.0")


def test_dashboard_says_that_a_port_is_taken(stored, server):
    with pytest.raises(InputError, match="must be free, but Address already in use; pass another"):
        make_server(stored.storage, port=server.server_port)


def test_dashboard_refuses_a_port_that_is_none(stored):
    with pytest.raises(InputError, match=r"port 70000 must be free, but .*0-65535"):
        make_server(stored.storage, port=70000)


def test_dashboard_of_a_missing_database_creates_none(tmp_path):
    with pytest.raises(InputError, match="must exist"):
        serve(str(tmp_path / "sweep.db"))
    assert not list(tmp_path.iterdir())


def test_serve_prints_its_address_and_ends_at_ctrl_c(stored):
    code = f"from sweep.dashboard.server import serve; serve({str(stored.path)!r}, port=0)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=300) == 0  # on a busy machine too
        finally:
            process.kill()
    assert f"dashboard of {stored.path}: http://127.0.0.1:" in line
