"""Preparing tokens in several processes, in one that is killed, and on a full disk."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt.config import DataConfig
from gpt.data.dataset import prepare

STORIES = ["The cat sat.", "A dog ran home.", "The cat ran.", "A bird sang to the dog and the cat."]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with a train.txt and a valid.txt of a few stories."""
    folder = tmp_path / "text"
    folder.mkdir()
    write(folder / "train.txt", STORIES)
    write(folder / "valid.txt", ["The dog sat.", "A cat sang."])
    return folder


def write(path: Path, stories: list[str]) -> None:
    path.write_text("\n<|endoftext|>\n".join(stories))


def config(text: Path) -> DataConfig:
    return DataConfig(source=str(text), bpe_vocab_size=270)


def files_of(cache: Path) -> list[str]:
    """Everything in the cache but locks and the index."""
    return sorted(path.name for path in (cache / "tokens").rglob("*"))


def in_process(code: str, text: Path, *, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run code that may use `data`, a DataConfig, in a Python of its own."""
    done = start(code, text)
    out, err = done.communicate()
    assert bool(done.returncode) is fails, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def start(code: str, text: Path) -> subprocess.Popen[str]:
    program = f"""
from gpt.config import DataConfig
from gpt.data import token_files, tokenizer
from gpt.data.dataset import prepare
data = DataConfig.model_validate_json({config(text).model_dump_json()!r})
{code}"""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("cache")
def test_of_several_processes_that_ask_at_once_one_tokenises(text):
    write(text / "train.txt", [f"Story {number} of a cat and a dog." for number in range(20_000)])
    code = "print(prepare(data, print).meta.fingerprint)"
    processes = [start(code, text) for _ in range(3)]
    said = [process.communicate()[0].splitlines() for process in processes]
    assert len({lines[-1] for lines in said}) == 1
    assert sum("learning a vocabulary" in line for lines in said for line in lines) == 1


def test_a_killed_preparation_leaves_nothing_that_would_be_used(text, cache):
    code = """
import os, signal, numpy
numpy.save = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
prepare(data)"""
    assert in_process(code, text, fails=True).returncode == -signal.SIGKILL
    assert "train.bin" in files_of(cache)  # it died in the middle of writing
    data = prepare(config(text))
    assert data.encoding().decode(data.train.tolist()).startswith(STORIES[0])
    assert not [name for name in files_of(cache) if name.startswith(".")]


def test_a_full_disk_leaves_nothing_and_says_so(text, cache):
    write(text / "train.txt", [f"Story {number} of a cat and a dog." for number in range(3_000)])
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.RLIM_INFINITY}))
prepare(data)"""
    done = in_process(code, text, fails=True)
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("gpt.errors.StorageError: the folder for tokens")
    assert "set SQUEN_SWEEP_CACHE to another one" in last_line
    assert files_of(cache) == []
