import json
from pathlib import Path

import pytest
from browsers import chromium
from stored_studies import StoredStudy

from gpt.errors import InputError
from sweep.analysis.study_reader import read_study
from sweep.visualization.figures import check_format, figure, figures, save_figures

PNG = b"\x89PNG\r\n"


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0, 60.0])
    return stored


def test_a_figure_is_drawn_when_it_is_asked_for(stored):
    found = figure(read_study(stored.storage, stored.study), "curves")
    assert found.title == "Learning curves"
    assert len(found.draw().data) > 0


def test_names_of_figures_are_different(stored):
    names = [each.name for each in figures(read_study(stored.storage, stored.study))]
    assert len(set(names)) == len(names)


def test_html_and_json_are_written_without_a_browser(stored, tmp_path):
    drawn = figure(read_study(stored.storage, stored.study), "curves").draw()
    save_figures({tmp_path / "a.html": drawn, tmp_path / "a.JSON": drawn})
    assert "plotly.js (cartesian" in (tmp_path / "a.html").read_text()  # works offline
    assert (tmp_path / "a.html").stat().st_size < 2_000_000
    assert json.loads((tmp_path / "a.JSON").read_text())["data"][0]["type"] == "scatter"


def test_a_suffix_that_is_no_format_is_refused():
    with pytest.raises(InputError, match=r"a.pdf must end in .html, .png, .svg, .json"):
        check_format(Path("a.pdf"))


def test_pictures_without_kaleido_say_what_to_do(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.visualization.figures.find_spec", lambda name: None)
    drawn = figure(read_study(stored.storage, stored.study), "curves").draw()
    with pytest.raises(InputError, match=r"need kaleido.*write .html or .json instead.*images"):
        save_figures({tmp_path / "a.png": drawn})
    assert not (tmp_path / "a.png").exists()


@pytest.mark.usefixtures("browser")
@pytest.mark.slow
def test_every_figure_of_a_report_becomes_a_picture(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(chromium()))
    reader = read_study(stored.storage, stored.study)
    drawn = {tmp_path / f"{each.name}.png": each.draw() for each in figures(reader)}
    save_figures(drawn)
    assert all(path.read_bytes().startswith(PNG) for path in drawn)


@pytest.mark.usefixtures("browser")
def test_a_picture_without_a_browser_is_refused_in_one_line(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    drawn = figure(read_study(stored.storage, stored.study), "curves").draw()
    with pytest.raises(InputError, match=r"^pictures need Chromium, but: [^\n]*instead\.$"):
        save_figures({tmp_path / "a.svg": drawn})
