"""The text "auto" of a study that began without the hub."""

import shutil
import socket
from pathlib import Path

import pytest
from fake_hub import FakeHub, parquet_bytes
from invariants import study_of
from tiny_studies import run_tiny, tiny_study

from gpt.errors import InputError
from sweep.storage.schema import study_attrs
from sweep.study.spec import StudySpec

STORIES = [f"Story {number} of a cat and a dog." for number in range(300)]


@pytest.fixture
def began_offline(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> StudySpec:
    """A study of one trial on the built-in stories, since the hub refused the connection."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    spec = tiny_study(tmp_path, Path("auto"))
    text = spec.data.model_copy(update={"hub_name": "someone/Stories", "max_stories": 300})
    spec = spec.model_copy(update={"data": text})
    run_tiny(spec, tmp_path, trials=1)
    assert (study_attrs(study_of(tmp_path)).data or {})["kind"] == "built-in"
    return spec


def test_the_same_command_goes_on_when_the_hub_answers_and_does_not_ask_it(
    began_offline: StudySpec, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    columns = {
        "data/train-00000-of-00001.parquet": parquet_bytes("text", STORIES[:250]),
        "data/validation-00000-of-00001.parquet": parquet_bytes("text", STORIES[250:]),
    }
    with FakeHub({"someone/Stories": columns}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert run_tiny(began_offline, tmp_path, trials=2).finished == 2
        shutil.rmtree(cache)
        assert run_tiny(began_offline, tmp_path, trials=2).already_complete
        assert not cache.exists()  # a study that is complete needs no text
        assert run_tiny(began_offline, tmp_path, trials=3).finished == 3
        assert hub.requests == 0
        new = began_offline.model_copy(update={"name": "new"})
        assert run_tiny(new, tmp_path, trials=1).finished == 1
        assert hub.requests > 0
    data = study_attrs(study_of(tmp_path)).data or {}
    assert data["kind"] == "built-in"


def test_another_text_is_still_refused(began_offline: StudySpec, tmp_path: Path):
    (tmp_path / "own.txt").write_text("\n<|endoftext|>\n".join(STORIES))
    text = began_offline.data.model_copy(update={"source": str(tmp_path / "own.txt")})
    other = began_offline.model_copy(update={"data": text})
    with pytest.raises(InputError, match=r"pinned to its text.* pass --data built-in"):
        run_tiny(other, tmp_path, trials=2)
