"""What leaves a sweep, loaded by other programs in processes of their own; the commands for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import Commands
from exported_runs import make_run, own_bpe
from stored_studies import StoredStudy

from gpt.data.tokenizer import gpt2
from gpt.sample import sample
from sweep.storage.location import runs_folder

PROMPT = "The cat saw"

# Knows transformers alone: this repository can be imported neither by its path nor by its name.
LOAD = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gpt", "sweep"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

torch.set_num_threads(1)
found = []
for folder in sys.argv[2:]:
    model, tokenizer = (c.from_pretrained(folder) for c in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer(sys.argv[1], return_tensors="pt")
    generator = pipeline("text-generation", model=folder)
    text = generator(sys.argv[1], do_sample=False)[0]["generated_text"]
    drawn = generator(sys.argv[1])[0]["generated_text"]
    logits = model(**ids).logits[0].tolist()
    found.append([ids["input_ids"][0].tolist(), logits, text, drawn, tokenizer.is_fast])
print(json.dumps(found))
"""


@pytest.fixture
def squen(monkeypatch, capsys, tmp_path: Path) -> Commands:
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("gpt2_cache")
def test_transformers_continues_a_prompt_as_we_do_in_a_process_without_us(squen, tmp_path):
    kinds = {"own": (own_bpe(), False), "gpt2": (gpt2(), True)}
    models = {}
    for name, (encoding, bias) in kinds.items():
        _, models[name] = make_run(tmp_path / name, encoding, bias=bias)
        done = squen("export", name, "--format", "huggingface", "-o", f"{name}-out")
        assert done.code == 0, done.err
    script = tmp_path / "load.py"
    script.write_text(LOAD)
    folders = [str(tmp_path / f"{name}-out") for name in kinds]
    done = subprocess.run(
        [sys.executable, "-I", str(script), PROMPT, *folders],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for (name, (encoding, _)), loaded in zip(kinds.items(), json.loads(done.stdout), strict=True):
        ids, logits, text, drawn, fast = loaded
        assert ids == [encoding.n_vocab - 1, *encoding.encode_ordinary(PROMPT)]
        with torch.no_grad():
            expected = models[name].logits(models[name](torch.tensor([ids])))[0]
        torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-5, rtol=1e-5)
        new = 16 - len(ids)  # up to the last position
        (ours,) = sample(tmp_path / name, PROMPT, max_new_tokens=new, temperature=0)
        assert text == ours
        assert drawn.startswith(PROMPT)
        assert fast


def test_a_study_is_exported_by_its_best_trials_weights(squen, tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0, 80.0])
    best = stored.add("squentropy", [95.0, 70.0], square_weight=0.3)
    make_run(runs_folder(stored.study) / str(best), own_bpe())
    of_study = ("--study", "tiny", "--storage", "sweep.db")
    done = squen("export", *of_study, "--format", "huggingface", "-o", "out")
    assert done.out.splitlines()[0].startswith("Study tiny, trial 1 (squentropy, complete)")
    assert done.out.endswith("written: out\n")
    assert "trial 1 (squentropy, complete)" in (tmp_path / "out" / "README.md").read_text()
    other = squen("export", *of_study, "--format", "huggingface", "-o", "other", "--trial", "0")
    assert other.code == 2
    assert "config.json" in other.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere", "--format", "huggingface", "-o", "out"), "nowhere must be a run directory"),
        ((".", "--format", "huggingface", "-o", "out"), ". must be a run directory"),
        (("run", "--format", "huggingface"), "must have --output, but got none"),
        (("--format", "huggingface", "-o", "out"), "must have RUN_DIR or --study, but got none"),
        (("-o", "best.toml"), "must have --study, but got none"),
        (("run", "-o", "best.toml"), "must have --study alone"),
        (("run", "-o", "mine.pt"), "mine.pt must be new, but there is a file"),
        (("run", "--format", "huggingface", "-o", "out.pt"), "out.pt must end in no suffix"),
    ],
)
def test_a_wrong_export_is_one_line_and_writes_nothing(squen, tmp_path, words, says):
    make_run(tmp_path / "run", own_bpe())
    (tmp_path / "mine.pt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = squen("export", *words)
    assert (done.code, done.is_right) == (2, True)
    assert says in done.err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "mine.pt").read_text() == "mine"


def test_pack_and_verify_are_commands(squen, tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0, 60.0])
    packed = squen("pack", "--study", "tiny", "--storage", "sweep.db")
    assert packed.code == 0, packed.err
    assert packed.out.startswith("written: tiny.zip, ")
    verified = squen("verify", "tiny.zip")
    assert verified.code == 0, verified.err
    assert packed.out.splitlines()[1].removeprefix("SHA-256: ") in verified.out
    content = (tmp_path / "tiny.zip").read_bytes()
    (tmp_path / "tiny.zip").write_bytes(content[: len(content) // 2])
    cut = squen("verify", "tiny.zip")
    assert (cut.code, cut.is_right) == (65, True)
    again = squen("pack", "--study", "tiny", "--storage", "sweep.db", "-o", "sweep.db")
    assert (again.code, again.is_right) == (2, True)
