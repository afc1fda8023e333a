import base64
import gzip
import json
import os
import re
from html.parser import HTMLParser

import optuna
import plotly.graph_objects as go
import pytest
from optuna.trial import create_trial
from plotly.offline import get_plotlyjs_version
from stored_studies import BUILT_IN, STUDY, StoredStudy
from tiny_runs import tiny_config, write_run, write_stories

from gpt.errors import InputError, StorageError
from gpt.train import train_directory
from sweep.analysis.study_reader import (
    Confirmation,
    ReportAnswer,
    answer,
    best_of_arms,
    read_study,
)
from sweep.report.facts import commands, facts, provenance
from sweep.report.report import _drawn, render, write_report
from sweep.report.tables import all_table, best_table, metrics_table
from sweep.storage.rdb import open_storage
from sweep.study.search_space import Parameter
from sweep.visualization.figures import Figure, figures

NO_ARMS = STUDY.replace('compare = "loss"', "").partition("[search.square_weight]")[0]
FIGURES = [
    "curves",
    *("tuning-curve", "slice-learning_rate", "slice-n_layer", "slice-square_weight", "cost-time"),
    *("time", "slots", "speed", "memory"),
]
NOT_DRAWN = ["importances", "importances-best", "contour", "calibration"]  # of so few trials
DATA = {"type": "application/json"}  # attributes of the element that holds a figure


class Page(HTMLParser):
    """Elements, their attributes and texts of an HTML page, without what its scripts hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = [("page", {})]
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        tag, attributes = self.elements[-1]
        if not data.strip():
            return
        if tag == "script":
            self.scripts.append((attributes, data))
        else:
            self.texts.append(" ".join(data.split()))

    @property
    def title(self) -> str:
        return self.text.partition("Read this first")[0]

    @property
    def text(self) -> str:
        return " ".join(self.texts)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """Only read by the tests."""
    return filled(StoredStudy(tmp_path_factory.mktemp("stored")))


@pytest.fixture(scope="module")
def html(stored: StoredStudy) -> str:
    return render(read_study(stored.storage, stored.study))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def filled(stored: StoredStudy) -> StoredStudy:
    """Two arms with baselines; the best are trials 2 (50.0) and 3 (60.0)."""
    stored.add("cross_entropy", [200.0, 100.0], origin="baseline:usual")
    stored.add("squentropy", [210.0, 120.0], origin="baseline:usual", square_weight=1.0)
    stored.add("cross_entropy", [150.0, 50.0], learning_rate=3e-3, n_layer=4)
    stored.add("squentropy", [150.0, 60.0], learning_rate=6e-3, square_weight=0.5)
    stored.add("squentropy", [250.0], outcome="pruned")
    stored.add("squentropy", [180.0, 5e6], outcome="diverged")
    return stored


def page_of(stored: StoredStudy) -> Page:
    return Page(render(read_study(stored.storage, stored.study)))


# One file, no request


def test_report_is_one_file_of_less_than_a_megabyte(stored, tmp_path):
    out = write_report(stored.storage, stored.study, tmp_path / "new folder" / "report.html")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert out.stat().st_size < 1_000_000


def test_report_refers_to_nothing_outside_itself(html, page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "action", "data", "background"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
    outside = html.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.search(r"url\(|@import|https?:|import\(|fetch\(", outside)


def test_report_forbids_requests_by_its_own_policy(page):
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    (policy,) = policies
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "form-action 'none'" in policy


def test_report_holds_plotly_once_packed_in_the_version_that_made_its_figures(page):
    (packed,) = [text for attributes, text in page.scripts if attributes.get("id") == "plotly"]
    script = gzip.decompress(base64.b64decode(packed)).decode()
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}\n" in script


def test_report_shows_markup_of_a_study_file_as_text(page):
    assert "Small, <script>alert('description')</script> and quick." in page.text
    assert "Which loss is <b>better</b>?" in page.text
    assert not any("alert(" in text for attributes, text in page.scripts if len(text) < 100_000)


def test_a_figure_cannot_end_its_script_element():
    drawn = go.Figure(go.Scatter(name="</script><b>", x=[1], y=[2]))
    figure = Figure("id", "title", "caption", lambda: drawn)
    text = _drawn(figure)["json"]
    assert "<" not in text
    assert json.loads(text)["data"][0]["name"] == "</script><b>"


# The words


def test_report_answers_with_the_best_of_each_arm_and_their_ratio(page, stored):
    text = page.text
    assert re.search(r"cross_entropy [^.]*lowest [^.]*50\.00\.", text)
    assert "squentropy reached 60.00, +20.0%." in text
    assert "Not confirmed" in text
    assert f"squen-sweep verdict --study tiny --storage {os.path.relpath(stored.path)}" in text


def test_report_says_whether_the_search_is_finished(page, tmp_path):
    assert re.search(r"not finished[^.]*6 of 40", page.text)
    finished = StoredStudy(tmp_path)
    finished.add("cross_entropy", [60.0])
    finished.study.set_user_attr("n_trials", 1)
    assert "not finished" not in page_of(finished).text


def test_best_of_arms_have_their_settings_baselines_and_counts(stored):
    first, second = best_of_arms(read_study(stored.storage, stored.study))
    assert (first.arm, first.number) == ("cross_entropy", 2)
    assert (first.perplexity, first.ratio) == (50.0, 1.0)
    assert first.settings == [("learning_rate", "3.00e-03"), ("n_layer", "4")]
    assert first.baselines == [("usual", 0, 100.0)]
    assert first.n_complete == 2
    assert (second.arm, second.number, second.ratio) == ("squentropy", 3, 1.2)
    assert dict(second.settings)["square_weight"] == "0.50"  # as 1.00 beside it


def test_report_names_an_arm_without_a_complete_trial(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("squentropy", [60.0])
    stored.add("cross_entropy", [70.0], outcome="pruned")
    text = page_of(stored).text
    assert re.search(r"squentropy [^.]*60\.00\.", text)
    assert re.search(r"cross_entropy no trial is complete", text)


def test_report_of_a_study_that_compares_nothing_has_no_ratio(tmp_path):
    stored = StoredStudy(tmp_path, NO_ARMS)
    stored.add("all", [60.0])
    text = page_of(stored).text
    assert re.search(r"best trial [^.]*60\.00\.", text)
    assert not re.search(r"[+-][\d.]+%\.", text)
    assert "squen-sweep verdict" not in text  # there is nothing to compare
    assert "Not confirmed" not in text


def test_report_with_a_verdict_leads_with_it_and_with_what_was_confirmed(tmp_path):
    stored = filled(StoredStudy(tmp_path, **BUILT_IN))
    said = "squentropy is worse than cross_entropy: by 5%."
    confirmed = {"arm": "squentropy", "trial": 1, "params": {"learning_rate": 6e-3}}
    confirmed |= {"perplexity": 66.0, "perplexities": [65.0, 67.0]}
    record = {
        "answer": f"{said} By accuracy it is better. Note: NOT TinyStories.",
        "headline": [said],
        "confirmed": [confirmed],
    }
    reading = read_study(stored.storage, stored.study)
    stored.study.set_user_attr("verdict", record)
    assert answer(reading) == ReportAnswer(said, more="By accuracy it is better.")
    first, second = best_of_arms(reading)
    assert first.confirmed is None
    assert second.confirmed == Confirmation(1, 66.0, 2, [("learning_rate", "6.00e-03")])
    assert (second.number, second.perplexity) == (3, 60.0)  # what the search said of itself


def test_report_cannot_be_taken_for_tinystories_when_it_is_the_built_in_corpus(tmp_path):
    page = page_of(filled(StoredStudy(tmp_path, **BUILT_IN)))
    assert "NOT TinyStories" in page.text
    assert re.search(r"lowest possible [^.]*7\.50", page.text)
    assert ("aside", {"class": "notice", "role": "note"}) in page.elements
    assert "Which loss is <b>better</b>?" not in page.title  # these stories do not answer it
    assert "cross_entropy or squentropy, on the built-in stories" in page.title
    assert "do not answer what the study asks: “Which loss is <b>better</b>?”" in page.text
    figure = json.loads(next(text for attributes, text in page.scripts if attributes))
    assert "lowest possible, 7.50" in [trace["name"] for trace in figure["data"]]


def test_report_on_other_text_has_no_notice(page):
    assert not any("notice" in attributes.get("class", "") for _, attributes in page.elements)


def test_facts_take_seeds_and_dtypes_from_the_trials_and_not_from_the_file(tmp_path):
    stored = StoredStudy(tmp_path)
    searched = {
        "seed": Parameter(low=1, high=9),
        "dtype": Parameter(choices=["float32", "bfloat16"]),
    }
    stored.spec = stored.spec.model_copy(update={"search": stored.spec.search | searched})
    stored.add("cross_entropy", [50.0], seed=3, dtype="bfloat16")
    stored.add("squentropy", [50.0], seed=1, dtype="float32")
    found = dict(facts(read_study(stored.storage, stored.study)))
    assert "with seeds 1, 3: " in found["Trials"]
    assert "1337" not in found["Trials"]
    assert found["Device"] == "cpu, bfloat16 and float32"


def test_facts_say_how_the_answer_was_obtained(stored):
    found = dict(facts(read_study(stored.storage, stored.study)))
    assert stored.spec.digest[:12] in found["Study"]
    assert found["Trials"] == "6 of 40 finished, all with seed 1337"
    assert found["Length"] == "200 steps or 2,000 training tokens for a complete trial"
    assert "learning_rate 1.00e-04 to 0.01, logarithmic" in found["Searched"]
    assert "n_layer 1 to 6" in found["Searched"]
    assert "tpe within each arm" in found["Sampler"]
    assert "after 30% of the steps" in found["Pruner"]
    assert found["Text"] == "my stories (files), fingerprint 0123456789ab"
    assert "1,024 tokens is evaluated" in found["Validation text"]
    assert found["Tokenizer"] == "bpe-300, 300 tokens"
    assert found["Device"] == "cpu, float32"
    assert found["Time"] == "0:22 of training in all trials"
    assert "torch" in found["Written with"]


def test_commands_repeat_the_study_on_the_same_text_and_storage(stored):
    reading = read_study(stored.storage, stored.study)
    found = dict(commands(reading, best_of_arms(reading), "Once", 0))
    assert found["the search, of its study file"] == (  # `run` knows shipped ones alone by name
        f"squen-sweep run --study tiny.toml --storage {os.path.relpath(stored.path)} "
        "--trials 40 --data 'my stories'"
    )
    assert found["its story above"] == (
        f"squen-sweep sample {os.path.relpath(stored.path.parent / 'tiny' / '2')} "
        "--prompt Once --seed 0"
    )


def test_a_study_renamed_to_two_words_is_quoted_in_commands_and_named_on_its_page(tmp_path):
    stored = filled(StoredStudy(tmp_path))
    with stored.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET study_name = 'my study'")
    renamed = optuna.load_study(study_name="my study", storage=stored.storage)
    reading = read_study(stored.storage, renamed)
    found = dict(commands(reading, best_of_arms(reading), "Once", 0))
    run = found["the search, of its study file"]
    assert run.startswith("squen-sweep run --study tiny.toml --as 'my study' --storage ")
    assert found["this report"].startswith("squen-sweep report --study 'my study' ")
    assert "report, study my study, " in Page(render(reading)).text


def test_a_page_of_a_copied_study_leaves_out_what_optuna_does_not_copy(tmp_path):
    stored = filled(StoredStudy(tmp_path))
    url = str(stored.storage.url)
    optuna.copy_study(
        from_study_name="tiny", from_storage=url, to_storage=url, to_study_name="copy"
    )
    copy = optuna.load_study(study_name="copy", storage=stored.storage)
    assert "nan" not in Page(render(read_study(stored.storage, copy))).texts
    assert "bits per byte" in page_of(stored).texts


# Figures and tables


def test_report_has_one_section_per_figure_with_its_data(page):
    assert [a["id"] for tag, a in page.elements if tag == "figure"] == [
        f"figure-{name}" for name in FIGURES
    ]
    drawn = [json.loads(text) for attributes, text in page.scripts if attributes == DATA]
    assert [figure["layout"]["template"] is not None for figure in drawn] == [True] * len(FIGURES)
    assert len([tag for tag, _ in page.elements if tag == "figcaption"]) == len(FIGURES)


def test_report_says_why_a_figure_is_not_drawn_and_draws_none_that_is_empty(stored, page):
    every = figures(read_study(stored.storage, stored.study))
    titles = [each.title for each in every if each.name in NOT_DRAWN]
    assert len(titles) == len(NOT_DRAWN)
    assert all(re.search(rf"{title} is not drawn\. \w", page.text) for title in titles)


def test_every_figure_of_a_report_says_what_it_shows(stored):
    for figure in figures(read_study(stored.storage, stored.study)):
        assert figure.title
        assert figure.caption.endswith((".", "”."))


def test_all_table_has_every_trial_and_marks_the_best_of_each_arm(stored):
    table = all_table(read_study(stored.storage, stored.study))
    assert len(table.rows) == 6
    assert table.best == [False, False, True, True, False, False]
    column = table.columns.index("perplexity")
    assert [row[column].text for row in table.rows] == [
        "100.00", "120.00", "50.00", "60.00", "250.00", "–"
    ]  # fmt: skip
    assert [row[column].key for row in table.rows][-2:] == [250.0, None]
    assert table.numeric[column]
    assert table.rows[4][table.columns.index("reason")].text == "it pruned"


def test_best_table_has_the_lowest_complete_trials_of_each_arm_first(tmp_path):
    stored = filled(StoredStudy(tmp_path))
    for i in range(6):
        stored.add("cross_entropy", [70.0 + i])
    table = best_table(read_study(stored.storage, stored.study))
    shown = [(row[0].text, row[1].text) for row in table.rows]
    assert [trial for trial, arm in shown if arm == "cross_entropy"] == ["2", "6", "7", "8", "9"]
    assert [trial for trial, arm in shown if arm == "squentropy"] == ["3", "1"]


def test_report_headings_sort_by_buttons_that_a_keyboard_reaches(page):
    elements = [tag for tag, _ in page.elements]
    sorting = [tag for tag, a in page.elements if tag == "button" and "id" not in a]
    assert elements.count("th") == len(sorting) > 0
    numbers = [a["data-key"] for tag, a in page.elements if "data-key" in a]
    assert "50.0" in numbers


# Stories


def test_report_samples_the_same_prompt_from_the_best_checkpoint_of_each_arm(tmp_path, cache):
    run_dir = write_run(tmp_path / "tiny" / "0", tiny_config(write_stories(tmp_path / "text")))
    assert list(train_directory(run_dir))
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [50.0])
    stored.add("squentropy", [60.0])
    html = render(read_study(stored.storage, stored.study), ["Tom saw the", "Lily"])
    stories = [" ".join(story.split()) for story in re.findall(r"(?s)<blockquote>(.*?)<", html)]
    assert [story[:4] for story in stories] == ["Tom ", "Lily"]
    missing = re.escape(os.path.relpath(tmp_path / "tiny" / "1"))
    assert re.search(rf"no checkpoint in {missing}\.", Page(html).text)


def test_report_says_why_a_damaged_checkpoint_gives_no_story(tmp_path):
    run_dir = write_run(tmp_path / "tiny" / "0", tiny_config(tmp_path))
    (run_dir / "checkpoints" / "step-000012").mkdir(parents=True)
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [50.0])
    assert "intact checkpoint" in page_of(stored).text


# Provenance


def test_provenance_holds_whole_hashes_and_versions(stored):
    found = provenance(read_study(stored.storage, stored.study))
    assert found["study file, SHA-256 of its settings"] == stored.spec.digest
    assert "optuna 5" in found["versions"]


# What cannot work


def test_report_without_a_complete_trial_says_so_and_what_to_run(tmp_path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0], outcome="pruned")
    page = page_of(stored)
    for arm in ("cross_entropy", "squentropy"):
        assert f"{arm} no trial is complete" in page.text
    assert "squen-sweep run --study tiny.toml" in page.text
    assert "No story yet" in page.text


def test_report_of_a_study_without_a_trial_is_complete(tmp_path):
    page = page_of(StoredStudy(tmp_path))
    assert re.search(r"not finished[^.]*0 of 40", page.text)
    assert "Learning curves are not drawn. No evaluation yet." in page.text
    assert not any(tag == "figure" for tag, _ in page.elements)


def test_report_refuses_a_study_of_another_program_and_writes_nothing(tmp_path):
    storage = open_storage(str(tmp_path / "other.db"), create=True)
    foreign = optuna.create_study(storage=storage, study_name="foreign")
    foreign.add_trial(create_trial(value=1.0))
    with pytest.raises(InputError, match=r"trial 0 .* must have a run directory") as caught:
        write_report(storage, foreign, tmp_path / "out" / "report.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_report_that_cannot_be_written_leaves_nothing_behind(stored, tmp_path):
    folder = tmp_path / "folder"
    (folder / "report.html").mkdir(parents=True)
    with pytest.raises(StorageError, match="pass another --output"):
        write_report(stored.storage, stored.study, folder / "report.html")
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_report_replaces_an_older_one(stored, tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    write_report(stored.storage, stored.study, out)
    assert out.read_text().startswith("<!doctype html>")


def test_report_reads_only(stored, tmp_path):
    before = stored.path.read_bytes()
    write_report(stored.storage, stored.study, tmp_path / "report.html")
    assert stored.path.read_bytes() == before


def test_metrics_table_has_the_best_of_each_arm_by_all_that_was_measured(stored):
    table = metrics_table(read_study(stored.storage, stored.study))
    assert [row[0].text for row in table.rows] == ["2", "3"]
    shown = dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))
    assert shown["perplexity"] == "50.00"
    assert shown["accuracy"] == "0.400"
    assert shown["brier score"] == "0.700"
    assert "temperature perplexity" not in table.columns  # of no trial
