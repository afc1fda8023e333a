"""Evidence packs: what is in one, and that nothing of it can change unseen."""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from stored_studies import StoredStudy

from gpt.errors import DataError, InputError, SquenSweepError
from gpt.events import append_event
from sweep.analysis.results import evaluations_table, trials_table
from sweep.export.evidence.database import copy_studies
from sweep.export.evidence.pack import HEX, check_replaceable, hash_before_comment, write_pack
from sweep.export.evidence.page_figures import differences
from sweep.export.evidence.verify import verify_pack
from sweep.storage.location import runs_folder
from sweep.storage.rdb import open_storage


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """A study of four trials with events, beside another study."""
    study = StoredStudy(tmp_path_factory.mktemp("sweep"))
    study.add("cross_entropy", [90.0, 60.0], n_layer=1)
    study.add("squentropy", [95.0, 70.0], square_weight=0.3)
    study.add("squentropy", [99.0], "pruned", square_weight=0.9)
    study.add("cross_entropy", [80.0], "running")
    for number in range(4):
        append_event(runs_folder(study.study) / str(number), "start", pid=1, attempt=1)
    secret = optuna.create_study(storage=study.storage, study_name="secret")
    secret.add_trial(optuna.trial.create_trial(value=1.0))
    return study


@pytest.fixture(scope="module")
def packed(stored: StoredStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packs") / "tiny.zip"
    write_pack(stored.storage, stored.study, path)
    return path


def rewritten(packed: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A pack with other content and, as somebody with an aim would make it, the right hashes."""
    with zipfile.ZipFile(packed) as pack:
        files = {name: pack.read(name) for name in pack.namelist()}
    manifest = json.loads(files.pop("manifest.json"))
    change(files)
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in files.items()
    }
    write_zip(target, {"manifest.json": json.dumps(manifest).encode(), **files})
    return target


def write_zip(target: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(target, "w") as pack:
        for name, content in files.items():
            pack.writestr(name, content)
        pack.comment = b"sha256:" + b"0" * HEX
    digest = hash_before_comment(target).encode()
    target.write_bytes(target.read_bytes()[:-HEX] + digest)


def test_a_pack_is_verified_and_its_report_made_again(packed):
    found = verify_pack(packed)
    assert (found.study, found.answer) == ("tiny", None)
    assert found.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert found.figures >= 4
    assert "torch" in found.versions


def test_a_pack_holds_the_evidence_and_no_other_study(packed, tmp_path):
    with zipfile.ZipFile(packed) as pack:
        names = set(pack.namelist())
        pack.extractall(tmp_path)
    assert {
        "manifest.json",
        "sweep.db",
        "report.html",
        "study.toml",
        "best.toml",
        "runs/search/0/events.jsonl",
    } <= names
    assert (tmp_path / "study.toml").read_text().startswith('name = "tiny"')
    assert "trial 0 (cross_entropy, complete)" in (tmp_path / "best.toml").read_text()
    assert b"secret" not in (tmp_path / "sweep.db").read_bytes()
    assert not (tmp_path / "sweep.db-wal").exists()


def test_an_unpacked_pack_is_the_study_where_it_lies(packed, stored, tmp_path):
    with zipfile.ZipFile(packed) as pack:
        pack.extractall(tmp_path)
    storage = open_storage(str(tmp_path / "sweep.db"))
    study = optuna.load_study(study_name="tiny", storage=storage)
    assert runs_folder(study) == tmp_path / "runs" / "search"
    assert trials_table(study).equals(trials_table(stored.study))
    ours, theirs = (
        evaluations_table(one, "tiny").drop(columns="elapsed_seconds")
        for one in (storage, stored.storage)
    )
    assert ours.equals(theirs)


def test_every_byte_counts_and_a_files_byte_names_the_file(packed, tmp_path):
    content = packed.read_bytes()
    with zipfile.ZipFile(packed) as pack:
        entries = pack.infolist()
        start = {
            entry.filename: entry.header_offset + 30 + len(entry.filename) for entry in entries
        }
        spans = {
            e.filename: (start[e.filename], start[e.filename] + e.compress_size) for e in entries
        }
    at_random = random.Random(0).sample(range(len(content)), 150)
    within = [begin + (end - begin) // 2 for begin, end in spans.values()]
    ends = [0, len(content) - 1, len(content) - HEX, len(content) - HEX - 5]
    damaged = tmp_path / "damaged.zip"
    for at in [*at_random, *within, *ends]:
        damaged.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(SquenSweepError) as caught:
            verify_pack(damaged)
        assert "\n" not in str(caught.value)
        named = [name for name, (begin, end) in spans.items() if begin <= at < end]
        assert all(name in str(caught.value) for name in named)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_a_pack_that_is_cut_off_is_one_line(packed, tmp_path, share):
    content = packed.read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    with pytest.raises(DataError, match=r"cut\.zip must be .* cut\s+off"):
        verify_pack(cut)


@pytest.mark.parametrize(
    "name",
    ["../outside", "/tmp/outside", "runs/../../outside", "runs\\..\\outside", "C:/outside", "a//b"],
)
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(packed, tmp_path, name):
    def add(files: dict[str, bytes]) -> None:
        files[name] = b"x"

    evil = rewritten(packed, tmp_path / "evil.zip", add)
    with pytest.raises(DataError, match=r"evil\.zip must hold files below its own folder, but"):
        verify_pack(evil)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]
    assert not Path("/tmp/outside").exists()


def test_a_manifest_that_names_another_file_than_the_pack_holds_is_refused(packed, tmp_path):
    with zipfile.ZipFile(packed) as pack:
        files = {name: pack.read(name) for name in pack.namelist()}
    write_zip(tmp_path / "more.zip", {**files, "more.txt": b"x"})
    with pytest.raises(DataError, match=r"of its manifest\.json alone, but holds more\.txt too"):
        verify_pack(tmp_path / "more.zip")
    del files["best.toml"]
    write_zip(tmp_path / "less.zip", files)
    with pytest.raises(DataError, match=r"but best\.toml has changed"):
        verify_pack(tmp_path / "less.zip")


def test_a_file_that_is_no_pack_is_one_line_and_never_replaced(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        verify_pack(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match="it is a folder"):
        verify_pack(tmp_path)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "mine")
    with pytest.raises(InputError, match=r"other\.zip must be a pack .* no manifest\.json"):
        verify_pack(other)
    with pytest.raises(InputError, match="must be new or a pack"):
        check_replaceable(other)
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="must be new or a pack"):
        check_replaceable(tmp_path / "a.txt")


def test_a_pack_may_be_replaced(packed, tmp_path):
    check_replaceable(Path(shutil.copy(packed, tmp_path)))


def test_a_kill_in_the_middle_of_a_pack_does_not_hinder_a_process_of_the_same_id(stored, tmp_path):
    (tmp_path / f".tiny.zip.{os.getpid()}").touch()
    write_pack(stored.storage, stored.study, tmp_path / "tiny.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.zip"]


def test_a_report_of_other_figures_than_the_databases_is_found(packed, tmp_path):
    def better(files: dict[str, bytes]) -> None:
        files["report.html"] = files["report.html"].replace(
            b'<div class="value">60.00', b'<div class="value">50.00'
        )

    with pytest.raises(DataError, match=r"of its own database, but .* differs in section answer"):
        verify_pack(rewritten(packed, tmp_path / "better.zip", better))

    def later(files: dict[str, bytes]) -> None:
        path = tmp_path / "later.db"
        path.write_bytes(files["sweep.db"])
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE evaluations SET perplexity = 61 WHERE perplexity = 60")
        files["sweep.db"] = path.read_bytes()

    with pytest.raises(DataError, match="differs in figure curves"):
        verify_pack(rewritten(packed, tmp_path / "later.zip", later))


def test_a_copy_is_the_study_at_one_moment_while_a_tuner_writes(stored, tmp_path):
    """A trial comes between the reads of the trials and of what belongs to them."""
    came = []

    def tuner_writes(connection, cursor, statement, parameters, context, many) -> None:
        if "FROM trial_params" in statement and not came:
            came.append(True)
            with closing(sqlite3.connect(stored.path)) as database, database:
                database.execute(
                    "INSERT INTO trials (trial_id, number, study_id, state) "
                    "SELECT 999, 99, study_id, 'RUNNING' FROM studies WHERE study_name = 'tiny'"
                )
                database.execute(
                    "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                    "VALUES (999, 'arm', '\"squentropy\"')"
                )

    engine = stored.storage.engine
    with closing(sqlite3.connect(stored.path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    sa.event.listen(engine, "before_cursor_execute", tuner_writes)
    try:
        copy = copy_studies(stored.storage, ["tiny"], tmp_path / "copy.db")
    finally:
        sa.event.remove(engine, "before_cursor_execute", tuner_writes)
        with closing(sqlite3.connect(stored.path)) as database, database:
            database.execute("DELETE FROM trial_user_attributes WHERE trial_id = 999")
            database.execute("DELETE FROM trials WHERE trial_id = 999")
    assert came
    with copy.engine.connect() as connection:
        counts = [
            connection.execute(sa.text(f"SELECT count(*) FROM {table} WHERE trial_id = 999"))
            for table in ("trials", "trial_user_attributes")
        ]
        assert [count.scalar() for count in counts] == [0, 0]


# --- comparison of pages -------------------------------------------------------------------------


def page(traces: str, words: str = "60.00") -> str:
    return (
        f'<section id="answer"><p>{words}</p></section><figure id="figure-curves">'
        f'<script type="application/json">{{"data": {traces}}}</script></figure>'
    )


ONE = page('[{"y": [1.0, 2.0]}]')


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (ONE, []),
        (page('[{"y": {"dtype": "f8", "bdata": "AAAAAAAA8D8AAAAAAAAAQA=="}}]'), []),  # 1.0, 2.0
        (page('[{"y": [1.0, 2.0000000001]}]'), []),
        (page('[{"y": [1.0, 2.001]}]'), ["figure curves"]),
        (page('[{"y": [1.0]}]'), ["figure curves"]),
        (page('[{"x": [1.0, 2.0]}]'), ["figure curves"]),
        (page('[{"y": [1.0, 2.0]}]', "61.00"), ["section answer"]),
        ("", ["figure curves", "section answer"]),
    ],
)
def test_pages_differ_in_figures_and_words_but_not_in_how_they_are_written(other, found):
    assert differences(ONE, other) == found
    assert differences(other, ONE) == found
