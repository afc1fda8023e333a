"""The hub, played by a server on 127.0.0.1: what is read, and how soon it is given up."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, parquet_bytes
from huggingface_hub import constants

from gpt.hub import HubDataset, HubUnreachableError
from gpt.network import unanswered

TRAIN = [f"Story {number} of a cat and a dog." for number in range(5_000)]
VALIDATION = ["A held-out story.", TRAIN[3], "", "Another held-out story."]


def data_set(column: str, train: list[str], validation: list[str] | None) -> dict[str, bytes]:
    files = {"data/train-00000-of-00001.parquet": parquet_bytes(column, train)}
    if validation:
        content = parquet_bytes(column, validation)
        files["data/validation-00000-of-00001.parquet"] = content
    return files


# Prints, as JSON, what prepare() made of each source. Run in processes of its own, because `datasets`
# reads HF_ENDPOINT and HF_HOME when it is imported.
PROGRAM = """
import json, sys
from gpt.config import DataConfig
from gpt.data import prepare
from gpt.errors import InputError
said = {}
for name, values in json.loads(sys.argv[1]).items():
    lines = []
    try:
        data = prepare(DataConfig(bpe_vocab_size=270, **values), lines.append)
        text = data.encoding().decode(data.train.tolist())
        said[name] = {"meta": data.meta.model_dump(), "train": text.split("<|endoftext|>")[:-1]}
    except InputError as error:
        said[name] = {"error": str(error)}
    said[name]["lines"] = lines
print(json.dumps(said))
"""

Said = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    long = [f"{number} {'once upon a time ' * 60}" for number in range(90_000)]  # 93 MB
    data_sets = {
        "someone/Stories": data_set("text", TRAIN, VALIDATION),
        "someone/Long": data_set("text", long, VALIDATION),
        "someone/NoColumn": data_set("story", TRAIN, VALIDATION),
        "someone/NoSplit": data_set("text", TRAIN, None),
        "other/Kept": data_set("text", TRAIN, VALIDATION),
    }
    with FakeHub(data_sets) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both processes keep what they read."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub: FakeHub, home: Path) -> Said:
    """What prepare() says while the hub answers; then `datasets` makes a copy of other/Kept."""
    stories = {"hub_name": "someone/Stories"}
    questions = {
        "whole": {"source": "hub"} | stories,
        "limited": {"source": "auto", "max_stories": 10} | stories,
        "long": {"source": "hub", "max_stories": 100, "hub_name": "someone/Long"},
        "no such data set": {"source": "auto", "hub_name": "no/such"},
        "no column": {"source": "hub", "hub_name": "someone/NoColumn"},
        "no split": {"source": "hub", "hub_name": "someone/NoSplit"},
    }
    keep = "import datasets; datasets.load_dataset('other/Kept')"
    return ask(PROGRAM + keep, hub.url, home, questions)


@pytest.fixture(scope="module")
def offline(online: Said, home: Path) -> Said:
    """What prepare() says, after that, while the hub does not answer."""
    questions = {
        "prepared": {"source": "auto", "hub_name": "someone/Stories"},
        "kept": {"source": "auto", "hub_name": "other/Kept", "max_stories": 10},
        "unknown": {"source": "hub", "hub_name": "someone/Stories", "max_stories": 5},
        "other of the kept one's owner": {"source": "hub", "hub_name": "other/Stories"},
    }
    return ask(PROGRAM, refused(), home, questions)


def ask(program: str, endpoint: str, home: Path, questions: dict[str, dict[str, object]]) -> Said:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "NO_PROXY": "127.0.0.1"}
    own["SQUEN_SWEEP_CACHE"] = str(home / "cache")
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(questions)],
        cwd=Path(__file__).parents[1],
        env=kept | own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: Said = json.loads(done.stdout)
    return said


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


def test_the_splits_of_a_data_set_are_read_and_share_no_story(online):
    whole = online["whole"]
    assert whole["train"] == TRAIN[:3] + TRAIN[4:]  # the fourth is a validation story
    assert whole["meta"]["validation_stories"] == 3  # one is empty
    assert (whole["meta"]["kind"], whole["meta"]["name"]) == ("hub", "someone/Stories")
    assert whole["meta"]["notice"] is None


def test_auto_takes_the_hub_where_it_answers(online):
    assert online["limited"]["meta"]["kind"] == "hub"
    assert online["limited"]["train"] == [*TRAIN[:3], *TRAIN[4:11]]


@pytest.mark.usefixtures("online")
def test_a_limit_of_stories_is_a_limit_of_download(hub):
    size = sum(len(content) for content in hub.data_sets["someone/Long"].values())
    assert hub.bytes_sent["someone/Long"] < 0.5 * size  # datasets asks for 32 MB at a time


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("no such data set", "hub_name must be a data set of the hub"),
        ("no column", "someone/NoColumn must have a column text, but has story"),
        ("no split", "someone/NoSplit must have a readable split validation"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_in_one_line(online, question, message):
    error = online[question]["error"]
    assert message in error
    assert "\n" not in error


def test_what_was_prepared_is_served_without_the_hub(online, offline):
    assert offline["prepared"]["meta"] == online["whole"]["meta"]
    assert offline["prepared"]["lines"] == []


def test_what_datasets_keeps_is_read_without_the_hub(offline):
    assert offline["kept"]["meta"]["kind"] == "hub"
    assert offline["kept"]["train"] == [*TRAIN[:3], *TRAIN[4:11]]


@pytest.mark.parametrize("question", ["unknown", "other of the kept one's owner"])
def test_what_nobody_keeps_is_refused_without_the_hub(offline, question):
    assert "cannot be had: http://127.0.0.1" in offline[question]["error"]
    assert "--data built-in" in offline[question]["error"]


def given_up(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, float]:
    """Why and after how many seconds the hub at an address was given up."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    start = time.monotonic()
    with pytest.raises(HubUnreachableError) as caught:
        HubDataset("someone/Stories")
    return caught.value.reason, time.monotonic() - start


def test_a_hub_that_refuses_is_given_up_at_once(monkeypatch):
    reason, seconds = given_up(refused(), monkeypatch)
    assert reason.endswith("cannot be reached")
    assert seconds < 2


def test_a_hub_whose_name_is_unknown_is_given_up_within_five_seconds(monkeypatch):
    reason, seconds = given_up("http://no.such.host.invalid", monkeypatch)
    assert "http://no.such.host.invalid" in reason
    assert seconds < 5


def test_a_hub_that_never_answers_is_given_up_within_five_seconds(silent, monkeypatch):
    reason, seconds = given_up(silent, monkeypatch)
    assert reason.endswith("did not answer within 3 s")
    assert seconds < 5


def test_a_look_up_of_a_name_that_hangs_is_given_up_within_five_seconds(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(8))
    reason, seconds = given_up("http://a.host.whose.name.server.sleeps", monkeypatch)
    assert reason.endswith("did not answer within 3 s")
    assert seconds < 5


@pytest.mark.usefixtures("no_network")
def test_a_proxy_that_refuses_is_named(monkeypatch):
    reason, seconds = given_up("https://hub.invalid", monkeypatch)
    assert "the proxy does not let https://hub.invalid" in reason
    assert seconds < 2


def test_hf_hub_offline_is_honoured_without_asking(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reason, seconds = given_up("http://no.such.host.invalid", monkeypatch)
    assert reason.endswith("HF_HUB_OFFLINE is set")
    assert seconds < 1


def test_a_hub_that_answers_is_found(hub):
    assert unanswered(f"{hub.url}/api/datasets/someone/Stories") is None
    assert unanswered(f"{hub.url}/api/datasets/no/such") is None  # an answer as well
