"""The hub, played by a server on 127.0.0.1: what is read, and how soon it is given up."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, parquet_bytes

from gpt.config import DataConfig
from gpt.data.dataset import TokenData, prepare
from gpt.data.hub import HubDataset, HubUnreachableError, validation_split
from gpt.data.network import unreachable_reason
from gpt.errors import InputError

TRAIN = [f"Story {number} of a cat and a dog." for number in range(5_000)]
VALIDATION = ["A held-out story.", TRAIN[3], "", "Another held-out story."]


def data_set(column: str, train: list[str], validation: list[str] | None) -> dict[str, bytes]:
    files = {"data/train-00000-of-00001.parquet": parquet_bytes(column, train)}
    if validation:
        content = parquet_bytes(column, validation)
        files["data/validation-00000-of-00001.parquet"] = content
    return files


def jsonl(*records: dict[str, object]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


LANGUAGES = b"""---
configs:
- config_name: en
  data_files:
  - {split: train, path: en/train.parquet}
  - {split: train_sft, path: en/sft.parquet}
  - {split: test_sft, path: en/test_sft.parquet}
- config_name: de
  data_files:
  - {split: train, path: de/train.parquet}
---
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    long = [f"{number} {'once upon a time ' * 60}" for number in range(90_000)]  # 93 MB
    data_sets = {
        "someone/Stories": data_set("text", TRAIN, VALIDATION),
        "someone/Long": data_set("text", long, VALIDATION),
        "someone/OneColumn": data_set("story", TRAIN, VALIDATION),
        "someone/NoColumn": {"train.jsonl": jsonl({"title": "A", "body": "B"})},
        "someone/Mixed": {"train.jsonl": jsonl(*({"text": text} for text in [*TRAIN[:60], 5]))},
        "someone/TrainOnly": data_set("text", TRAIN, None),
        "someone/Languages": {
            "README.md": LANGUAGES,
            "en/train.parquet": parquet_bytes("text", TRAIN),
            "en/sft.parquet": parquet_bytes("text", ["Fine tuning.", *TRAIN[:50]]),
            "en/test_sft.parquet": parquet_bytes("text", VALIDATION),
            "de/train.parquet": parquet_bytes("text", [f"Geschichte {n}." for n in range(200)]),
        },
        "someone/Stuck": data_set("text", TRAIN, VALIDATION),
    }
    with FakeHub(data_sets, stuck={"someone/Stuck"}) as server:
        yield server


@pytest.fixture(autouse=True)
def hf_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of `datasets`, and no setting of this machine."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def at_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(unreachable_reason, "__defaults__", (120.0,))  # on a busy machine
    monkeypatch.setattr("gpt.data.hub.START_SECONDS", 120.0)
    return hub


def config(**values: object) -> DataConfig:
    return DataConfig(hub_name="someone/Stories", bpe_vocab_size=270).model_copy(update=values)


def train_of(data: TokenData) -> list[str]:
    return data.encoding().decode(data.train.tolist()).split("<|endoftext|>")[:-1]


def refused() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.usefixtures("cache", "at_hub")
def test_a_data_set_of_the_hub_is_read_once_and_then_served_without_the_hub(monkeypatch):
    data = prepare(config(source="hub"))
    assert train_of(data) == TRAIN[:3] + TRAIN[4:]  # the fourth is a validation story
    assert data.meta.validation_stories == 3  # one is empty
    assert (data.meta.kind, data.meta.name) == ("hub", "someone/Stories")
    assert data.meta.notice is None
    monkeypatch.setenv("HF_ENDPOINT", refused())
    lines: list[str] = []
    assert prepare(config(source="auto"), lines.append).folder == data.folder
    assert lines == []


@pytest.mark.usefixtures("cache")
def test_auto_takes_the_hub_where_it_answers_and_downloads_no_more_than_it_needs(at_hub):
    data = prepare(config(source="auto", hub_name="someone/Long", max_stories=100))
    assert data.meta.kind == "hub"
    assert data.meta.train_stories == 100
    size = sum(len(content) for content in at_hub.data_sets["someone/Long"].values())
    assert at_hub.bytes_sent["someone/Long"] < 0.5 * size  # datasets asks for 32 MB at a time


@pytest.mark.usefixtures("at_hub")
def test_what_datasets_keeps_is_read_without_the_hub(monkeypatch):
    keep = "import datasets; datasets.load_dataset('someone/Stories')"
    subprocess.run([sys.executable, "-c", keep], capture_output=True, check=True, timeout=120)
    monkeypatch.setenv("HF_ENDPOINT", refused())
    assert list(HubDataset("someone/Stories").stories("train")) == TRAIN
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        list(HubDataset("someone/Long").stories("train"))


@pytest.mark.usefixtures("at_hub")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such", "hub_name must be a data set of the hub"),
        ("someone/NoColumn", "must have a column text, .*but has: title, body"),
        ("someone/TrainOnly", "split must be one of train in someone/TrainOnly"),
        ("someone/Languages", "someone/Languages must be a data set .*'en'.*hub_config"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_in_one_line(name, message):
    with pytest.raises(InputError, match=message) as caught:
        list(HubDataset(name).stories("train" if name == "someone/NoColumn" else "validation"))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("at_hub")
def test_a_value_of_the_hub_that_is_no_string_is_refused_not_converted():
    with pytest.raises(InputError, match="must hold strings in its column text"):
        list(HubDataset("someone/Mixed").stories("train"))


@pytest.mark.usefixtures("cache", "at_hub")
def test_a_data_set_with_a_train_split_only_has_its_validation_cut_off():
    data = prepare(config(source="hub", hub_name="someone/TrainOnly", max_stories=500))
    assert data.meta.train_stories == 500
    assert 10 < data.meta.validation_stories < 50
    assert (data.origin.train, data.origin.validation, data.origin.cut) == (
        ["train"],
        [],
        "by hash",
    )


@pytest.mark.usefixtures("cache", "at_hub")
def test_configuration_split_and_column_of_a_data_set_can_be_chosen():
    german = config().with_source("hub:someone/Languages/de")
    data = prepare(german)
    assert train_of(data)[0].startswith("Geschichte")
    assert data.meta.name == "someone/Languages/de"
    data = prepare(german.model_copy(update={"hub_config": "en", "split": "train_sft"}))
    assert train_of(data)[0] == "Fine tuning."
    assert (data.origin.validation, data.origin.unread) == (["test_sft"], ["train"])
    data = prepare(config(source="hub", hub_name="someone/OneColumn", max_stories=50))
    assert train_of(data)[0] == TRAIN[0]
    data = prepare(config(source="hub", hub_name="someone/OneColumn", column="story"))
    assert data.meta.validation_stories == 3


@pytest.mark.usefixtures("cache", "at_hub")
def test_a_test_split_of_the_hub_never_trains():
    sft = config().with_source("hub:someone/Languages/en")
    with pytest.raises(InputError, match="split must be one to train on"):
        prepare(sft.model_copy(update={"split": "test_sft"}))


@pytest.mark.parametrize(
    ("train", "splits", "expected"),
    [
        ("train", ["train", "validation", "test"], "validation"),
        ("train", ["train", "test"], "test"),
        ("train", ["train", "Validation"], "Validation"),
        ("train_sft", ["train_sft", "train_gen", "test_gen", "test_sft"], "test_sft"),
        ("en", ["en", "dev"], "dev"),
        ("train", ["train", "extra"], None),
    ],
)
def test_the_split_that_validates_is_found_by_its_name(train, splits, expected):
    assert validation_split(train, splits) == expected


@pytest.mark.usefixtures("at_hub")
def test_a_hub_that_answers_but_sends_no_story_is_given_up():
    with pytest.raises(HubUnreachableError, match=r"no story arrived within 1\.5 s"):
        list(HubDataset("someone/Stuck").stories("train", patience=1.5))


@pytest.mark.usefixtures("at_hub", "cache")
def test_auto_says_how_long_it_waits_for_a_story_and_then_takes_the_built_in_ones(monkeypatch):
    monkeypatch.setattr("gpt.data.hub.START_SECONDS", 1.5)
    lines: list[str] = []
    data = prepare(config(source="auto", hub_name="someone/Stuck", max_stories=50), lines.append)
    assert data.meta.kind == "built-in"
    asking, gave_up, *_ = lines
    assert asking.endswith("someone/Stuck; its first story has 1.5 s")
    assert "no story arrived within 1.5 s; the built-in story grammar is used" in gave_up


def test_the_time_for_the_first_story_begins_when_the_reader_asks_for_it(
    at_hub, tmp_path, monkeypatch
):
    slow = """#!/bin/sh\nsleep 2\necho null\necho '"A story."'\necho '{}'\n"""
    use_reader(slow, tmp_path, monkeypatch)
    stories = HubDataset("someone/Stories").stories("train", patience=1.5)
    assert list(stories) == ["A story."]


@pytest.mark.usefixtures("cache")
def test_a_slow_link_is_not_given_up_where_the_hub_was_asked_for(at_hub, tmp_path, monkeypatch):
    slow = """#!/bin/sh\necho null\nsleep 2\necho '["train", "validation"]'
case "$5" in *true*) echo '"Held out."';; *) echo '"A story of '$4'."';; esac\necho '{}'\n"""
    use_reader(slow, tmp_path, monkeypatch)
    monkeypatch.setattr("gpt.data.hub.START_SECONDS", 0.5)
    lines: list[str] = []
    data = prepare(config(source="hub", bpe_vocab_size=257), lines.append)
    assert train_of(data) == ["A story of train."]
    assert lines[0].endswith("someone/Stories; its first story may take minutes")
    other = config(source="auto", bpe_vocab_size=258, max_stories=50)
    assert prepare(other).meta.kind == "built-in"  # it has something else to take


def use_reader(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with a shell script instead of Python."""
    reader = folder / "python"
    reader.write_text(script)
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))


def test_a_reader_that_is_killed_in_the_middle_of_a_story_is_told_in_one_line(
    at_hub, tmp_path, monkeypatch
):
    killed = """#!/bin/sh\necho null\necho '"A story."'\nprintf '"Half a st'\nkill -9 $$\n"""
    use_reader(killed, tmp_path, monkeypatch)
    with pytest.raises(HubUnreachableError, match="the reading broke off"):
        list(HubDataset("someone/Stories").stories("train"))


PATIENCE = 20  # seconds, on a busy machine; without our own limit it takes 23 at least


def given_up(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, float]:
    """Why and after how many seconds the hub at an address was given up."""
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    start = time.monotonic()
    with pytest.raises(HubUnreachableError) as caught:
        HubDataset("someone/Stories")
    return caught.value.reason, time.monotonic() - start


def test_a_hub_that_refuses_is_given_up_at_once(monkeypatch):
    reason, seconds = given_up(refused(), monkeypatch)
    assert reason.endswith("cannot be reached")
    assert seconds < PATIENCE


def test_a_hub_whose_name_is_unknown_is_given_up_within_seconds(monkeypatch):
    reason, seconds = given_up("http://no.such.host.invalid", monkeypatch)
    assert "http://no.such.host.invalid" in reason
    assert seconds < PATIENCE


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a host to answer, which really has three."""
    monkeypatch.setattr("gpt.data.network.unreachable_reason.__defaults__", (1.0,))


@pytest.mark.usefixtures("one_second")
def test_a_hub_that_never_answers_is_given_up_within_seconds(silent, monkeypatch):
    reason, seconds = given_up(silent, monkeypatch)
    assert reason.endswith("did not answer within 1 s")
    assert seconds < PATIENCE


@pytest.mark.usefixtures("one_second")
def test_a_look_up_of_a_name_that_hangs_is_given_up_within_seconds(monkeypatch):
    def look_up(*args: object, **options: object) -> None:
        time.sleep(2)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    reason, seconds = given_up("http://a.host.whose.name.server.sleeps", monkeypatch)
    assert reason.endswith("did not answer within 1 s")
    assert seconds < PATIENCE


@pytest.mark.usefixtures("no_network")
def test_a_proxy_that_refuses_is_named(monkeypatch):
    reason, seconds = given_up("https://hub.invalid", monkeypatch)
    assert "the proxy does not let https://hub.invalid" in reason
    assert seconds < PATIENCE


def test_hf_hub_offline_is_honoured_without_asking(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reason, seconds = given_up("http://no.such.host.invalid", monkeypatch)
    assert reason.endswith("HF_HUB_OFFLINE is set")
    assert seconds < PATIENCE


def test_a_hub_that_answers_is_found(hub):
    assert unreachable_reason(f"{hub.url}/api/datasets/someone/Stories") is None
    assert unreachable_reason(f"{hub.url}/api/datasets/no/such") is None  # an answer as well
