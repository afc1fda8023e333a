"""A run as a folder for transformers: its logits, its tokens, its card."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers  # which imports a name when it is asked for
from exported_runs import make_run, own_bpe
from hypothesis import example, given
from hypothesis import strategies as st
from stored_studies import StoredStudy
from tokenizers import Tokenizer

from gpt.config import DataConfig
from gpt.data.tokenizer import END_OF_TEXT, end_of_text, gpt2
from gpt.errors import InputError, StorageError
from sweep.export.huggingface import write_huggingface
from sweep.export.model_card import study_answer
from sweep.export.tokenizer_json import to_tokenizer_json
from sweep.export.trained_run import read_trained_run
from sweep.export.trial import export

OWN = own_bpe()
OWN_TOKENIZER = Tokenizer.from_str(to_tokenizer_json(OWN))


def exported(folder: Path, **changes) -> Path:
    make_run(folder / "run", OWN, **changes)
    write_huggingface(read_trained_run(folder / "run"), folder / "out")
    return folder / "out"


COMPLETEP = {
    "parametrization": "completep",
    "base_n_embd": 8,
    "base_n_layer": 1,
    "base_n_head": 2,
}


@pytest.mark.parametrize("changes", [{"bias": True}, {"bias": False}, COMPLETEP])
def test_transformers_has_the_same_logits(tmp_path, changes):
    config, model = make_run(tmp_path / "run", OWN, **changes)
    write_huggingface(read_trained_run(tmp_path / "run"), tmp_path / "out")
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    idx = torch.randint(config.vocab_size, (2, config.block_size))
    with torch.no_grad():
        expected = model.logits(model(idx))
        torch.testing.assert_close(theirs.eval()(idx).logits, expected, atol=1e-5, rtol=1e-5)
    assert not any(loading.values())  # no weight is missing, left over or of another shape


def test_biases_that_a_run_does_not_have_are_zero_and_the_card_says_so(tmp_path):
    out = exported(tmp_path, bias=False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    biases = [value for name, value in theirs.named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 * 6 + 1
    assert not any(bias.any() for bias in biases)
    assert "trained without biases" in (out / "README.md").read_text()


@given(st.text())
@example("  two  spaces\n\n and it's 1234 's\t")
@example("Ünïcödé 日本語 🙂\u200d🙂 ½")
def test_own_tokens_are_the_same_behind_an_end_of_text(text):
    ids = OWN.encode_ordinary(text)
    assert OWN_TOKENIZER.encode(text).ids[0] == end_of_text(OWN)
    bare = OWN_TOKENIZER.encode(text, add_special_tokens=False).ids
    if END_OF_TEXT not in text:
        assert bare == ids
    assert OWN_TOKENIZER.decode(ids) == text


@pytest.mark.usefixtures("gpt2_cache")
def test_tokens_of_gpt2_are_the_same_on_real_stories(shared_data):
    encoding = gpt2()
    tokenizer = Tokenizer.from_str(to_tokenizer_json(encoding))
    text = (shared_data / "tinystories" / "valid.txt").read_text()[:100_000]
    for story in text.split(END_OF_TEXT):
        ids = tokenizer.encode(story, add_special_tokens=False).ids
        assert ids == encoding.encode_ordinary(story)
    assert tokenizer.token_to_id(END_OF_TEXT) == 50256
    assert tokenizer.get_vocab_size() == 50257


def test_a_text_that_is_cut_in_another_way_is_refused():
    other = own_bpe()
    other._pat_str = r"\s+|\S+"
    with pytest.raises(InputError, match=r"must cut text as GPT-2 does .* but its pattern is"):
        to_tokenizer_json(other)


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"qk_norm": True}, "qk_norm = False"), ({"activation": "relu2"}, "activation = 'gelu'")],
)
def test_a_model_that_is_no_gpt2_is_refused_before_anything_is_written(tmp_path, changes, key):
    with pytest.raises(InputError, match=f"huggingface must have {key}.* toml or json"):
        exported(tmp_path, **changes)
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    make_run(tmp_path, OWN)
    (tmp_path / "checkpoints" / "step-000040").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="must hold a checkpoint, but there is none"):
        read_trained_run(tmp_path)


def test_a_kill_in_the_middle_of_an_export_does_not_hinder_a_process_of_the_same_id(tmp_path):
    (tmp_path / f".out.{os.getpid()}").mkdir()
    assert (exported(tmp_path) / "model.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_generation_ends_where_the_positions_end_and_at_the_end_of_a_story(tmp_path):
    values = json.loads((exported(tmp_path) / "generation_config.json").read_text())
    assert values["max_length"] == 16
    assert values["eos_token_id"] == values["bos_token_id"] == 299
    assert (values["do_sample"], values["temperature"], values["top_k"]) == (True, 0.8, 50)


def test_an_earlier_export_is_replaced_and_anything_else_is_kept(tmp_path):
    out = exported(tmp_path)
    before = (out / "model.safetensors").read_bytes()
    run = read_trained_run(tmp_path / "run")
    run.weights["transformer.wte.weight"].zero_()
    write_huggingface(run, out)
    assert (out / "model.safetensors").read_bytes() != before
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    (strangers / "README.md").write_text("mine")
    with pytest.raises(InputError, match="must be new, empty or an earlier export"):
        write_huggingface(run, strangers)
    assert (strangers / "README.md").read_text() == "mine"
    (strangers / "mine.txt").touch()
    write_huggingface(run, strangers, force=True)
    assert (strangers / "mine.txt").exists()
    assert (strangers / "config.json").exists()
    with pytest.raises(InputError, match="must be a folder to write, but it is a file"):
        write_huggingface(run, strangers / "mine.txt")
    with pytest.raises(StorageError, match="must be writable"):
        write_huggingface(run, strangers / "mine.txt" / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_card_says_data_study_verdict_and_licence(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("squentropy", [90.0, 70.5], square_weight=0.7)
    _, origin = export(stored.study)
    make_run(tmp_path / "run", OWN, loss="squentropy", loss_options={"square_weight": 0.7})
    run = read_trained_run(tmp_path / "run")
    write_huggingface(run, tmp_path / "out", study_answer(stored.study, origin))
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "license: unknown",
        "datasets:\n- roneneldan/TinyStories",
        "CDLA-Sharing-1.0",
        "Study tiny, trial 0 (squentropy, complete): validation perplexity 70.50",
        "Which loss is <b>better</b>?",
        "There is no verdict yet",
        "loss squentropy",
        "square_weight 0.7",
    ):
        assert said in card
    stored.study.set_user_attr("verdict", {"answer": "Squentropy is worse by 1%."})
    write_huggingface(run, tmp_path / "out", study_answer(stored.study, origin))
    assert "Verdict: Squentropy is worse by 1%." in (tmp_path / "out" / "README.md").read_text()


def test_the_card_names_a_text_without_the_folders_of_a_machine(tmp_path):
    data = DataConfig(source="/home/somebody/secret/stories.txt")
    make_run(tmp_path / "run", OWN, data=data)
    write_huggingface(read_trained_run(tmp_path / "run"), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The files stories.txt" in card
    assert "secret" not in "".join(
        path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix in (".md", ".json")
    )
