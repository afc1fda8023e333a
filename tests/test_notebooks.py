import ast
import json
from pathlib import Path

import pytest
from stored_studies import STUDY, StoredStudy

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def cells(notebook: Path) -> list[str]:
    stored = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in stored if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_folder_on_a_stored_study(notebook, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "runs").mkdir()
    stored = StoredStudy(tmp_path / "runs", STUDY.replace('"tiny"', '"tinystories"'))
    stored.add("cross_entropy", [90.0, 60.0])
    stored.add("squentropy", [95.0], outcome="pruned")
    monkeypatch.chdir(tmp_path / "notebooks")
    names: dict[str, object] = {}
    for cell in cells(notebook):
        exec(compile(cell, notebook.name, "exec"), names)
    assert len(names["trials"]) == 2


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_no_function_and_stores_no_output(notebook):
    nodes = [node for cell in cells(notebook) for node in ast.walk(ast.parse(cell))]
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in nodes)
    assert all(not cell.get("outputs") for cell in json.loads(notebook.read_text())["cells"])
