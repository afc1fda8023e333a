"""The documents hold together: links lead somewhere, tests that are named exist, examples load."""

import re
from pathlib import Path

import pytest

from sweep.study.external.plugins import check_plugin
from sweep.study.toml_file import read_study_file

ROOT = Path(__file__).parents[2]
FOLDERS = ("gpt", "sweep", "studies", "tests", ".github")
DOCUMENTS = [ROOT / "README.md", *(p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.md")))]


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(document: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if link.startswith("http"):
            continue
        file, _, heading = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def test_every_test_that_is_named_for_a_fault_exists_in_its_folder():
    text = (ROOT / "tests" / "README.md").read_text()
    rows = re.findall(r"^\|[^|]+\| (unit|process) \| (`test_.*) \|$", text, flags=re.MULTILINE)
    assert len(rows) > 30
    for folder, tests in rows:
        source = "".join(file.read_text() for file in (ROOT / "tests" / folder).glob("*.py"))
        for name in re.findall(r"`(\w+)`", tests):
            assert f"def {name}(" in source, f"{folder}: {name}"


def test_every_test_that_is_named_for_a_backend_exists():
    source = "".join(file.read_text() for file in (ROOT / "tests").glob("*/*.py"))
    names = re.findall(r"`(test_\w+)`", (ROOT / "sweep" / "backends" / "README.md").read_text())
    assert len(names) > 10
    assert [name for name in names if f"def {name}(" not in source] == []


def shown(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(), flags=re.DOTALL)


@pytest.mark.usefixtures("our_choices")
@pytest.mark.parametrize(
    ("document", "studies"), [(ROOT / "README.md", 2), (ROOT / "studies" / "README.md", 3)]
)
def test_every_study_that_is_shown_can_run(document: Path, studies: int, tmp_path: Path):
    examples = shown(document, "toml")
    assert len(examples) == studies
    (tmp_path / "my_losses.py").write_text("".join(shown(document, "python")[:1]))
    (tmp_path / "more.py.in").write_text("max_iters = 100")
    for example in examples:
        (tmp_path / "shown.toml").write_text(example)
        assert len(read_study_file(str(tmp_path / "shown.toml"), "cpu").arms) == 2


@pytest.mark.usefixtures("our_choices")
def test_the_loss_that_is_shown_passes_its_check(tmp_path: Path):
    (tmp_path / "my_losses.py").write_text(shown(ROOT / "studies" / "README.md", "python")[0])
    assert check_plugin(tmp_path / "my_losses.py", print) == 0


def test_the_readme_is_a_door_and_not_a_paper():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert len(text.split()) <= 1200
