"""Studies in a PostgreSQL server that restarts, is away, hangs, is full, or loses an answer."""

import os
import shutil
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import optuna
import pandas as pd
import pytest
import sqlalchemy as sa
import stored_studies
from commands import Commands
from faults import slow_down
from forked import Forked
from invariants import wait_until
from optuna.trial import TrialState, create_trial
from postgresql import Server, Wire, free_port
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.errors import BusyError
from sweep.analysis.results import evaluations_table, trials_table
from sweep.export.evidence.database import copy_studies
from sweep.storage.rdb import close_all, create_study, open_storage, wait_for
from sweep.storage.reader import load_study
from sweep.storage.tables import record_evaluation
from sweep.tuner import callback as events
from sweep.tuner.callback import Callback

LONG = 300  # steps of a trial that is to be interrupted, 20 ms each


@pytest.fixture
def database(postgresql: Server) -> Iterator[str]:
    postgresql.be_there()  # whatever an earlier test left
    name = f"d{uuid4().hex}"
    postgresql.execute("postgres", f"CREATE DATABASE {name}")
    yield name
    close_all()


@pytest.fixture
def wire(postgresql: Server) -> Iterator[Wire]:
    made = Wire(postgresql)
    yield made
    made.stalls.clear()
    made.close()


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


class At(Callback):
    """Does something at the n-th evaluation of a sweep, and keeps what the user is told."""

    def __init__(self, evaluation: int, does: Callable[[], None]) -> None:
        self._left, self._does = evaluation, does
        self.said: list[str] = []

    def on(self, event: events.SweepEvent) -> None:
        if isinstance(event, events.Message):
            self.said.append(event.text)
        if isinstance(event, events.Evaluated):
            self._left -= 1
            if self._left == 0:
                self._does()

    @property
    def waited(self) -> bool:
        return any("waiting for storage" in line for line in self.said)

    def when_it_waits(self, do: Callable[[], object]) -> None:
        """Do something in another thread once the sweep has said that it waits."""

        def watch() -> None:
            wait_until(lambda: self.waited)
            do()

        threading.Thread(target=watch).start()


def assert_exactly(url: str, trials: int, name: str = "tiny") -> None:
    """So many trials, each complete and with each of its evaluations once."""
    storage = open_storage(url)
    study = load_study(storage, name)
    assert [trial.number for trial in study.trials] == list(range(trials))
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    with storage.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT trial_id, step FROM evaluations")).all()
    steps = Counter(row.trial_id for row in rows)
    for trial in study.trials:
        assert steps[trial._trial_id] == len(trial.intermediate_values) > 0


def test_a_server_that_dies_and_comes_back_costs_a_wait_and_no_trial(
    postgresql: Server, database: str, text: Path, tmp_path: Path
):
    def away() -> None:
        postgresql.stop()
        callback.when_it_waits(postgresql.start)

    callback = At(3, away)
    spec = tiny_study(tmp_path, text, max_steps=60)
    run_tiny(spec, tmp_path, 4, storage=postgresql.url(database), callback=callback)
    assert callback.waited
    assert_exactly(postgresql.url(database), 4)


def test_a_signal_ends_the_wait_and_the_same_command_goes_on(
    monkeypatch, postgresql: Server, database: str, text: Path, tmp_path: Path
):
    def away() -> None:
        postgresql.stop()
        callback.when_it_waits(lambda: os.kill(os.getpid(), signal.SIGINT))

    slow_down(monkeypatch)

    callback = At(2, away)
    spec = tiny_study(tmp_path, text, max_steps=LONG, eval_interval=15)
    with pytest.raises(BusyError, match="must answer"):
        run_tiny(spec, tmp_path, 2, storage=postgresql.url(database), callback=callback)
    postgresql.start()
    run_tiny(spec, tmp_path, 2, storage=postgresql.url(database))
    assert_exactly(postgresql.url(database), 2)


def test_a_wire_that_stalls_loses_nothing(
    postgresql: Server, database: str, wire: Wire, text: Path, tmp_path: Path
):
    def stall() -> None:
        wire.stalls.set()
        threading.Timer(2.0, wire.stalls.clear).start()

    url = postgresql.url(database, wire.port)
    spec = tiny_study(tmp_path, text, max_steps=60)
    run_tiny(spec, tmp_path, 4, storage=url, callback=At(3, stall))
    assert_exactly(postgresql.url(database), 4)


def test_an_answer_that_is_lost_doubles_nothing(postgresql: Server, database: str, wire: Wire):
    storage = open_storage(postgresql.url(database, wire.port), create=True)
    study = optuna.create_study(storage=storage, study_name="lost")
    said: list[str] = []
    wait_for(storage, said.append, bool)

    def losing(call: Callable[[], object]) -> None:
        before = wire.lost
        wire.lose_answer.set()
        call()
        assert wire.lost == before + 1

    distributions = {"x": optuna.distributions.FloatDistribution(0, 1)}
    running = create_trial(state=TrialState.RUNNING, params={"x": 0.5}, distributions=distributions)
    losing(lambda: study.add_trial(running))
    trial = optuna.trial.Trial(study, study.get_trials()[0]._trial_id)
    losing(lambda: trial.report(3.0, 10))
    losing(lambda: record_evaluation(storage, trial._trial_id, stored_studies.evaluation(10, 3.0)))
    losing(lambda: trial.set_user_attr("outcome", "complete"))
    losing(lambda: study.tell(trial, 3.0))
    assert [one.number for one in study.get_trials()] == [0]
    stored = study.get_trials()[0]
    assert (stored.state, stored.value) == (TrialState.COMPLETE, 3.0)
    assert stored.intermediate_values == {10: 3.0}
    with storage.engine.connect() as connection:
        count = connection.execute(sa.text("SELECT count(*) FROM evaluations")).scalar()
    assert count == 1


def test_a_study_is_packed_from_a_server_as_from_a_file(
    postgresql: Server, database: str, tmp_path: Path
):
    files = stored_studies.StoredStudy(tmp_path)
    storage = open_storage(postgresql.url(database), create=True)
    study = create_study(storage, files.spec, stored_studies.DATA, "cpu")
    for perplexity in (60.0, 70.0):
        trial = study.ask(files.spec.distributions({"learning_rate": 1e-3, "n_layer": 2}))
        record_evaluation(storage, trial._trial_id, stored_studies.evaluation(10, perplexity))
        study.tell(trial, perplexity)
    optuna.create_study(storage=storage, study_name="theirs")
    copy = copy_studies(storage, [study.study_name], tmp_path / "copy.db")
    copied = load_study(copy, study.study_name)
    assert optuna.get_all_study_names(copy) == [study.study_name]
    assert trials_table(copied).equals(trials_table(study))
    tables = (evaluations_table(one, study.study_name) for one in (copy, storage))
    pd.testing.assert_frame_equal(*tables)


def test_three_tuners_share_a_database_with_studies_of_other_people(
    postgresql: Server, database: str, text: Path, tmp_path: Path
):
    spec = tiny_study(tmp_path, text)
    studies = [spec.model_copy(update={"name": name}) for name in ("one", "two", "three")]
    url = postgresql.url(database)
    for study in studies:  # tokens and tables are there; processes of a test are threads here
        run_tiny(study, tmp_path, 1, workers=1, storage=url)
    storage = open_storage(url)
    theirs = [optuna.create_study(storage=storage, study_name=name) for name in ("four", "five")]
    done = threading.Event()

    def optimize(study: optuna.Study) -> int:
        """Optuna's own loop, as long as the tuners run."""
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), callbacks=[stop_when(done)])
        return len(study.trials)

    with ThreadPoolExecutor(5) as pool:
        counts = [pool.submit(optimize, study) for study in theirs]
        list(pool.map(lambda study: complete(study.name, url, tmp_path), studies))
        done.set()
    for study in studies:
        states = [trial.state for trial in load_study(storage, study.name).trials]
        assert states == 3 * [TrialState.COMPLETE]
    for study, count in zip(theirs, counts, strict=True):
        found = load_study(storage, study.study_name).trials
        assert [trial.number for trial in found] == list(range(count.result()))
        assert {trial.state for trial in found} == {TrialState.COMPLETE}


def stop_when(done: threading.Event) -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    return lambda study, trial: study.stop() if done.wait(0.2) else None


# nor a checkpoint that is being written, which has another name in a moment
no_locks = shutil.ignore_patterns("*.lock", ".driver.json", ".*.[0-9]*")


def complete(name: str, url: str, folder: Path) -> None:
    """Run a study to three trials, in a process of its own."""
    path = folder / f"{name}.toml"
    path.write_text((folder / "tiny.toml").read_text().replace('"tiny"', f'"{name}"'))
    places = ["--storage", url, "--runs", str(folder / "runs"), "--workers", "1", "--quiet"]
    sweep = Forked(folder, "run", "--study", str(path), "--trials", "3", *places)
    assert sweep.wait() == 0, sweep.printed()


def on_another_machine(folder: Path) -> Path:
    """A folder that has our runs, and not our lock."""
    runs = folder / "another machine" / "runs"
    shutil.copytree(folder / "runs", runs, ignore=no_locks)
    return runs


def test_two_machines_cannot_run_one_study(
    postgresql: Server, database: str, text: Path, tmp_path: Path
):
    url = postgresql.url(database)
    spec = tiny_study(tmp_path, text)
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(BusyError) as error:
            run_tiny(spec, tmp_path, 3, storage=url, runs=on_another_machine(tmp_path))
        refused.append(str(error.value))

    run_tiny(spec, tmp_path, 2, storage=url, callback=At(1, second))
    assert "one tuner" in refused[0]
    assert_exactly(url, 2)


def test_another_machine_waits_for_the_first_when_asked_to(
    postgresql: Server, database: str, text: Path, tmp_path: Path
):
    url = postgresql.url(database)
    spec = tiny_study(tmp_path, text)
    waiting: list[Forked] = []

    def second() -> None:
        places = ["--storage", url, "--runs", str(on_another_machine(tmp_path)), "--device", "cpu"]
        study = ["--study", str(tmp_path / "tiny.toml"), "--trials", "2", "--wait"]
        waiting.append(Forked(tmp_path, "run", *study, *places))
        wait_until(lambda: "another machine runs" in waiting[0].printed())

    run_tiny(spec, tmp_path, 2, storage=url, callback=At(1, second))
    assert waiting[0].wait() == 0, waiting[0].printed()
    assert_exactly(url, 2)


@pytest.fixture
def command(monkeypatch, capsys, text: Path, tmp_path: Path) -> Commands:
    tiny_study(tmp_path, text)
    return Commands(monkeypatch, capsys, tmp_path)


def refused_storages(server: Server, silent: int) -> dict[str, tuple[str, int]]:
    """URL -> a word of its line, and the exit code."""
    return {
        server.url("there_is_none"): ("does not exist", 2),
        server.url("postgres", user="nobody_we_know"): ("does not exist", 2),
        server.url("postgres", port=free_port()): ("refused", 2),
        server.url("postgres", port=silent): ("must answer within 3 s", 2),
        "postgresql+psycopg://postgres@host.invalid/sweep": ("host.invalid", 2),
        server.url("postgres", user="reader"): ("permission denied", 2),
        "mysql://root@localhost/sweep": ("PostgreSQL", 2),
    }


def test_a_storage_that_cannot_be_used_is_one_line_before_anything_is_written(
    monkeypatch, postgresql: Server, command: Commands, tmp_path: Path
):
    for module in ("rdb", "errors"):
        monkeypatch.setattr(f"sweep.storage.{module}.CONNECT_SECONDS", 3)  # instead of 10
    postgresql.execute("postgres", "CREATE ROLE reader LOGIN")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        port = silent.getsockname()[1]
        for url, (words, code) in refused_storages(postgresql, port).items():
            outcome = command("run", "--study", "tiny.toml", "--trials", "2", "--storage", url)
            assert outcome.is_right, outcome
            assert (outcome.code, words in outcome.err) == (code, True), outcome.err
    assert not (tmp_path / "runs").exists()
    postgresql.execute("postgres", "DROP ROLE reader")


def test_a_server_without_a_connection_left_is_waited_for(
    postgresql: Server, database: str, text: Path, tmp_path: Path
):
    engine = sa.create_engine(postgresql.url(database), poolclass=sa.pool.NullPool)
    taken: list[sa.Connection] = []
    with pytest.raises(sa.exc.OperationalError, match="too many clients"):
        taken.extend(engine.connect() for _ in range(1000))
    callback = At(0, lambda: None)
    callback.when_it_waits(lambda: [connection.close() for connection in taken])
    spec = tiny_study(tmp_path, text)
    run_tiny(spec, tmp_path, 2, storage=postgresql.url(database), callback=callback)
    assert callback.waited
    assert_exactly(postgresql.url(database), 2)


def test_every_reading_command_reads_a_server(postgresql: Server, database: str, command: Commands):
    url = postgresql.url(database)
    assert command("run", "--study", "tiny.toml", "--trials", "2", "--storage", url).code == 0
    for words in ("status", "report", "export", "plot curves", "doctor", "studies"):
        name, *more = words.split()
        study = [] if name in ("doctor", "studies") else ["--study", "tiny"]
        outcome = command(name, *more, *study, "--storage", url)
        assert outcome.code == 0, outcome.err


def test_a_study_in_a_server_grows_in_its_place_and_as_a_new_one(
    postgresql: Server, database: str, command: Commands
):
    url = postgresql.url(database)
    file = command.folder / "tiny.toml"
    places = ("--study", "tiny.toml", "--storage", url)
    assert command("run", *places, "--trials", "2").code == 0
    file.write_text(file.read_text().replace('"squentropy"]', '"squentropy", "z_loss"]'))
    for growing in (["--as", "new", "--from", "tiny"], ["--extend"]):
        outcome = command("run", *places, *growing)
        assert outcome.code == 0, outcome.err
    assert_exactly(url, 3)
    new = load_study(open_storage(url), "new")
    assert [trial.user_attrs["arm"] for trial in new.trials] == [
        "cross_entropy",
        "squentropy",
        "z_loss",
    ]
    assert [trial.state for trial in new.trials] == [TrialState.COMPLETE] * 3
