"""What goes on around a sweep: locks of its database, a dashboard, a clock that is set."""

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from operator import lt
from pathlib import Path

import pytest
from clocks import Clock
from faults import slow_down
from forked import start_anew
from invariants import (
    assert_sound,
    assert_undisturbed,
    curve,
    evaluated,
    events_of,
    start_command,
    stored_trials,
    wait_until,
    words_of_run,
)
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.errors import BusyError
from gpt.events import read_events
from sweep.storage.rdb import open_storage
from sweep.tuner.limits import Limits


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


def steps_of(folder: Path, number: int) -> list[int]:
    """Of the evaluations that a trial's process has written."""
    events, _ = read_events(folder / "runs" / "tiny" / str(number))
    return [event["step"] for event in events if event["event"] == "evaluation"]


# --- other processes at the database ---------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it, nobody else can write the database."""
    with closing(sqlite3.connect(folder / "sweep.db", timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()


def test_a_locked_database_makes_the_sweep_wait_but_no_trial(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    spec = tiny_study(tmp_path, text, max_steps=1_000_000, eval_interval=20)
    made: list[list[int]] = []  # evaluations of each trial, time after time
    kept: list[int] = []  # those in the database
    released = threading.Event()

    def written() -> list[int]:
        return [len(steps_of(tmp_path, number)) for number in (0, 1)]

    def hold() -> None:
        wait_until(lambda: min(written()) >= 2)
        with locked(tmp_path):
            for _ in range(3):
                before = written()
                wait_until(lambda before=before: all(map(lt, before, written())))
                made.append(written())
                kept.append(sum(len(curve(tmp_path, number)) for number in (0, 1)))
        released.set()

    def clock() -> float:
        """Move on by an hour when the database is free again."""
        return time.monotonic() + 3600 * released.is_set()

    thread = threading.Thread(target=hold)
    thread.start()
    summary = run_tiny(spec, tmp_path, trials=2, limits=Limits(trial=1200), clock=clock)
    thread.join()
    assert len(set(kept)) == 1  # the lock held
    assert sum(made[-1]) >= kept[0] + 4  # and no trial stood still
    assert summary.outcomes == {"timeout": 2}
    for number in (0, 1):
        assert [step for step, _ in curve(tmp_path, number)] == steps_of(tmp_path, number)
    assert_sound(tmp_path, trials=2)


def test_a_database_locked_for_longer_than_the_sweep_waits_costs_nothing(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    spec = tiny_study(tmp_path, text, max_steps=80, eval_interval=4)
    monkeypatch.setattr("sweep.storage.sqlite.TIMEOUT", 1)  # seconds instead of 60
    released = threading.Event()

    def hold() -> None:
        wait_until(lambda: evaluated(tmp_path) >= 2)
        with locked(tmp_path):
            released.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    with pytest.raises(BusyError, match=r"free to write.*another process"):
        run_tiny(spec, tmp_path, trials=2)
    released.set()
    thread.join()
    assert BusyError.exit_code == 75
    assert run_tiny(spec, tmp_path, trials=2).outcomes == {"complete": 2}
    assert_sound(tmp_path, trials=2)
    assert_undisturbed(tmp_path)


def test_a_second_run_waits_for_the_first_when_asked_to(
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    slow_down(monkeypatch)
    spec = tiny_study(tmp_path, text, max_steps=80, eval_interval=10)
    first = start_command(tmp_path, 1)
    wait_until(lambda: evaluated(tmp_path) >= 1)
    second = run_tiny(spec, tmp_path, trials=1, wait=True)
    first.communicate()
    assert f"waiting: process {first.pid} on" in capsys.readouterr().out
    assert second.already_complete
    assert_sound(tmp_path, trials=1)


def test_a_new_study_waits_for_the_one_whose_trials_it_takes_over_when_asked_to(
    text: Path, tmp_path: Path
):
    tiny_study(tmp_path, text, max_steps=400, eval_interval=50)
    first = start_command(tmp_path, 1)
    wait_until(lambda: evaluated(tmp_path) >= 1)
    second = start_command(tmp_path, 1, "--as", "new", "--from", "tiny", "--wait")
    first.communicate()
    printed = second.communicate()[0]
    assert second.returncode == 0, printed
    assert f"waiting: process {first.pid} on" in printed


# --- a dashboard -----------------------------------------------------------------------------


@contextmanager
def dashboard(folder: Path) -> Iterator[int]:
    """The port at which another process serves the database."""
    open_storage(str(folder / "sweep.db"), create=True).engine.dispose()
    code = f"from sweep.dashboard.server import serve; serve({str(folder / 'sweep.db')!r}, port=0)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
        finally:
            process.kill()


def get(port: int, path: str) -> bytes:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, path
        return response.read()


def test_a_dashboard_that_is_asked_all_the_time_disturbs_no_sweep(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    spec = tiny_study(tmp_path, text, max_steps=100, eval_interval=5)
    ended = threading.Event()
    shown: list[int] = []  # the study's trials at each look

    def look(port: int) -> None:
        get(port, "/dashboard")
        studies = json.loads(get(port, "/api/studies"))["study_summaries"]
        for study in studies:  # and the views of its arms
            trials = json.loads(get(port, f"/api/studies/{study['study_id']}"))["trials"]
            if study["study_name"] == spec.name:
                shown.append(len(trials))

    def keep_looking(port: int) -> None:
        while not ended.is_set():
            look(port)
            time.sleep(0.05)

    with dashboard(tmp_path) as port:
        thread = threading.Thread(target=keep_looking, args=[port])
        thread.start()
        try:
            summary = run_tiny(spec, tmp_path, trials=3)
        finally:
            ended.set()
            thread.join()
        wait_until(lambda: look(port) or shown[-1] == 3)
    assert len(shown) > 5
    assert shown == sorted(shown)
    assert summary.outcomes == {"complete": 3}
    assert_sound(tmp_path, trials=3)
    assert_undisturbed(tmp_path)


# --- a clock that is set ---------------------------------------------------------------------


def test_a_clock_set_forward_and_back_by_an_hour_ends_no_trial(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=90, eval_interval=3)
    clock = Clock(tmp_path / "clock")
    with monkeypatch.context() as patch:
        clock.prepare(patch)
        limits = ("--hang-timeout", "100s", "--trial-timeout", "30m")
        process = start_anew(tmp_path, *words_of_run(tmp_path, 3, *limits))
    for hours in (0, 1, -1, 0):
        clock.set(hours)
        before = evaluated(tmp_path)
        wait_until(lambda before=before: evaluated(tmp_path) >= before + 10)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    told = [event["time"] - time.time() for event in events_of(tmp_path, "evaluation")]
    assert {round(seconds / 3600) for seconds in told} == {-1, 0, 1}  # every process saw it
    assert {t.user_attrs["outcome"] for t in stored_trials(tmp_path)} == {"complete"}
    assert len(events_of(tmp_path, "start")) == 3  # none was taken for dead and started again
    assert_sound(tmp_path, trials=3)
    assert_undisturbed(tmp_path)
