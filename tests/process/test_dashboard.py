import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import optuna
import pytest
from invariants import wait_until
from serving import ask, get, serving
from stored_studies import StoredStudy
from test_foreign_studies import COUNTS, KINDS

from gpt.errors import InputError
from sweep.dashboard.server import serve


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return StoredStudy(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def port(stored: StoredStudy) -> Iterator[int]:
    with serving(stored.path) as port:
        yield port


def test_dashboard_shows_the_stored_study(port):
    assert get(port, "/dashboard").status == 200
    studies = json.loads(get(port, "/api/studies").body)["study_summaries"]
    assert [study["study_name"] for study in studies] == ["tiny"]


def test_dashboard_shows_trials_that_are_written_while_it_serves(stored, port):
    path = f"/api/studies/{stored.study._study_id}"
    assert json.loads(get(port, path).body)["trials"] == []
    stored.add("cross_entropy", [60.0])
    wait_until(lambda: json.loads(get(port, path).body)["trials"])  # read anew after two seconds
    trials = json.loads(get(port, path).body)["trials"]
    assert trials[0]["values"] == [60.0]


def test_dashboard_shows_studies_of_other_programs(tmp_path):
    """Also with several objectives, without trials, with values that are not finite."""
    own = StoredStudy(tmp_path)
    numbers = {}
    for name, (directions, fill, _) in KINDS.items():
        study = optuna.create_study(storage=own.storage, study_name=name, directions=directions)
        fill(study)
        numbers[name] = study._study_id
    with serving(own.path) as port:
        for name, number in numbers.items():
            answer = get(port, f"/api/studies/{number}")
            assert answer.status == 200
            found = json.loads(answer.body)
            assert (found["name"], len(found["trials"])) == (name, COUNTS[name])


def test_dashboard_answers_one_request_while_another_is_open(port):
    with socket.create_connection(("127.0.0.1", port)):  # says nothing
        assert get(port, "/dashboard").status == 200


def test_dashboard_is_bound_to_this_machine_alone(port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))


def test_dashboard_turns_away_the_names_of_other_sites(port):
    assert get(port, "/dashboard", host="evil.example").status == 403
    assert get(port, "/dashboard", host=f"localhost:{port}").status == 200


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
def test_dashboard_takes_no_changes_from_pages_of_other_sites(stored, port, method, headers):
    path = f"/api/studies/{stored.study._study_id}"
    assert ask(port, method, path, headers).status == 403
    assert optuna.get_all_study_names(stored.storage) == ["tiny"]


def test_dashboard_takes_changes_from_its_own_page(stored, port):
    host = f"127.0.0.1:{port}"
    path = f"/api/studies/{stored.study._study_id}/note"
    headers = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"}
    note = json.dumps({"body": "a note", "version": 1})
    assert ask(port, "PUT", path, headers, note).status == 204


def test_dashboard_at_another_address_still_refuses_names_that_are_not_its_own(stored):
    with serving(stored.path, host="0.0.0.0", allow_remote=True) as port:
        assert get(port, "/dashboard", host=f"192.0.2.7:{port}").status == 200
        assert get(port, "/dashboard", host="evil.example").status == 403


def test_dashboard_at_another_address_says_what_that_means_and_what_is_safer(stored):
    call = f"serve({str(stored.path)!r}, '0.0.0.0', 0, allow_remote=True)"
    code = f"from sweep.dashboard.server import serve\n{call}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    process.terminate()
    process.communicate()
    assert "WARNING: everyone who reaches 0.0.0.0 can see and delete every study" in line
    assert "ssh -L " in line


def test_dashboard_refuses_to_listen_to_other_machines(stored):
    with pytest.raises(InputError, match=r"host .*127.0.0.1 or localhost.*ssh -L 8080"):
        serve(str(stored.path), host="0.0.0.0")


def test_dashboard_says_that_a_port_is_taken(stored, port):
    with pytest.raises(InputError, match=r"free.*Address already in use"):
        serve(str(stored.path), port=port)


@pytest.mark.parametrize("host", ["192.0.2.7", "::1", "nosuch.invalid"])
def test_dashboard_refuses_a_host_that_is_not_this_machine_by_name(stored, host):
    with pytest.raises(InputError, match=rf"^host must .*this machine, but {host}: [^;]*$"):
        serve(str(stored.path), host=host, port=0, allow_remote=True)


def test_dashboard_refuses_a_port_that_is_none(stored):
    with pytest.raises(InputError, match=r"port 70000 .*0-65535"):
        serve(str(stored.path), port=70000)


def test_dashboard_of_a_missing_database_creates_none(tmp_path):
    with pytest.raises(InputError, match="must exist"):
        serve(str(tmp_path / "sweep.db"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("busy", [False, True])
def test_serve_prints_its_address_and_ends_at_ctrl_c_at_once(stored, busy):
    imports = "import optuna_dashboard, time"
    wait = f"{imports}\noptuna_dashboard.wsgi = lambda *_: lambda *_: time.sleep(3000)"
    # Who waits for a thread, as waitress does for five seconds, waits longer than this test.
    patient = "from waitress.task import ThreadedTaskDispatcher as pool\n"
    patient += "pool.shutdown.__defaults__ = (True, 3000)"
    call = f"from sweep.dashboard.server import serve; serve({str(stored.path)!r}, port=0)"
    lines = [patient, wait, call] if busy else [patient, call]
    command = [sys.executable, "-c", "\n".join(lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
            with socket.create_connection(("127.0.0.1", port)) as browser:
                browser.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                if not busy:
                    assert browser.recv(12).startswith(b"HTTP/1.1")
                time.sleep(0.5)  # a thread has taken it by then
                process.send_signal(signal.SIGINT)
                assert process.wait() == 0
        finally:
            process.kill()
    assert f"dashboard of {stored.path}: http://127.0.0.1:" in line
