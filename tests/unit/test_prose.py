"""Docstrings, messages, names and folders of gpt/ and sweep/, by the rules of CONTRIBUTING."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gpt", "sweep")
TREES = {
    path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
OPENINGS = re.compile(r"(What|Whether|How|Where|Of|As|All that|Told)\b")
RETIRED = re.compile(
    r"\b(told|(?<!study\.)tells?|telling|mend(s|ed|ing)?|look(s|ed|ing)? at|yardsticks?"
    r"|blown up|drivers?|listeners?)\b",
    re.IGNORECASE,
)
STORIES = Path("gpt/data/grammar")  # its strings are pieces of stories
MAX_FILES = 12  # of Python in one folder
MAX_ENTRIES = {"gpt": 14, "sweep": 15}
BESIDE = ("__init__.py", "__main__.py", "py.typed", "README.md", "__pycache__")


def docstrings() -> Iterator[tuple[Path, str]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
                yield path, text


def messages() -> Iterator[tuple[Path, str]]:
    """Strings with a space in them; one without is a name of a file or a key."""
    for path, tree in TREES.items():
        if STORIES in path.parents:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield path, node.value


def comments() -> Iterator[tuple[Path, str]]:
    for path in TREES:
        source = io.StringIO((ROOT / path).read_text(encoding="utf-8"))
        for token in tokenize.generate_tokens(source.readline):
            if token.type == tokenize.COMMENT:
                yield path, token.string


def public_names(tree: ast.Module) -> set[str]:
    """Classes, functions and constants that a module defines itself at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def may_share(path: Path, name: str) -> bool:
    """Return whether another module defines this name too, by design.

    Entry points are `main`, what the fork server imports has a `preload`, Typer's are `app`,
    commands have the name that users type, link functions that of their loss, and the interface of
    sweep/trainers is a trainer as well.
    """
    return (
        name in ("main", "preload")
        or Path("sweep/cli") in path.parents
        or path == Path("gpt/losses/link_functions.py")
        or (path, name) == (Path("sweep/trainers/base.py"), "Trainer")
    )


def test_a_docstring_opens_with_a_verb_or_a_noun():
    every = list(docstrings())
    odd = [(str(path), text.splitlines()[0]) for path, text in every if OPENINGS.match(text)]
    assert len(every) > 900
    assert len(odd) <= 0.02 * len(every), odd


@pytest.mark.parametrize("texts", [docstrings, messages, comments])
def test_retired_words_do_not_come_back(texts):
    found = [(str(path), m[0], text) for path, text in texts() if (m := RETIRED.search(text))]
    assert found == []


def test_a_public_name_is_defined_once():
    modules: dict[str, list[str]] = defaultdict(list)
    for path, tree in TREES.items():
        for name in public_names(tree):
            if not may_share(path, name):
                modules[name].append(str(path))
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_can_be_taken_in_at_a_glance(package: str):
    entries = {path.name for path in (ROOT / package).iterdir()} - set(BESIDE)
    assert len(entries) <= MAX_ENTRIES[package]
    folders = {path.parent for path in TREES if path.parts[0] == package}
    for folder in folders:
        assert sum(path.parent == folder for path in TREES) <= MAX_FILES, folder
