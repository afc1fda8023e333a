"""Encodings: sizes, ids by hand, against naive references, on any text, and as files."""

import itertools
import json
import time
from pathlib import Path

import pytest
import regex
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from gpt.data import tokenizer
from gpt.errors import InputError, NetworkError

# GPT-2's own spelling of its pattern. Source: openai/gpt-2, src/encoder.py
GPT2_PATTERN = regex.compile(
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
)
RHYME = "the cat sat on the mat. the rat sat on the cat.\n\nthat's 12 cats, don't you think?  "
SMALL = tokenizer.train_bpe([RHYME], 280)


def naive_encode(encoding: tiktoken.Encoding, text: str) -> list[int]:
    """Byte-pair encoding by its definition: always the neighbours of lowest rank."""
    ranks = encoding._mergeable_ranks
    ids = []
    for piece in GPT2_PATTERN.findall(text):
        parts = [bytes([byte]) for byte in piece.encode()]
        while True:
            pairs = [(ranks.get(a + b), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
            known = [(rank, i) for rank, i in pairs if rank is not None]
            if not known:
                break
            _, i = min(known)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


def test_the_most_frequent_pairs_merge_first():
    encoding = tokenizer.train_bpe(["ab ab ab abc"], 256 + 3 + 1)
    # "ab" occurs 4 times, then " ab" 3 times, then " abc" once
    assert [encoding.decode_single_token_bytes(i) for i in (256, 257, 258)] == [
        b"ab",
        b" ab",
        b" abc",
    ]
    assert encoding.encode("ab ab abc") == [256, 257, 258]


def test_a_bpe_has_the_size_asked_for_and_ends_with_end_of_text():
    assert SMALL.n_vocab == 280
    assert tokenizer.end_of_text(SMALL) == 279
    assert SMALL.encode("<|endoftext|>", allowed_special="all") == [279]


@given(st.text())
def test_any_text_comes_back(text):
    assert SMALL.decode(SMALL.encode_ordinary(text)) == text


@given(st.text(alphabet="thecasmon .'\n  12é—", max_size=60))
def test_a_bpe_encodes_as_the_definition_says(text):
    assert SMALL.encode_ordinary(text) == naive_encode(SMALL, text)


def test_a_bpe_encodes_real_stories_as_its_trainer_would(shared_data):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    stories = (shared_data / "tinystories" / "valid.txt").read_text().split("<|endoftext|>")
    trainer = Tokenizer(models.BPE())
    trainer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer.train_from_iterator(
        stories,
        trainers.BpeTrainer(vocab_size=1023, initial_alphabet=alphabet, show_progress=False),
    )
    encoding = tokenizer.train_bpe(stories, 1024)
    ours = encoding.encode_ordinary_batch(stories)
    assert ours == [encoded.ids for encoded in trainer.encode_batch(stories)]
    assert ours[:20] == [naive_encode(encoding, story) for story in stories[:20]]


def test_training_reads_no_more_text_than_it_needs():
    assert tokenizer.train_bpe(itertools.cycle([RHYME]), 280).n_vocab == 280


def test_a_word_without_an_end_is_learned_in_parts():
    for word in ("a" * 5_000, " " * 5_000):
        encoding = tokenizer.train_bpe([f"b{word}b", RHYME], 400, or_fewer=True)
        assert max(map(len, tokenizer.tokens_of(encoding))) == 2_048  # not 4,096
        assert encoding.decode(encoding.encode_ordinary(word)) == word


def test_training_twice_gives_the_same_encoding():
    assert tokenizer.digest(tokenizer.train_bpe([RHYME], 280)) == tokenizer.digest(SMALL)
    assert tokenizer.digest(tokenizer.train_bpe([RHYME], 279)) != tokenizer.digest(SMALL)


def test_too_little_text_for_a_vocabulary_names_the_largest_one_that_works():
    with pytest.raises(InputError, match=r"at most 261 .* but got 5000"):
        tokenizer.train_bpe(["abcd abcd"], 5000)
    assert tokenizer.train_bpe(["abcd abcd"], 261).n_vocab == 261


def test_a_bpe_may_take_fewer_tokens_where_that_is_allowed():
    encoding = tokenizer.train_bpe(["abcd abcd"], 5000, or_fewer=True)
    assert encoding.n_vocab == 261
    assert encoding.name == "bpe-261"


def test_a_saved_encoding_loads_as_it_was(tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.write_encoding(SMALL, path)
    loaded = tokenizer.read_encoding(path)
    assert loaded.name == SMALL.name
    assert loaded.encode_ordinary(RHYME) == SMALL.encode_ordinary(RHYME)
    assert tokenizer.digest(loaded) == tokenizer.digest(SMALL)
    assert json.loads(path.read_text())["tokens"][256] == "YXQ="  # "at", seven times


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1, 2]",
        '{"name": "x", "pattern": "a", "tokens": ["YQ=="]}',
        '{"name": "x", "pattern": "a", "tokens": [3]}',
    ],
)
def test_load_refuses_a_file_that_is_no_encoding(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"tokenizer\.json must be a tokenizer"):
        tokenizer.read_encoding(path)


def test_load_refuses_a_file_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        tokenizer.read_encoding(tmp_path / "nothing.json")


@pytest.mark.usefixtures("gpt2_cache", "no_network")
def test_gpt2_encodes_as_gpt2_does_without_a_network():
    encoding = tokenizer.gpt2()
    assert encoding.n_vocab == 50257
    assert tokenizer.end_of_text(encoding) == 50256
    assert encoding.encode_ordinary("Hello world") == [15496, 995]  # as GPT-2's own encoder


@pytest.mark.usefixtures("no_network")
def test_gpt2_says_at_once_what_to_do_when_it_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(NetworkError, match=r'TIKTOKEN_CACHE_DIR .* or choose tokenizer = "bpe"'):
        tokenizer.gpt2()
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("no_network")
def test_gpt2_leaves_a_damaged_file_in_place_when_it_cannot_fetch_another(gpt2_cache: Path):
    damaged = gpt2_cache / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(NetworkError, match=r"vocab\.bpe is missing or damaged"):
        tokenizer.gpt2()
    assert damaged.exists()
