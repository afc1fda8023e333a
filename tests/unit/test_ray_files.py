"""Files and events of a trial on their way from a node: whole, each once, whatever is late."""

import os
from pathlib import Path

import pytest

from gpt.errors import DataError
from gpt.events import FILE
from sweep.backends import ray_files
from sweep.backends.base import Job, Slot
from sweep.backends.ray import RayBackend, RemoteTrial
from sweep.backends.ray_actor import News
from sweep.backends.ray_files import (
    ARRIVING,
    Offer,
    Piece,
    messages_of,
    put_in_place,
    read_pieces,
    set_times,
    snapshot,
    stamps_of,
    write_pieces,
)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A run directory on a node."""
    return write(tmp_path / "node" / "3", {"log.txt": "a", "checkpoints/step-4/state.json": "4"})


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """That of the tuner."""
    return write(tmp_path / "here" / "3", {"config.json": "{}"})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in stamps_of(folder)}


def fetch(node: Path, here: Path) -> Offer:
    """What a backend and an actor do together."""
    outbox = node.with_name("outbox")
    offer = snapshot(node, outbox, stamps_of(here), {})
    for message in messages_of({name: stamp.size for name, stamp in offer.stamps.items()}):
        write_pieces(here / ARRIVING, read_pieces(outbox, message))
    put_in_place(here, offer)
    return offer


def test_files_arrive_once_and_what_the_trainer_removed_is_removed(node: Path, here: Path):
    assert set(fetch(node, here).stamps) == {"log.txt", "checkpoints/step-4/state.json"}
    assert fetch(node, here).stamps == {}
    write(node, {"log.txt": "ab", "checkpoints/step-8/state.json": "8"})
    (node / "checkpoints/step-4/state.json").unlink()
    (node / "checkpoints/step-4").rmdir()
    assert set(fetch(node, here).stamps) == {"log.txt", "checkpoints/step-8/state.json"}
    assert texts(here) == {"config.json": "{}", **texts(node)}
    assert [path.name for path in (here / "checkpoints").iterdir()] == ["step-8"]
    assert not (here / ARRIVING).exists()


def test_hidden_files_links_and_the_log_of_events_do_not_travel(node: Path):
    write(node, {FILE: "{}\n", ".lock": "", "checkpoints/.step-8/state.json": ""})
    (node / "link").symlink_to("/etc/passwd")
    assert set(stamps_of(node)) == {"log.txt", "checkpoints/step-4/state.json"}


def test_a_file_that_changed_on_its_way_is_dropped_and_comes_the_next_time(node: Path, here: Path):
    outbox = node.with_name("outbox")
    offer = snapshot(node, outbox, {}, {})
    write_pieces(here / ARRIVING, read_pieces(outbox, [("log.txt", 0, 1)]))
    write_pieces(here / ARRIVING, [Piece("checkpoints/step-4/state.json", 0, b"5")])
    put_in_place(here, offer)
    assert texts(here) == {"config.json": "{}", "log.txt": "a"}
    fetch(node, here)
    assert (here / "checkpoints/step-4/state.json").read_text() == "4"


def test_nothing_is_removed_before_all_that_a_node_has_is_here(node: Path, here: Path):
    write(here, {"checkpoints/step-2/state.json": "2"})
    offer = snapshot(node, node.with_name("outbox"), {}, {})
    nothing = Offer(offer.present, {}, {})
    put_in_place(here, nothing)
    assert (here / "checkpoints/step-2/state.json").exists()
    fetch(node, here)
    assert not (here / "checkpoints/step-2").exists()


def test_a_checkpoint_that_is_removed_meanwhile_is_left_out(node: Path, monkeypatch):
    link = os.link

    def link_then_remove(source: Path, target: Path) -> None:
        link(source, target)
        if source.name == "state.json":
            source.unlink()

    monkeypatch.setattr(os, "link", link_then_remove)
    write(node, {"checkpoints/step-4/model": "m"})
    assert set(snapshot(node, node.with_name("outbox"), {}, {}).stamps) == {"log.txt"}


def test_files_that_came_from_here_stay_there_until_they_change(node: Path, here: Path):
    write(node, {"program.json": "path of the node"})
    came = stamps_of(node)
    outbox = node.with_name("outbox")
    assert snapshot(node, outbox, stamps_of(here), came).stamps == {}
    write(node, {"log.txt": "longer"})
    assert set(snapshot(node, outbox, stamps_of(here), came).stamps) == {"log.txt"}


def test_large_files_are_cut_into_messages_and_put_together_again(
    node: Path, here: Path, monkeypatch
):
    monkeypatch.setattr(ray_files, "PIECE_BYTES", 4)
    write(node, {"a": "0123456789", "b": "", "c": "xyz1", "d": "zz"})
    sizes = {name: (node / name).stat().st_size for name in "abcd"}
    messages = list(messages_of(sizes))
    assert all(0 < sum(size for _, _, size in message) <= 4 for message in messages[:-1])
    for message in messages:
        write_pieces(here, read_pieces(node, message))
    assert [(here / name).read_text() for name in "abcd"] == ["0123456789", "", "xyz1", "zz"]


@pytest.mark.parametrize("name", ["../config.json", "/tmp/x", "a/../../b"])
def test_a_name_that_leads_out_of_the_run_directory_is_refused(here: Path, name: str):
    with pytest.raises(DataError, match="in its run directory"):
        write_pieces(here, [Piece(name, 0, b"")])


def test_times_are_those_of_the_other_machine(node: Path, here: Path):
    stamps = {"config.json": stamps_of(node)["log.txt"]._replace(mtime_ns=123_000_000_000)}
    set_times(here, stamps)
    assert stamps_of(here)["config.json"].mtime_ns == 123_000_000_000


LINES = [b'{"event": "start"}\n', b'{"event": "evaluation", "step": 4}\n', b'{"event": "done"}\n']


@pytest.mark.parametrize("torn", [0, 7])
def test_events_that_come_late_or_twice_are_written_once_and_the_last_waits(here: Path, torn: int):
    backend = RayBackend()
    trial = RemoteTrial(Job(here, (), Slot(0, "cpu", 1)), actor=None, poll=None)
    whole = b"".join(LINES)

    def hear(start: int, end: int) -> None:
        backend._hear(trial, News(start, whole[start:end], False, None, None))

    first, second = len(LINES[0]) + torn, len(LINES[0] + LINES[1])
    for start, end in ((0, first), (0, first), (second, len(whole)), (0, second), (first, second)):
        hear(start, end)
    assert (here / FILE).read_bytes() == LINES[0] + LINES[1]
    hear(second, len(whole))
    hear(0, len(whole))
    assert (here / FILE).read_bytes() == LINES[0] + LINES[1]  # until its files are here
    assert trial.held == LINES[2]
