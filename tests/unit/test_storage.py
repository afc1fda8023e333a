"""The database: what is refused and left as it is, and what is kept."""

import math
import os
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
import stored_studies

from gpt.errors import DataError, InputError, SquenSweepError, StorageError
from gpt.events import Evaluation
from sweep.storage.growth.takeover import stage_runs
from sweep.storage.location import MARKER, owner_of_runs, storage_url
from sweep.storage.lock import claim_runs, runs_of
from sweep.storage.rdb import check_study, open_storage
from sweep.storage.reader import load_study
from sweep.storage.schema import study_attrs
from sweep.storage.sqlite import check
from sweep.storage.tables import record_evaluation
from sweep.study.toml_file import read_study_file


def evaluation(step: int, cross_entropy: float = 4.0) -> Evaluation:
    made = stored_studies.evaluation(step, math.exp(cross_entropy))
    return replace(made, cross_entropy=cross_entropy, peak_memory_bytes=2**31)


def test_a_path_is_a_sqlite_file_and_a_url_stays_a_url():
    assert storage_url("runs/sweep.db") == "sqlite:///runs/sweep.db"
    assert storage_url("postgresql://host/db") == "postgresql://host/db"
    assert storage_url("sqlite+pysqlite:///x.db?timeout=3") == "sqlite+pysqlite:///x.db?timeout=3"


@pytest.mark.parametrize(
    "given", ["~/a b.db", "sqlite:///~/a b.db", "{home}/a b.db", "sqlite:///{home}/a b.db"]
)
def test_a_storage_is_found_however_its_path_is_written(tmp_path, monkeypatch, given: str):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    open_storage(given.format(home=tmp_path), create=True).engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == ["a b.db"]


@pytest.mark.parametrize("name", ["50%.db", "%20.db", "what?.db", "a#b.db", "a&b=c.db"])
def test_a_path_may_have_signs_that_mean_something_in_a_url(tmp_path, name: str):
    open_storage(str(tmp_path / name), create=True).engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("sqlite:x.db", "x.db"),
        ("sqlite:/x.db", "/x.db"),
        ("sqlite://runs/x.db", "runs/x.db"),
        ("sqlite+pysqlite://x.db", "x.db"),
    ],
)
def test_a_sqlite_url_with_too_few_slashes_is_answered_with_the_right_one(given, path):
    with pytest.raises(InputError) as caught:
        storage_url(given)
    assert repr(given) in str(caught.value)
    assert str(caught.value).endswith(f"pass {path} or sqlite:///{path}.")
    assert storage_url(f"sqlite:///{path}") == storage_url(path)


@pytest.mark.parametrize("storage", ["", "sqlite://", "sqlite:///:memory:", "sqlite+pysqlite://"])
def test_a_storage_that_would_end_with_the_command_is_refused(storage: str):
    with pytest.raises(InputError, match="must be a file that stays"):
        open_storage(storage, create=True)


def test_reading_never_creates_a_file(tmp_path: Path):
    with pytest.raises(InputError, match="there is no such file"):
        open_storage(str(tmp_path / "runs" / "sweep.db"))
    assert list(tmp_path.iterdir()) == []


def stored(folder: Path) -> Path:
    """A database with an empty study, closed."""
    path = folder / "sweep.db"
    storage = open_storage(str(path), create=True)
    optuna.create_study(storage=storage, study_name="tiny")
    storage.engine.dispose()
    return path


def change_schema(path: Path, version: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()


def assert_refused(path: Path, error: type[SquenSweepError], message: str) -> None:
    """By every command in one line, and all files stay as they are."""
    before = contents(path.parent)
    for create in (False, True):
        with pytest.raises(error, match=message) as caught:
            open_storage(str(path), create=create)
        assert "\n" not in str(caught.value)
    assert contents(path.parent) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".db-shm"}


def test_a_truncated_database_is_refused_and_not_touched(tmp_path: Path):
    path = stored(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_refused(path, DataError, "must be a sound database, but: .*not touched.*recover")


def test_a_database_with_a_damaged_page_is_refused_and_not_touched(tmp_path: Path):
    path = stored(tmp_path)
    damage(path)
    assert_refused(path, DataError, "must be a sound database, but: ")


def test_the_log_of_a_damaged_database_is_not_touched(tmp_path: Path):
    path = stored(tmp_path)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("UPDATE studies SET study_name = 'other'")
        writer.commit()
        kept = {each: each.read_bytes() for each in (path, path.with_name("sweep.db-wal"))}
    for each, content in kept.items():  # as after a kill
        each.write_bytes(content)
    damage(path, page=10)  # of which the log has no newer one
    assert_refused(path, DataError, "must be a sound database, but: ")
    assert path.with_name("sweep.db-wal").stat().st_size


def damage(path: Path, page: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[page * 4096 : (page + 1) * 4096] = b"?" * 4096
    path.write_bytes(content)


def test_a_database_of_an_older_optuna_is_refused_with_the_command_that_upgrades_it(
    tmp_path: Path,
):
    path = stored(tmp_path)
    change_schema(path, "v2.4.0.a")
    assert_refused(path, DataError, f"optuna storage upgrade --storage sqlite:///{path}")


def test_a_database_of_a_newer_optuna_is_refused_with_the_command_that_installs_it(
    tmp_path: Path,
):
    path = stored(tmp_path)
    change_schema(path, "v9.0.0.a")
    assert_refused(path, DataError, "newer Optuna .*pip install -U optuna")


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_database_in_a_folder_that_cannot_be_written_is_refused_with_the_way_out():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        path = stored(Path(name))
        Path(name).chmod(0o555)
        with as_an_ordinary_user():
            assert_refused(path, StorageError, "log.*copy it to")
        assert [p.name for p in Path(name).iterdir()] == ["sweep.db"]
        Path(name).chmod(0o755)


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\x00" + b"\xff" * 4096])
@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_database_is_refused_and_not_touched(
    tmp_path: Path, content: bytes, create: bool
):
    path = tmp_path / "sweep.db"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"storage .*sweep\.db must") as caught:
        open_storage(str(path), create=create)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_study_of_other_text_is_refused_with_the_data_that_finds_it(tmp_path: Path):
    stored = stored_studies.StoredStudy(
        tmp_path, **stored_studies.BUILT_IN, name="built-in story grammar", fingerprint="0" * 16
    )
    hub = stored_studies.DATA | {"kind": "hub", "name": "roneneldan/TinyStories"}
    with pytest.raises(InputError, match="; pass --data built-in, or start a new study"):
        check_study(stored.study, stored.spec, hub, "cpu")
    changed = stored.study.user_attrs["data"] | {"fingerprint": "1" * 16}
    with pytest.raises(InputError, match="; bring that text back, or start a new study"):
        check_study(stored.study, stored.spec, changed, "cpu")


def test_somebody_elses_database_is_not_read_as_ours(tmp_path: Path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(DataError, match="must hold studies"):
        open_storage(str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["other.db"]


def test_a_database_that_was_looked_at_is_one_file(tmp_path: Path):
    path = stored(tmp_path)
    check(path, create=False)
    assert [each.name for each in tmp_path.iterdir()] == ["sweep.db"]


def test_a_folder_is_no_storage(tmp_path: Path):
    with pytest.raises(InputError, match="it is a folder"):
        open_storage(str(tmp_path), create=True)


def test_a_file_in_the_way_of_the_folder_is_said(tmp_path: Path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="must be in a folder"):
        open_storage(str(tmp_path / "runs" / "sweep.db"), create=True)


def test_readers_do_not_block_the_writer(tmp_path: Path):
    open_storage(str(tmp_path / "sweep.db"), create=True)
    connection = sqlite3.connect(tmp_path / "sweep.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_an_evaluation_is_kept_whole_and_the_first_of_a_step_stays(tmp_path: Path):
    storage = open_storage(str(tmp_path / "sweep.db"), create=True)
    for cross_entropy in (4.0, 9.0):
        record_evaluation(storage, 3, evaluation(50, cross_entropy))
    record_evaluation(storage, 3, evaluation(100))
    with storage.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM evaluations ORDER BY step")).mappings()
        first, second = (dict(row) for row in rows)
    assert first.pop("trial_id") == 3
    assert Evaluation(**first) == evaluation(50, 4.0)
    assert second["step"] == 100


def test_an_unknown_study_is_named_with_those_that_are_there(tmp_path: Path):
    storage = open_storage(str(tmp_path / "sweep.db"), create=True)
    with pytest.raises(InputError, match=r"'nope' must be in the storage.*no study yet"):
        load_study(storage, "nope")


def test_an_unknown_study_is_answered_with_what_can_work(tmp_path: Path):
    storage = open_storage(str(tmp_path / "sweep.db"), create=True)
    optuna.create_study(storage=storage, study_name="tiny")
    for name, words in {
        "Tiny": "holds tiny; the nearest is 'tiny'.",
        "TINNY": "holds tiny; the nearest is 'tiny'.",
        "smoke": "holds tiny; `squen-sweep run --study smoke` starts it.",
        "other": "holds tiny.",  # no such study could be run
    }.items():
        with pytest.raises(InputError) as caught:
            load_study(storage, name)
        assert str(caught.value).endswith(words)


def test_a_study_is_resumed_from_a_file_that_means_the_same(tmp_path: Path):
    stored = stored_studies.StoredStudy(tmp_path)
    stored.study.set_user_attr("spec_digest", "of an earlier version")
    facts = stored.study.user_attrs["data"]
    written = stored_studies.STUDY.replace("low = 1e-4", "low = 0.0001 # the lowest")
    (tmp_path / "again.toml").write_text(written + "[train]\ndropout = 0.0\n")
    check_study(stored.study, read_study_file(str(tmp_path / "again.toml"), "cpu"), facts, "cpu")

    (tmp_path / "again.toml").write_text(written + "[train]\ndropout = 0.1\n")
    with pytest.raises(InputError, match=r"another spec \(train.dropout differs\)"):
        check_study(
            stored.study, read_study_file(str(tmp_path / "again.toml"), "cpu"), facts, "cpu"
        )


@pytest.mark.parametrize("left", [None, ""])
def test_a_study_whose_folder_was_not_marked_before_a_kill_or_on_a_full_disk_goes_on(
    tmp_path: Path, left: str | None
):
    study = load_study(open_storage(str(stored(tmp_path))), "tiny")
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    claim_runs(study, folder)
    (folder / MARKER).unlink()
    if left is not None:
        (folder / MARKER).write_text(left)
    assert runs_of(study, tmp_path / "runs", "tiny") == folder
    claim_runs(study, folder)
    assert owner_of_runs(folder) == study_attrs(study).identity


def test_a_full_disk_leaves_no_empty_marker_of_runs(tmp_path: Path):
    study = load_study(open_storage(str(stored(tmp_path))), "tiny")
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    claim_runs(study, folder)
    (folder / MARKER).unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in (lambda: claim_runs(study, folder), lambda: stage_runs(study, folder, "new")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(folder.rglob(MARKER))
