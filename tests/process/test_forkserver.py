"""Trials that are forked are what `python -m gpt.train` starts: same digits, ends and logs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from faults import inject
from tiny_runs import tiny_config, write_run, write_stories

from gpt.events import read_events
from sweep.backends import fork_client as forkserver
from sweep.backends.base import Job, Slot
from sweep.backends.local import LocalProcess

SLOT = Slot(0, "cpu", 1)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stories(tmp_path_factory.mktemp("text"))


@pytest.fixture
def long_run(text: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "long", tiny_config(text, max_steps=100_000, eval_interval=20))


def start(run_dir: Path, slot: Slot = SLOT) -> LocalProcess:
    command = (sys.executable, "-P", "-m", "gpt.train", str(run_dir))
    return LocalProcess.start(Job(run_dir, command, slot, "gpt.train"))


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def trains(run_dir: Path) -> bool:
    return any(event["event"] == "evaluation" for event in read_events(run_dir)[0])


def losses(run_dir: Path) -> list[tuple[float, float]]:
    events, _ = read_events(run_dir)
    return [(e["train_loss"], e["cross_entropy"]) for e in events if e["event"] == "evaluation"]


def test_a_fork_trains_to_the_same_digits_as_a_process_of_its_own(text: Path, tmp_path: Path):
    forked = write_run(tmp_path / "forked", tiny_config(text))
    plain = write_run(tmp_path / "plain", tiny_config(text))
    process = start(forked)
    subprocess.run([sys.executable, "-m", "gpt.train", plain], check=True, capture_output=True)
    wait_until(lambda: not process.alive)
    assert process.exit_code == 0
    assert len(losses(plain)) == 3
    assert losses(forked) == losses(plain)


def test_a_fork_shows_what_it_trains_and_has_a_session_and_a_log_of_its_own(long_run: Path):
    process = start(long_run)
    found = LocalProcess.find({long_run: "gpt.train"})
    pid = read_pid(long_run)
    assert psutil.Process(pid).cmdline()[1:5] == ["-P", "-m", "gpt.train", str(long_run)]
    assert os.getsid(pid) == pid
    process.stop()
    wait_until(lambda: not process.alive)
    assert not found[long_run].alive
    assert process.exit_code == 0
    assert read_events(long_run)[0][-1]["event"] == "stopped"


def read_pid(run_dir: Path) -> int:
    wait_until(lambda: trains(run_dir))
    return int(read_events(run_dir)[0][0]["pid"])


def test_the_signal_that_killed_a_fork_is_told(long_run: Path):
    process = start(long_run)
    wait_until(lambda: trains(long_run))
    process.kill()
    wait_until(lambda: not process.alive)
    assert process.exit_code == -signal.SIGKILL


def test_what_a_failing_fork_says_is_in_its_log(tmp_path: Path):
    process = start(tmp_path)  # there is no config.json
    wait_until(lambda: not process.alive)
    assert process.exit_code == 2
    assert "must be a run's config.json" in (tmp_path / "log.txt").read_text()


def test_an_error_that_a_fork_did_not_expect_is_in_its_log(
    long_run: Path, monkeypatch: pytest.MonkeyPatch
):
    inject(monkeypatch, "memory@step=3")
    process = start(long_run)
    wait_until(lambda: not process.alive)
    assert process.exit_code == 1
    assert "Traceback" in (long_run / "log.txt").read_text()


def test_a_fork_gets_the_environment_of_its_start(long_run: Path, monkeypatch: pytest.MonkeyPatch):
    forkserver.warm_up("gpt.train")
    inject(monkeypatch, "kill@step=3")
    process = start(long_run)
    wait_until(lambda: not process.alive)
    assert process.exit_code == -signal.SIGKILL


def test_a_fork_outlives_its_server_and_the_next_one_has_another(text: Path, long_run: Path):
    process = start(long_run)
    wait_until(lambda: trains(long_run))
    server = forkserver.fork_server("gpt.train")
    os.kill(server._process.pid, signal.SIGKILL)
    wait_until(lambda: not server.alive)
    assert process.alive
    short = write_run(long_run.parent / "short", tiny_config(text))
    second = start(short)
    wait_until(lambda: not second.alive)
    assert second.exit_code == 0
    process.kill()
    wait_until(lambda: not process.alive)
    assert process.exit_code is None
    assert process.exit_code is None  # nobody can know


@pytest.mark.parametrize("slot", [SLOT, Slot(0, "cuda:0", 1)])
def test_elsewhere_and_for_cuda_a_trial_is_not_forked(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slot: Slot
):
    monkeypatch.setattr(forkserver, "SUPPORTED", slot.device != "cpu")
    run_dir = write_run(tmp_path / "run", tiny_config(text))
    process = start(run_dir, slot)
    wait_until(lambda: trains(run_dir) or not process.alive)
    pid = read_events(run_dir)[0][0]["pid"]
    assert pid in [child.pid for child in psutil.Process().children()]
    wait_until(lambda: not process.alive)
    assert process.exit_code == 0
    assert len(losses(run_dir)) == 3


def test_a_server_ends_with_the_process_that_started_it():
    module = "from sweep.backends.fork_client import fork_server"
    start = f"{module}; print(fork_server('gpt.train')._process.pid)"
    kill = "import os; os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", f"{start}; import sys; sys.stdout.flush(); {kill}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    wait_until(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    )
