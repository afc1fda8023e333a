"""Files that nanoGPT's programs load, and data sets of its own read as a text.

What sample.py and train.py do with a file is written down here line for line in our own words; the
programs themselves were run by hand.
"""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_runs import make_run, own_bpe

from gpt.config import DataConfig
from gpt.data.corpus import read_corpus
from gpt.data.dataset import prepare
from gpt.data.nanogpt import meta_pickle, read_tokens, renew_meta
from gpt.data.token_files import read_meta
from gpt.data.tokenizer import END_OF_TEXT, gpt2, write_encoding
from gpt.errors import InputError, StorageError
from sweep.export.nanogpt import write_checkpoint
from sweep.export.trained_run import read_trained_run

STORIES = ["The cat sat on the mat.", "A dog saw the cat.", "The mat was red.", "Élise ate it."]
PLAY = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 60


def quiet(message: str) -> None:
    """Show nothing."""


def corpus_of(path: Path):
    return read_corpus(DataConfig(source=str(path)), quiet)


def refuse(file: Path, **options: object) -> None:
    raise PermissionError(13, "Permission denied", str(file))


def test_tokens_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_ids(tmp_path / "train.bin", [1, 2])
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"itos": ["a", "b", "c"]}))
    monkeypatch.setattr("numpy.memmap", refuse)
    with pytest.raises(InputError, match=r"train\.bin must be readable, but: Permission denied"):
        corpus_of(tmp_path)


def write_ids(path: Path, ids: list[int]) -> None:
    path.write_bytes(np.array(ids, dtype=np.uint16).tobytes())


def write_stories(path: Path, stories: list[str]) -> None:
    """As data/openwebtext/prepare.py."""
    write_ids(path, [n for story in stories for n in [*gpt2().encode_ordinary(story), 50256]])


@pytest.fixture
def characters(tmp_path: Path) -> Path:
    """A set of characters, as nanoGPT's data/shakespeare_char/prepare.py leaves it."""
    folder = tmp_path / "play"
    folder.mkdir()
    itos = dict(enumerate(sorted(set(PLAY))))
    stoi = {character: number for number, character in itos.items()}
    cut = int(len(PLAY) * 0.9)
    write_ids(folder / "train.bin", [stoi[c] for c in PLAY[:cut]])
    write_ids(folder / "val.bin", [stoi[c] for c in PLAY[cut:]])
    meta = {"vocab_size": len(itos), "itos": itos, "stoi": stoi}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    (folder / "prepare.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def prepared(tmp_path: Path, cache: Path) -> DataConfig:
    text = f"\n{END_OF_TEXT}\n".join([*STORIES, *(f"Story {n} of a cat." for n in range(60))])
    (tmp_path / "stories.txt").write_text(text)
    return DataConfig(source=str(tmp_path / "stories.txt"), bpe_vocab_size=270)


# --- data sets of nanoGPT ------------------------------------------------------------------------


def test_a_set_of_characters_is_one_document_with_its_own_split(characters):
    corpus = corpus_of(characters)
    cut = int(len(PLAY) * 0.9)
    assert (corpus.train, corpus.validation) == ([PLAY[:cut].strip()], [PLAY[cut:].strip()])
    assert corpus.is_document  # so it is evaluated in pieces
    assert (corpus.origin.train, corpus.origin.validation) == (["train.bin"], ["val.bin"])
    assert corpus.origin.unread == ["prepare.py"]


def test_without_val_bin_the_end_of_the_document_validates(characters):
    (characters / "val.bin").unlink()
    corpus = corpus_of(characters)
    assert len(corpus.train[0]) == len("".join([*corpus.train, *corpus.validation])) * 9 // 10


@pytest.mark.usefixtures("gpt2_cache")
def test_ids_without_a_meta_pkl_are_gpt2s_and_end_of_text_ends_a_story(tmp_path):
    write_stories(tmp_path / "train.bin", STORIES[:3])
    write_stories(tmp_path / "val.bin", STORIES[3:])
    corpus = corpus_of(tmp_path)
    assert (corpus.train, corpus.validation) == (STORIES[:3], STORIES[3:])
    assert not corpus.is_document


@pytest.mark.usefixtures("gpt2_cache")
def test_a_story_that_is_longer_than_what_is_read_at_once_stays_one(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt.data.nanogpt.IDS_AT_ONCE", 3)
    write_stories(tmp_path / "train.bin", STORIES[:3])
    write_stories(tmp_path / "val.bin", STORIES[:1])
    assert corpus_of(tmp_path).train == STORIES[1:3]  # the first one validates


def test_a_character_of_several_tokens_stays_whole_where_a_reading_ends_within_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("gpt.data.nanogpt.IDS_AT_ONCE", 1)
    story, encoding = "Élise: \N{GRINNING FACE}", own_bpe()
    ids = encoding.encode_ordinary(story)
    assert len(ids) > len(story)
    write_encoding(encoding, tmp_path / "tokenizer.json")
    write_ids(tmp_path / "train.bin", ids)
    assert list(read_tokens(tmp_path / "train.bin")) == [story]


def test_other_characters_for_the_same_ids_are_another_text(characters, cache):
    data = DataConfig(source=str(characters), bpe_vocab_size=270)
    before = prepare(data)
    assert prepare(data).folder == before.folder
    meta = pickle.loads((characters / "meta.pkl").read_bytes())
    meta["itos"] = {number: text.upper() for number, text in meta["itos"].items()}
    (characters / "meta.pkl").write_bytes(pickle.dumps(meta))
    assert prepare(data).folder != before.folder


def test_tokens_that_squen_sweep_prepared_are_the_text_that_they_were_made_of(prepared, tmp_path):
    folder = prepare(prepared).folder
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    expected, found = read_corpus(prepared, quiet), corpus_of(copy)
    assert (found.train, found.validation) == (expected.train, expected.validation)
    assert "Élise ate it." in found.train + found.validation


def test_a_text_beside_tokens_is_read_instead(characters):
    (characters / "input.txt").write_text(f"a{END_OF_TEXT}b")
    assert sorted(corpus_of(characters).train + corpus_of(characters).validation) == ["a", "b"]


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_that_names_code_is_refused_and_not_run(characters, tmp_path):
    meta = {"itos": {0: "a"}, "more": _Touch(tmp_path / "ran")}
    (characters / "meta.pkl").write_bytes(pickle.dumps(meta))
    with pytest.raises(InputError, match=r"meta\.pkl must be .* names (posix|nt)\.mkdir"):
        corpus_of(characters)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train.bin", b"\0\0\0", r"train\.bin must hold ids of two bytes .* 3 bytes: it is trunc"),
        ("train.bin", b"\xff\xff", r"train\.bin must hold ids below \d+, .* but holds 65,535"),
        ("train.bin", b"", "at least two different stories"),
        ("meta.pkl", b"", r"meta\.pkl must be a meta\.pkl of nanoGPT"),
        ("meta.pkl", pickle.dumps({"vocab_size": 4}), r"must have nanoGPT's itos.* has vocab_size"),
        ("meta.pkl", pickle.dumps([1]), r"must have nanoGPT's itos.* has a list"),
        ("meta.pkl", pickle.dumps({"itos": {0: "a", 2: "b"}}), "must have nanoGPT's itos"),
    ],
)
def test_a_damaged_data_set_is_one_line(characters, name, content, says):
    (characters / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        corpus_of(characters)
    assert "\n" not in str(caught.value)


# --- for nanoGPT's programs ----------------------------------------------------------------------


def test_sample_py_finds_every_character_and_writes_every_token(prepared):
    data = prepare(prepared)
    meta = pickle.loads((data.folder / "meta.pkl").read_bytes())
    stoi, itos = meta["stoi"], meta["itos"]
    prompt = "Once upon a time\n"
    assert "".join(itos[number] for number in [stoi[c] for c in prompt]) == prompt
    assert meta["vocab_size"] == len(itos) == 270  # it decodes whatever is drawn
    story = data.encoding().encode_ordinary("The cat sat.")
    assert "".join(itos[number] for number in [*story, 269]) == f"The cat sat.{END_OF_TEXT}"


@pytest.mark.usefixtures("gpt2_cache")
def test_gpt2s_tokens_come_without_a_meta_pkl_as_nanogpt_has_it(prepared):
    folder = prepare(prepared.model_copy(update={"tokenizer": "gpt2"})).folder
    assert not (folder / "meta.pkl").exists()
    assert read_meta(folder) is not None


def test_a_folder_of_an_earlier_version_is_renewed_and_stays_complete(prepared):
    data = prepare(prepared)
    path = data.folder / "meta.pkl"
    new = path.read_bytes()
    path.write_bytes(pickle.dumps({"vocab_size": 270}))  # what 0.1.0 wrote
    text = (data.folder / "meta.json").read_text()
    size = f'"meta.pkl": {path.stat().st_size}'
    (data.folder / "meta.json").write_text(text.replace(f'"meta.pkl": {len(new)}', size))
    assert read_meta(data.folder) is not None
    renew_meta(data.folder)
    assert path.read_bytes() == new == meta_pickle(data.encoding())
    assert read_meta(data.folder) is not None
    before = (data.folder / "meta.json").stat().st_mtime_ns
    renew_meta(data.folder)
    assert (data.folder / "meta.json").stat().st_mtime_ns == before


def nanogpt_parameters(config) -> list[str]:
    """Names of nanoGPT's model in the order of named_parameters; lm_head is its wte."""
    kinds = ("weight", "bias") if config.bias else ("weight",)
    block = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    return [
        "transformer.wte.weight",
        "transformer.wpe.weight",
        *(
            f"transformer.h.{layer}.{part}.{kind}"
            for layer in range(config.n_layer)
            for part in block
            for kind in kinds
        ),
        *(f"transformer.ln_f.{kind}" for kind in kinds),
    ]


@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_holds_what_sample_py_and_resume_read(prepared, tmp_path, bias):
    data = prepare(prepared)
    config, model = make_run(tmp_path / "run", data.encoding(), prepared, bias=bias)
    write_checkpoint(read_trained_run(tmp_path / "run"), tmp_path / "ckpt.pt")
    checkpoint = torch.load(tmp_path / "ckpt.pt", map_location="cpu")  # tensors and plain values
    names = nanogpt_parameters(config)
    assert sorted(checkpoint["model"]) == sorted([*names, "lm_head.weight"])
    for name, value in model.state_dict().items():
        assert torch.equal(checkpoint["model"][name], value)
    assert checkpoint["model_args"] == {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "block_size": 16,
        "bias": bias,
        "vocab_size": 270,
        "dropout": 0.0,
    }
    assert (checkpoint["iter_num"], checkpoint["best_val_loss"]) == (40, 1e9)
    folder = Path("data", checkpoint["config"]["dataset"])
    assert {"stoi", "itos"} <= pickle.loads((folder / "meta.pkl").read_bytes()).keys()
    weights = {name: torch.nn.Parameter(checkpoint["model"][name]) for name in names}
    optimizer = torch.optim.AdamW(  # as its configure_optimizers
        [
            {"params": [w for w in weights.values() if w.dim() >= 2], "weight_decay": 0.5},
            {"params": [w for w in weights.values() if w.dim() < 2], "weight_decay": 0.0},
        ],
        lr=1.0,
    )
    optimizer.load_state_dict(checkpoint["optimizer"])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    weights[names[0]].grad = torch.ones_like(weights[names[0]])
    optimizer.step()


@pytest.mark.parametrize("changes", [{"qk_norm": True}, {"activation": "relu2"}])
def test_a_model_that_nanogpt_does_not_have_is_refused(tmp_path, changes):
    make_run(tmp_path / "run", own_bpe(), **changes)
    with pytest.raises(InputError, match=r"nanogpt-checkpoint must have .* toml or json"):
        write_checkpoint(read_trained_run(tmp_path / "run"), tmp_path / "ckpt.pt")
    assert not (tmp_path / "ckpt.pt").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(prepared, tmp_path, monkeypatch):
    make_run(tmp_path / "run", prepare(prepared).encoding(), prepared)
    (tmp_path / "ckpt.pt").write_bytes(b"old")

    def full(checkpoint, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        write_checkpoint(read_trained_run(tmp_path / "run"), tmp_path / "ckpt.pt")
    assert (tmp_path / "ckpt.pt").read_bytes() == b"old"
    assert not list(tmp_path.glob(".ckpt*"))
