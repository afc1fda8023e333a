"""Facts of a study's text: what is stored, and what `run` says of it."""

from pathlib import Path

import pytest
from tiny_studies import tiny_study

from gpt.data.dataset import prepare
from sweep.study.dataset import data_facts, split_lines

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
    assert f"1 stories, {facts['validation_tokens']:,} tokens of valid/1.txt" in read
    assert "notes.md" in unread


def test_a_validation_text_that_was_cut_off_is_said_to_be_so(folder):
    (line,) = split_lines(facts_of(folder, {"stories.txt": STORIES}))
    assert "of stories.txt" in line
    assert "cut off from it" in line


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
