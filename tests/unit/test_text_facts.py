"""Facts of a study's text: what is stored, and what `run` says of it."""

import json
from pathlib import Path

import pytest
from tiny_studies import tiny_study

from gpt.config import DataConfig
from gpt.data.dataset import prepare
from gpt.errors import InputError
from sweep.callbacks.plain import QuietProgress
from sweep.storage.location import data_options
from sweep.storage.schema import study_attrs
from sweep.study.dataset import data_facts, described, source_facts, split_lines
from sweep.study.spec import StudySpec
from sweep.tuner.limits import Limits
from sweep.tuner.options import RunOptions
from sweep.tuner.start import open_study

STORIES = [f"Story {number} is about a cat and a dog." for number in range(100)]


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    return tmp_path / "text"


def facts_of(folder: Path, files: dict[str, list[str]]) -> dict[str, object]:
    for name, stories in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<|endoftext|>".join(stories))
    spec = tiny_study(folder.parent, folder)
    return data_facts(prepare(spec.data), spec)


def test_the_files_of_each_split_are_stored_and_said_with_their_stories_and_tokens(folder):
    files = {"train/1.txt": STORIES, "train/2.txt": ["More."], "valid/1.txt": ["Held out. " * 60]}
    facts = facts_of(folder, files | {"notes.md": ["x"]})
    assert facts["splits"] == {
        "train": ["train/1.txt", "train/2.txt"],
        "validation": ["valid/1.txt"],
        "cut": "",
        "unread": ["notes.md"],
    }
    read, unread = split_lines(facts)
    assert f"101 stories, {facts['train_tokens']:,} tokens of train/1.txt, train/2.txt" in read
    assert f"1 story, {facts['validation_tokens']:,} tokens of valid/1.txt" in read
    assert "notes.md" in unread
    assert described(facts) == f"{folder}, bpe-280; {read}; {unread}"


def test_a_validation_text_that_was_cut_off_is_said_to_be_so(folder):
    (line,) = split_lines(facts_of(folder, {"stories.txt": STORIES}))
    assert "of stories.txt" in line
    assert "cut off from it" in line


def test_a_plain_text_is_said_to_be_one_document(folder):
    (line,) = split_lines(
        facts_of(
            folder, {"play.txt": ["".join(f"Line {n} of a play about a cat. " for n in range(400))]}
        )
    )
    assert "one document" in line


def test_a_study_that_was_stored_before_there_were_these_options_means_the_same(tmp_path):
    spec = tiny_study(tmp_path, tmp_path)
    stored = spec.model_dump(mode="json")
    for name in ("column", "split", "hub_config"):
        del stored["data"][name]
    assert spec.differences(stored) == []
    assert StudySpec.model_validate(stored).digest == spec.digest
    chosen = spec.data.model_copy(update={"column": "body", "split": "all", "hub_config": "en"})
    assert spec.model_copy(update={"data": chosen}).digest == spec.digest  # the fingerprint pins it


def test_what_finds_a_text_again_is_stored():
    data = DataConfig(column="body", split="all").with_source("hub:someone/Stories/en")
    facts = source_facts(data)
    assert facts == {
        "source": "hub:someone/Stories/en",
        "options": {"column": "body", "split": "all"},
    }
    again = DataConfig().with_source(facts["source"]).model_copy(update=facts["options"])
    assert again == data
    assert source_facts(DataConfig(source="/some/where")) == {}


def test_a_study_goes_on_with_the_column_that_it_was_started_with(tmp_path, cache, monkeypatch):
    path = tmp_path / "stories.csv"
    path.write_text("title,body\n" + "".join(f'A title,"{story}"\n' for story in STORIES))
    spec = tiny_study(tmp_path, path)
    options = RunOptions(
        storage=str(tmp_path / "sweep.db"),
        runs=tmp_path / "runs",
        device="cpu",
        workers=1,
        limits=Limits(),
        wait=False,
    )
    chosen = spec.data.model_copy(update={"column": "body"})
    with open_study(spec, chosen, options, QuietProgress()) as opened:
        first = opened.facts.data["fingerprint"]
    with open_study(spec, DataConfig(bpe_vocab_size=280), options, QuietProgress()) as again:
        assert again.facts.data["fingerprint"] == first
        stored = study_attrs(again.study).data
        monkeypatch.chdir(tmp_path)
        assert data_options(again.study) == "--data stories.csv --column body"
    assert stored["options"] == {"column": "body"}
    assert str(tmp_path) not in json.dumps(stored)


@pytest.mark.parametrize("source", ["hub:", "hub:a//b", "hub:a/b/c/d", "hub:/"])
def test_a_data_set_of_the_hub_must_have_a_name(source):
    with pytest.raises(InputError, match="must name a data set of the hub"):
        DataConfig().with_source(source)


def test_nothing_stored_about_the_files_is_an_absolute_path(folder):
    facts = facts_of(folder, {"a/train.txt": STORIES, "a/dev.txt": ["Held out."]})
    assert str(folder) not in str(facts["splits"])


def test_a_thousand_files_fit_a_line():
    splits = {"train": [f"train-{n}.txt" for n in range(1_000)], "validation": ["valid.txt"]}
    amounts = dict.fromkeys(
        ["train_stories", "train_tokens", "validation_stories", "validation_tokens"], 1
    )
    (line,) = split_lines({**amounts, "splits": {**splits, "cut": "", "unread": []}})
    assert "train-3.txt and 996 more" in line
    assert len(line) < 200


def test_a_study_that_was_stored_without_splits_says_nothing_of_them():
    assert split_lines({"train_stories": 3}) == []
