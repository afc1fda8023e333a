"""The help of every command is what its source says."""

from pathlib import Path

import pytest
import typer
from commands import Commands
from stored_studies import StoredStudy

from sweep.cli import app
from sweep.study.toml_file import shipped_files

NAMES = sorted(typer.main.get_group(app).commands)


@pytest.fixture
def squen(monkeypatch, capsys, tmp_path: Path) -> Commands:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    return Commands(monkeypatch, capsys, tmp_path)


def words_of(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("name", NAMES)
def test_every_help_shows_its_texts_in_full(squen: Commands, name: str):
    done = squen(name, "--help")
    shown = words_of(done.out)
    assert done.code == 0
    command = typer.main.get_group(app).commands[name]
    texts = [command.callback.__doc__, command.epilog]
    texts += [param.help for param in command.params if getattr(param, "help", None)]
    for text in texts:
        for paragraph in (text or "").split("\n\n"):
            assert words_of(paragraph) in shown


@pytest.mark.parametrize("name", NAMES)
def test_a_help_breaks_lines_at_the_edge_alone(squen: Commands, name: str):
    """Paragraphs of more than one line in the source are one line in a terminal that is wide."""
    before_options = squen(name, "--help").out.partition("─ ")[0]
    paragraphs = [part for part in before_options.split("\n \n") if part.strip()]
    command = typer.main.get_group(app).commands[name]
    expected = (command.callback.__doc__ or "").strip().split("\n\n")
    for text in expected:
        shown = [words_of(line) for part in paragraphs for line in part.splitlines()]
        if len(words_of(text)) < 190:
            assert words_of(text) in shown


def test_a_copy_of_a_shipped_study_beside_us_is_listed_once(squen: Commands):
    folder = squen.folder / "studies"
    folder.mkdir()
    for name, path in shipped_files().items():
        (folder / f"{name}.toml").write_bytes(path.read_bytes())
    (folder / "smoke.toml").write_text(shipped_files()["smoke"].read_text() + "# mine\n")
    lines = squen("studies").out.splitlines()
    listed = [line.split()[0] for line in lines[1:] if line.strip()]
    shipped = sorted(shipped_files())
    assert listed[: len(shipped) + 1] == [*shipped, "studies/smoke.toml"]


def test_the_names_of_figures_are_listed_without_a_study(squen: Commands):
    stored = StoredStudy(squen.folder)
    stored.add("cross_entropy", [60.0])
    done = squen("plot", "--list", "--storage", "sweep.db")
    assert done.code == 0
    assert "curves: " in done.out
    assert done.out == squen("plot", "--list", "--study", "tiny", "--storage", "sweep.db").out


def test_a_figure_is_of_a_study(squen: Commands):
    done = squen("plot", "curves")
    assert (done.code, done.out) == (2, "")
    assert "--study" in done.err
    assert done.is_right
