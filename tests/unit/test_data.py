"""Prepared tokens: what is in the files, how they are kept, validation rows, training batches."""

import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt.config import DataConfig
from gpt.data import token_files, tokenizer
from gpt.data.corpus import Corpus
from gpt.data.dataset import Batches, TokenData, ValidationSet, prepare
from gpt.errors import InputError, NetworkError, StorageError

TRAIN = ["The cat sat.", "A dog ran home.", "The cat ran.", "A bird sang to the dog and the cat."]
VALIDATION = ["The dog sat.", "A cat sang.", "Zoë — the bird — ran home to the dog."]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with a train.txt and a valid.txt of a few stories."""
    folder = tmp_path / "text"
    folder.mkdir()
    write(folder / "train.txt", TRAIN)
    write(folder / "valid.txt", VALIDATION)
    return folder


def write(path: Path, stories: list[str]) -> None:
    path.write_text("\n<|endoftext|>\n".join(stories))


def config(text: Path, **changes: object) -> DataConfig:
    return DataConfig(source=str(text), bpe_vocab_size=270).model_copy(update=changes)


def files_of(cache: Path) -> list[str]:
    """Everything in the cache but locks and the index."""
    return sorted(path.name for path in (cache / "tokens").rglob("*"))


@pytest.mark.usefixtures("cache")
def test_every_story_is_followed_by_end_of_text(text):
    data = prepare(config(text))
    encoding = data.encoding()
    validation = np.fromfile(data.folder / "val.bin", dtype=np.uint16)
    assert encoding.decode(data.train.tolist()) == "".join(s + "<|endoftext|>" for s in TRAIN)
    assert encoding.decode(validation.tolist()) == "".join(s + "<|endoftext|>" for s in VALIDATION)
    assert data.train[-1] == encoding.n_vocab - 1


@pytest.mark.usefixtures("cache")
def test_the_meta_data_count_what_is_there(text):
    data = prepare(config(text))
    meta = data.meta
    assert (meta.train_stories, meta.validation_stories) == (4, 3)
    assert meta.train_tokens == len(data.train)
    assert meta.train_bytes == sum(len(story.encode()) for story in TRAIN)
    assert meta.validation_bytes == sum(len(story.encode()) for story in VALIDATION)
    assert (meta.tokenizer, meta.vocab_size) == ("bpe-270", 270)
    assert (meta.kind, meta.name, meta.notice) == ("files", str(text), None)
    assert data.folder.name == meta.fingerprint


@pytest.mark.usefixtures("cache")
def test_nanogpt_can_read_the_folder(text):
    folder = prepare(config(text)).folder
    # as nanoGPT's train.py does
    assert pickle.loads((folder / "meta.pkl").read_bytes())["vocab_size"] == 270
    for name in ("train.bin", "val.bin"):
        tokens = np.memmap(folder / name, dtype=np.uint16, mode="r")
        assert tokens.max() == 269


@pytest.mark.usefixtures("cache")
def test_asking_again_reads_and_tokenises_nothing(text):
    write(text / "train.txt", [f"Story {number} of a cat and a dog." for number in range(5_000)])
    lines: list[str] = []
    first = prepare(config(text), lines.append)
    assert any("learning a vocabulary" in line for line in lines)
    lines.clear()
    assert prepare(config(text), lines.append).folder == first.folder
    assert lines == []


@pytest.mark.usefixtures("cache")
def test_another_text_tokenizer_or_limit_has_another_fingerprint(text):
    first = prepare(config(text))
    others = [
        prepare(config(text, bpe_vocab_size=271)),
        prepare(config(text, max_stories=3)),
    ]
    write(text / "train.txt", [*TRAIN, "One more."])
    others.append(prepare(config(text)))
    fingerprints = {data.meta.fingerprint for data in [first, *others]}
    assert len(fingerprints) == 4


@pytest.mark.usefixtures("cache")
def test_the_same_text_in_another_file_has_the_same_fingerprint(text, tmp_path):
    first = prepare(config(text))
    (first.folder / "mark").touch()
    copy = tmp_path / "copy"
    shutil.copytree(text, copy)
    os.utime(text / "train.txt", (0, 0))
    for source in (copy, text):
        again = prepare(config(source))
        assert again.meta.fingerprint == first.meta.fingerprint
        assert (again.folder / "mark").exists()


@pytest.mark.usefixtures("cache")
def test_a_text_has_the_name_and_the_files_that_were_given_now_not_those_of_an_equal_one(
    text, tmp_path
):
    first = prepare(config(text))
    copy = tmp_path / "copy"
    shutil.copytree(text, copy / "deep")
    for _ in range(2):  # read, and from the cache
        again = prepare(config(copy))
        assert again.folder == first.folder
        assert again.meta.name == str(copy)
        assert again.origin.train == ["deep/train.txt"]
    pinned = prepare(config(copy, fingerprint=first.meta.fingerprint))
    assert pinned.meta.name == str(copy)
    assert prepare(config(text)).meta.name == str(text)


def test_files_that_an_earlier_version_read_are_read_again_once(text, cache):
    first = prepare(config(text))
    (index,) = (cache / "index").iterdir()
    index.write_text(first.meta.fingerprint)  # without an account of what was read
    assert prepare(config(text)).origin == first.origin
    assert index.read_text().startswith(first.meta.fingerprint + "\n{")


@pytest.mark.usefixtures("cache")
def test_a_fingerprint_is_served_without_its_source(text):
    fingerprint = prepare(config(text)).meta.fingerprint
    shutil.rmtree(text)
    assert prepare(config(text, fingerprint=fingerprint)).meta.fingerprint == fingerprint


@pytest.mark.usefixtures("cache")
def test_a_fingerprint_is_made_again_from_the_same_text(text, cache):
    fingerprint = prepare(config(text)).meta.fingerprint
    shutil.rmtree(cache)
    assert prepare(config(text, fingerprint=fingerprint)).meta.fingerprint == fingerprint


@pytest.mark.usefixtures("cache")
def test_a_fingerprint_is_refused_when_the_text_changed(text, cache):
    fingerprint = prepare(config(text)).meta.fingerprint
    shutil.rmtree(cache)
    write(text / "train.txt", [*TRAIN, "One more."])
    with pytest.raises(InputError, match=rf"text or the tokenizer changed: .* {fingerprint} was"):
        prepare(config(text, fingerprint=fingerprint))


@pytest.mark.usefixtures("cache")
def test_a_fingerprint_must_be_one(text):
    with pytest.raises(InputError, match="16 hexadecimal digits"):
        prepare(config(text, fingerprint="../../etc"))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "name", ["train.bin", "val.bin", "meta.json", "tokenizer.json", "val_bytes.npy"]
)
def test_a_truncated_file_of_the_cache_is_made_again(text, name):
    first = prepare(config(text))
    content = (first.folder / name).read_bytes()
    (first.folder / name).write_bytes(content[:-2])
    again = prepare(config(text))
    assert (again.folder / name).read_bytes() == content


def test_an_index_that_a_power_cut_emptied_is_made_again(text, cache):
    first = prepare(config(text))
    (index,) = (cache / "index").iterdir()
    for content in (b"", b"\0" * 16, b"\xff"):
        index.write_bytes(content)
        assert prepare(config(text)).folder == first.folder


def test_a_cache_that_cannot_be_written_is_refused_in_one_line(text, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SQUEN_SWEEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"must be writable, but: .*; set SQUEN_SWEEP_CACHE"):
        prepare(config(text))


@pytest.mark.usefixtures("cache")
def test_a_text_shorter_than_one_block_is_refused(text):
    data = prepare(config(text))
    data.require(data.meta.train_tokens - 1)
    with pytest.raises(InputError, match=r"must be longer than one block, but has \d+ tokens"):
        data.require(data.meta.train_tokens)


@pytest.mark.usefixtures("cache", "gpt2_cache", "no_network")
def test_gpt2s_tokens_fit_the_files(text):
    data = prepare(config(text, tokenizer="gpt2", bpe_vocab_size=None))
    assert (data.meta.tokenizer, data.meta.vocab_size) == ("gpt2", 50257)
    assert data.train[-1] == 50256
    assert data.encoding().encode_ordinary("Hello world") == [15496, 995]


@pytest.mark.usefixtures("cache")
def test_real_stories_give_the_tokens_that_they_should(shared_data):
    data = prepare(DataConfig(source=str(shared_data / "tinystories"), max_stories=2_000))
    meta = data.meta
    assert 3.5 < meta.train_bytes / meta.train_tokens < 3.8
    stories = data.encoding().decode(data.train.tolist()).split("<|endoftext|>")
    assert len(stories) == 2_001
    assert stories[0].startswith("Once upon a time, there was a chubby cat named Kitty.")


@pytest.mark.usefixtures("cache", "no_network")
def test_auto_without_a_hub_is_the_built_in_corpus_and_says_so():
    lines: list[str] = []
    data = prepare(DataConfig(source="auto", max_stories=100), lines.append)
    assert data.meta.kind == "built-in"
    assert "NOT TinyStories" in data.meta.notice
    assert any("the built-in story grammar is used instead" in line for line in lines)
    assert prepare(DataConfig(source="built-in", max_stories=100)).folder == data.folder


@pytest.mark.usefixtures("cache", "no_network")
def test_a_hub_that_does_not_answer_is_refused_in_one_line_with_ways_out():
    with pytest.raises(NetworkError, match=r"cannot be had: .* --data PATH .* --data built-in"):
        prepare(DataConfig(source="hub"))


@pytest.mark.usefixtures("cache")
def test_the_built_in_corpus_knows_the_floor_of_what_is_evaluated():
    data = prepare(DataConfig(source="built-in", max_stories=100))
    nats = np.load(data.folder / "val_nats.npy")
    rows = data.validation(block_size=64, eval_tokens=1_000)
    stories = int(rows.story[-1]) + 1
    n_targets = int((rows.targets >= 0).sum())
    assert rows.floor_nats_per_token == pytest.approx(nats[:stories].sum() / n_targets)


# Validation rows


def token_data(folder: Path, stories: list[list[int]]) -> TokenData:
    """A folder whose validation stories are these ids below 256, cut by an encoding of bytes."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tokenizer._encoding("bytes", tokenizer.PATTERN, ranks)
    corpus = Corpus("files", "x", train=["a"], validation=["".join(map(chr, s)) for s in stories])
    folder.mkdir()
    token_files.write(
        folder, corpus, encoding, token_files.identify(corpus, encoding), lambda line: None
    )
    meta = token_files.read_meta(folder)
    assert meta
    return TokenData(folder, meta)


END = 256  # <|endoftext|> of an encoding of bytes


def test_validation_rows_are_whole_stories_between_end_of_texts(tmp_path):
    data = token_data(tmp_path / "tokens", [[1, 2, 3], [4], [5, 6]])
    rows = data.validation(block_size=3, eval_tokens=100)
    assert rows.idx.tolist() == [[END, 1, 2], [3, END, END], [END, 4, END], [END, 5, 6]]
    assert rows.targets.tolist() == [[1, 2, 3], [END, -1, -1], [4, END, -1], [5, 6, END]]
    assert rows.story.tolist() == [0, 0, 1, 2]
    assert rows.text_bytes == 6
    assert rows.floor_nats_per_token is None
    assert {tensor.dtype for tensor in (rows.idx, rows.targets, rows.story)} == {torch.int64}


@pytest.mark.parametrize(("eval_tokens", "stories"), [(1, 1), (4, 1), (5, 2), (6, 2), (7, 3)])
def test_validation_takes_whole_stories_until_there_are_enough_targets(
    tmp_path, eval_tokens, stories
):
    data = token_data(tmp_path / "tokens", [[1, 2, 3], [4], [5, 6]])
    rows = data.validation(block_size=8, eval_tokens=eval_tokens)
    assert int(rows.story[-1]) + 1 == stories
    assert rows.text_bytes == [3, 4, 6][stories - 1]


@pytest.mark.parametrize(("skip_tokens", "skipped"), [(0, 0), (1, 1), (4, 1), (5, 2), (6, 2)])
def test_validation_passes_over_exactly_the_stories_of_as_many_tokens(
    tmp_path, skip_tokens, skipped
):
    data = token_data(tmp_path / "tokens", [[1, 2, 3], [4], [5, 6]])
    rows = data.validation(8, 100, skip_tokens)
    every = data.validation(8, 100)
    assert rows.idx.tolist() == every.idx[skipped:].tolist()
    assert rows.targets.tolist() == every.targets[skipped:].tolist()
    assert rows.story.tolist() == list(range(3 - skipped))
    assert rows.text_bytes == 6 - [0, 3, 4][skipped]


def test_validation_without_a_story_behind_those_passed_over_is_refused(tmp_path):
    data = token_data(tmp_path / "tokens", [[1, 2, 3], [4], [5, 6]])
    with pytest.raises(InputError, match="after the first 7 tokens, but it has 9"):
        data.validation(8, 100, 7)


@given(
    stories=st.lists(st.lists(st.integers(1, 127), min_size=1, max_size=20), min_size=1),
    block_size=st.integers(1, 12),
)
def test_validation_rows_joined_are_the_stories(tmp_path_factory, stories, block_size):
    data = token_data(tmp_path_factory.mktemp("x") / "tokens", stories)
    rows = data.validation(block_size, eval_tokens=10**6)
    for number, story in enumerate(stories):
        mine = rows.story == number
        real = rows.targets[mine] >= 0
        assert rows.idx[mine][real].tolist() == [END, *story]
        assert rows.targets[mine][real].tolist() == [*story, END]
        assert len(real) == -(-(len(story) + 1) // block_size)


DOCUMENT = "".join(f"Line {number} of a play about a cat and a dog.\n" for number in range(2_000))


def test_a_document_is_validated_piece_by_piece_without_a_token_lost(tmp_path, cache):
    (tmp_path / "play.txt").write_text(DOCUMENT)
    data = prepare(config(tmp_path / "play.txt"))
    tokens = np.fromfile(data.folder / "val.bin", dtype=np.uint16).tolist()
    rows = data.validation(block_size=32, eval_tokens=10**9)
    real = rows.targets >= 0
    assert rows.targets[real].tolist() == tokens
    assert rows.idx[real].tolist() == [tokens[-1], *tokens[:-1]]
    assert rows.text_bytes == len(DOCUMENT.strip()) - len(DOCUMENT.strip()) * 9 // 10
    assert len(rows.story_bytes) > 3
    some = data.validation(block_size=32, eval_tokens=600)
    assert int((some.targets >= 0).sum()) == 2 * token_files.PIECE_TOKENS
    held_back = data.validation(32, 10**9, skip_tokens=600)
    assert held_back.text_bytes == rows.text_bytes - some.text_bytes


def test_the_tokens_of_a_document_take_a_few_bytes_each(tmp_path):
    encoding = tokenizer.train_bpe([DOCUMENT], 280)
    document = DOCUMENT * 10
    tracemalloc.start()
    try:
        written = token_files._write_tokens(
            tmp_path / "train.bin", [document], encoding, lambda message: None
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    tokens = np.fromfile(tmp_path / "train.bin", dtype=np.uint16)
    assert tokens.tolist() == [*encoding.encode_ordinary(document), 279]
    assert written == len(tokens)
    assert peak < 10 * written


def test_a_document_shares_no_tokens_with_two_files_of_the_same_text(tmp_path, cache):
    (tmp_path / "play.txt").write_text(DOCUMENT)
    data = prepare(config(tmp_path / "play.txt"))
    at = len(DOCUMENT.strip()) * 9 // 10
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "train.txt").write_text(DOCUMENT.strip()[:at])
    (folder / "valid.txt").write_text(DOCUMENT.strip()[at:])
    assert prepare(config(folder)).meta.fingerprint != data.meta.fingerprint


# Training batches

STREAM = np.arange(100, dtype=np.uint16)


def test_targets_are_the_tokens_after_the_inputs():
    idx, targets = next(Batches(STREAM, block_size=8, batch_size=5, seed=0))
    assert idx.shape == targets.shape == (5, 8)
    assert idx.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, idx + 1)
    assert torch.equal(idx, idx[:, :1] + torch.arange(8))


def test_every_window_can_be_drawn_and_none_beyond_the_end():
    idx, _ = next(Batches(STREAM, block_size=8, batch_size=10_000, seed=0))
    assert sorted(set(idx[:, 0].tolist())) == list(range(92))  # 92 + 8 is the last target


def test_a_stream_of_one_block_and_one_token_has_one_window():
    idx, targets = next(Batches(STREAM[:9], block_size=8, batch_size=2, seed=0))
    assert idx.tolist() == [list(range(8))] * 2
    assert targets[0, -1] == 8


def test_batches_depend_on_the_seed_alone():
    def draw(seed: int) -> torch.Tensor:
        return next(Batches(STREAM, block_size=8, batch_size=5, seed=seed))[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@given(processes=st.integers(1, 5), size=st.integers(1, 4))
def test_processes_share_the_batches_of_one(processes: int, size: int):
    of_one = Batches(STREAM, block_size=8, batch_size=size * processes, seed=3)
    shared = [Batches(STREAM, 8, size, 3, rank, processes) for rank in range(processes)]
    for _ in range(2):
        whole = next(of_one)
        parts = [next(batches) for batches in shared]
        for index in (0, 1):
            assert torch.equal(torch.cat([part[index] for part in parts]), whole[index])
    assert all(batches.state_dict() == of_one.state_dict() for batches in shared)


@given(processes=st.integers(1, 6), rows=st.integers(1, 9))
def test_processes_share_the_validation_rows_in_the_order_of_the_text(processes: int, rows: int):
    idx = torch.arange(3 * rows).view(rows, 3)
    data = ValidationSet(idx, idx + 1, torch.arange(rows), torch.ones(rows), None)
    parts = [data.part(rank, processes) for rank in range(processes)][:rows]
    assert torch.equal(torch.cat([part.idx for part in parts]), idx)
    assert torch.equal(torch.cat([part.targets for part in parts]), idx + 1)
    assert torch.equal(torch.cat([part.story for part in parts]), torch.arange(rows))
    assert all(len(data.part(rank, processes).idx) > 0 for rank in range(processes))


def test_batches_go_on_from_a_state_that_went_through_json():
    batches = Batches(STREAM, block_size=8, batch_size=5, seed=0)
    next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    expected = [next(batches)[0] for _ in range(3)]
    resumed = Batches(STREAM, block_size=8, batch_size=5, seed=7)
    resumed.load_state_dict(state)
    assert all(torch.equal(next(resumed)[0], idx) for idx in expected)
