"""The study files of `init` run at once, as they are."""

import tomllib
from pathlib import Path

import pytest
from commands import Commands


@pytest.fixture
def squen(monkeypatch, capsys, tmp_path: Path) -> Commands:
    return Commands(monkeypatch, capsys, tmp_path)


def test_a_program_of_ones_own_is_swept_as_init_wrote_it(squen: Commands):
    assert squen("init", "bowl", "--program").code == 0
    done = squen("run", "--study", "bowl.toml", "--trials", "4", "--device", "cpu")
    assert done.code == 0
    assert "bowl is complete: 4/4 trials" in done.out
    assert "squen-sweep verdict --study bowl" in done.out
    assert "momentum" in squen("status", "--study", "bowl.toml").out


def test_the_built_in_gpt_is_swept_as_init_wrote_it(squen: Commands, cache: Path):
    assert squen("init", "first", "--data", "built-in").code == 0
    file = squen.folder / "first.toml"
    shorter = file.read_text().replace("max_steps = 400", "max_steps = 20")
    shorter = shorter.replace("warmup_steps = 200", "warmup_steps = 10").replace("14000", "400")
    shorter = shorter.replace("eval_interval = 40", "eval_interval = 10")
    file.write_text(shorter)  # for the test's time alone
    done = squen("run", "--study", "first.toml", "--trials", "2", "--device", "cpu")
    assert done.code == 0
    assert "first is complete: 2/2 trials" in done.out


def test_a_name_may_hold_words_that_stand_in_its_template(squen: Commands):
    assert squen("init", "FILE-of-PROGRAM-in-PYTHON", "--program").code == 0
    text = (squen.folder / "FILE-of-PROGRAM-in-PYTHON.toml").read_text()
    assert tomllib.loads(text)["name"] == "FILE-of-PROGRAM-in-PYTHON"
    assert "FILE-of-PROGRAM-in-PYTHON.py" in tomllib.loads(text)["trainer"]["command"]
    assert squen("check", "FILE-of-PROGRAM-in-PYTHON.toml", "--device", "cpu").code == 0
