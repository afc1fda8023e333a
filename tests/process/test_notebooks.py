import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from sweep.study.toml_file import read_study_file

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = 9  # of a notebook
DROPOUT = "[search.dropout]\nlow = 0.0\nhigh = 0.3\n\n[search.n_layer]"


def cells(notebook: Path) -> list[str]:
    stored = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in stored if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small study of the name that the notebooks read, really trained."""
    folder = tmp_path_factory.mktemp("swept")
    tiny_study(folder, write_stories(folder / "text"))
    text = (folder / "tiny.toml").read_text()
    text = text.replace('name = "tiny"', 'name = "tinystories"')
    text = text.replace("[search.n_layer]", DROPOUT)
    text = text.replace("n_layer = 1 }", "n_layer = 1, dropout = 0.1 }")
    (folder / "study.toml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        (folder / "runs").mkdir()
        spec = read_study_file(str(folder / "study.toml"), "cpu")
        run_tiny(spec, folder / "runs", trials=4, runs=folder / "runs")
    (folder / "notebooks").mkdir()
    return folder


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_folder_on_a_study_that_was_trained(notebook, swept, monkeypatch):
    monkeypatch.chdir(swept / "notebooks")
    names: dict[str, object] = {}
    shown = []
    for cell in cells(notebook):
        *statements, last = ast.parse(cell).body
        exec(compile(ast.Module(statements, []), notebook.name, "exec"), names)
        shown.append(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))
    assert len(names["trials"]) == 4
    figures = [each for each in shown if type(each).__name__ == "Figure"]
    assert len(figures) == FIGURES
    assert all(figure.data or figure.layout.annotations for figure in figures)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_made_of_a_notebook_keeps_its_figures_and_works_offline(notebook, swept):
    if find_spec("nbconvert") is None:
        say = pytest.fail if "CI" in os.environ else pytest.skip
        say("nbconvert is not installed: pip install nbconvert ipykernel")
    copy = shutil.copy(notebook, swept / "notebooks")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", str(copy)]
    folder = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": folder}
    environment.pop("PLOTLY_RENDERER", None)
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "not able to be represented" not in run.stderr
    page = Path(copy).with_suffix(".html").read_text(encoding="utf-8")
    assert len(re.findall(r"Plotly\.newPlot\(\s*['\"]", page)) == FIGURES
    assert page.count("plotly.js v") >= 1  # the library itself is on the page


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_no_function_and_stores_no_output(notebook):
    nodes = [node for cell in cells(notebook) for node in ast.walk(ast.parse(cell))]
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)
    assert all(not cell.get("outputs") for cell in json.loads(notebook.read_text())["cells"])
