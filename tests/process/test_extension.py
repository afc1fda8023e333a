"""A study that grows while it is used: a loss from a plugin is added after a verdict, and killed.

One sweep for all of them; what needs no training is in tests/unit/test_growth.py.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Commands
from invariants import (
    assert_sound,
    assert_undisturbed,
    curve,
    evaluated,
    start_command,
    stored_trials,
    wait_until,
)
from optuna.trial import TrialState
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.config import read_config
from gpt.plugins.load import file_sha256, load_file
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.study.toml_file import read_study_file
from sweep.verdict.request import make_request

PLUGIN = """
from gpt.losses import LOSSES, Loss, Option


def sharp(s, sharpness):
    return s.cross_entropy + sharpness * s.cross_entropy.square()


LOSSES["sharp"] = Loss(sharp, {"sharpness": Option(0.1, low=0.01, high=1.0, log=True)})
"""
VERDICT = "\n[verdict]\ntop = 1\nseeds = 2\n"


class Grown:
    """A folder in which a study was swept, judged, extended, and killed meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "tiny.toml"
        tiny_study(folder, write_stories(folder / "text"))
        self.file.write_text(self.file.read_text() + VERDICT)
        run_tiny(read_study_file(str(self.file), "cpu"), folder, trials=4)
        self.before = [(t.params, t.values, curve(folder, t.number)) for t in stored_trials(folder)]
        (folder / "my_losses.py").write_text(PLUGIN)
        text = self.file.read_text().replace('"squentropy"]', '"squentropy", "sharp"]')
        text = text.replace("high = 0.01", "high = 0.02")
        text = text.replace('name = "tiny"\n', 'name = "tiny"\nplugins = ["my_losses.py"]\n')
        self.file.write_text(text + '[search.sharpness]\nwhen = { loss = "sharp" }\n')
        evaluations = evaluated(folder)
        tuner = start_command(folder, 6, "--extend")
        wait_until(lambda: evaluated(folder) > evaluations)
        tuner.kill()
        tuner.communicate()
        self.output = start_command(folder, 6, "--extend").communicate()[0]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        grown = Grown(folder)
        load_file(folder / "my_losses.py")
        yield grown


@pytest.fixture
def command(
    grown: Grown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    return Commands(monkeypatch, capsys, grown.folder)


PLACES = ("--storage", "sweep.db", "--runs", "runs", "--device", "cpu")


def test_a_kill_in_the_middle_of_an_extension_costs_nothing(grown: Grown):
    assert_sound(grown.folder, trials=6)
    assert_undisturbed(grown.folder)


def test_earlier_trials_stay_as_they_were_and_the_new_arm_catches_up(grown: Grown):
    trials = stored_trials(grown.folder)
    after = [(t.params, t.values, curve(grown.folder, t.number)) for t in trials]
    assert after[:4] == grown.before
    assert Counter(trial.user_attrs["arm"] for trial in trials) == {
        "cross_entropy": 2,
        "squentropy": 2,
        "sharp": 2,
    }
    assert [trial.user_attrs.get("taken_over") for trial in trials] == [
        *(f"tiny:{number}" for number in range(4)),
        None,
        None,
    ]


def test_a_run_directory_holds_the_plugin_that_it_trains_with(grown: Grown):
    run_dir = grown.folder / "runs" / "tiny" / "4"
    config = read_config(run_dir / "config.json")
    assert config.loss == "sharp"
    assert config.plugins == {"my_losses.py": file_sha256(run_dir / "my_losses.py")}


def test_the_verdict_judges_all_arms_and_says_what_was_taken_over(grown: Grown, command: Commands):
    judged = command("verdict", "--study", "tiny", "--json", *PLACES)
    record = json.loads(judged.out)
    assert {row["arm"]: row["taken_over"] for row in record["ledger"]} == {
        "cross_entropy": 2,
        "squentropy": 2,
        "sharp": 0,
    }
    assert "2 of cross_entropy and 2 of squentropy" in record["answer"]
    assert [one["arm"] for one in record["confirmed"]] == ["cross_entropy", "squentropy", "sharp"]
    report = command("report", "--study", "tiny", "--storage", "sweep.db", "-o", "report.html")
    assert report.code == 0
    page = (grown.folder / "report.html").read_text()
    assert "search.loss.choices" in page


def test_an_export_of_a_plugins_loss_trains_again_to_the_same_figures(
    grown: Grown, command: Commands
):
    trial = ("--study", "tiny", "--storage", "sweep.db", "--trial", "4")
    assert command("export", *trial, "-o", "best.toml").code == 0
    assert command("train", "best.toml", "--out", "again").code == 0
    assert command("sample", "again", "--max-new-tokens", "5").code == 0
    last = json.loads((grown.folder / "again" / "events.jsonl").read_text().splitlines()[-2])
    assert last["perplexity"] == stored_trials(grown.folder)[4].value


def test_a_plugin_that_changed_is_refused_by_run_verdict_and_train(grown: Grown, command: Commands):
    path = grown.folder / "my_losses.py"
    try:
        path.write_text(f"{PLUGIN}# changed\n")
        run = command("run", "--study", "tiny.toml", "--trials", "7", *PLACES)
        assert (run.code, "plugins.my_losses.py differs" in run.err) == (2, True)
        verdict = command("verdict", "--study", "tiny", "--seeds", "3", *PLACES)
        assert (verdict.code, "has changed" in verdict.err) == (2, True)
    finally:
        path.write_text(PLUGIN)
    assert run.is_right
    assert verdict.is_right


def test_a_moved_project_goes_on_with_its_plugin(grown: Grown, command: Commands, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(grown.folder, moved)
    command.folder = moved
    again = command("run", "--study", "tiny.toml", "--trials", "7", *PLACES)
    assert (again.code, again.err) == (0, "")
    assert len(load_study(open_storage(str(moved / "sweep.db")), "tiny").trials) == 7
    request = make_request(load_study(open_storage(str(moved / "sweep.db")), "tiny"))
    assert list(request.spec.plugins) == [str(moved / "my_losses.py")]


def test_a_new_study_takes_over_run_directories_and_a_killed_one_goes_on(grown: Grown):
    folder, new = grown.folder, grown.folder / "runs" / "new"
    started = start_command(folder, 7, "--as", "new", "--from", "tiny")
    wait_until(new.is_dir)
    started.kill()
    started.communicate()
    output = start_command(folder, 7, "--as", "new", "--from", "tiny").communicate()[0]
    study = load_study(open_storage(str(folder / "sweep.db")), "new")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 7, output
    assert [trial.values for trial in study.trials][:6] == [
        trial.values for trial in stored_trials(folder)
    ]
    old = folder / "runs" / "tiny"
    for name in ("config.json", "events.jsonl", "my_losses.py"):
        assert (new / "4" / name).read_bytes() == (old / "4" / name).read_bytes()
    assert sorted(path.name for path in new.glob(".*")) == [".driver.lock", ".study"]
