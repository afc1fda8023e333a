"""The path from a sweep to its verdict, with real training of tiny models.

One sweep for all of them; what needs no training is in tests/unit/test_judge.py.
"""

import json
import math
import re
import sys
from pathlib import Path
from threading import Event, Thread

import numpy as np
import optuna
import pytest
from forked import Forked
from invariants import wait_until
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from optuna_dashboard import get_note
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.config import read_config
from gpt.data.dataset import prepare
from gpt.errors import InputError
from gpt.events import read_events
from sweep.analysis.results import run_dir
from sweep.callbacks.plain import QuietProgress
from sweep.cli import main
from sweep.storage.lock import only_tuner
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.study.toml_file import read_study_file
from sweep.tuner.options import RunOptions
from sweep.verdict.confirm_plan import CONFIRM, SCREENING, phase_spec, seeds_of
from sweep.verdict.confirm_results import phase_runs
from sweep.verdict.confirm_runs import run_phases
from sweep.verdict.record import keep, kept, make_record
from sweep.verdict.request import make_request
from sweep.verdict.summary_text import table_columns

VERDICT = "\n[verdict]\ntop = 2\nscreening_seeds = 1\nseeds = 2\n"


class Swept:
    """A folder in which the tiny study has run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = write_stories(folder / "text")
        tiny_study(folder, text)
        with (folder / "tiny.toml").open("a") as file:
            file.write(VERDICT)
        run_tiny(read_study_file(str(folder / "tiny.toml"), "cpu"), folder, trials=3)

    @property
    def storage(self) -> RDBStorage:
        return open_storage(str(self.folder / "sweep.db"))

    def study(self, name: str = "tiny") -> optuna.Study:
        return load_study(self.storage, name)

    def command(self, *options: str) -> list[str]:
        """`squen-sweep verdict` on this sweep."""
        places = ["--storage", str(self.folder / "sweep.db"), "--runs", str(self.folder / "runs")]
        return ["squen-sweep", "verdict", "--study", "tiny", *places, *options]

    @property
    def options(self) -> RunOptions:
        runs, database = self.folder / "runs", str(self.folder / "sweep.db")
        return RunOptions(storage=database, runs=runs, device="cpu", workers=2)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory):
    """A sweep of three trials and its phases; tests may add to the study's attributes."""
    folder = tmp_path_factory.mktemp("verdict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        made = Swept(folder)
        request = make_request(made.study())
        assert not run_phases(request, made.storage, made.options, QuietProgress).interrupted
        yield made


def test_phases_train_the_top_configurations_on_fresh_seeds_that_arms_share(swept: Swept):
    request = make_request(swept.study())
    screening = phase_runs(request, swept.storage, SCREENING)
    confirm = phase_runs(request, swept.storage, CONFIRM)
    assert len(screening) == 2 * 1  # configurations, seeds; squentropy has but one trial
    assert len(confirm) == 2 * 2
    seeds = {arm: set(mine["seed"]) for arm, mine in confirm.groupby("arm")}
    assert seeds["cross_entropy"] == seeds["squentropy"] == set(seeds_of(request.spec, CONFIRM, 2))
    assert not seeds["squentropy"] & set(screening["seed"])
    assert 1337 not in {*seeds["squentropy"], *screening["seed"]}


def test_confirm_runs_differ_from_their_trial_in_seed_and_stories_only(swept: Swept):
    runs = phase_runs(make_request(swept.study()), swept.storage, CONFIRM)
    for run in runs.to_dict("records"):
        config = read_config(Path(run["run_dir"]) / "config.json")
        study = swept.study()
        trial = study.trials[run["of_trial"]]
        original = read_config(run_dir(study, trial) / "config.json")
        changed = {name for name, value in config if value != getattr(original, name)}
        assert changed <= {"seed", "eval_tokens", "eval_skip_tokens", "eval_interval"}
        assert config.seed == run["seed"]


def test_confirm_runs_are_measured_on_stories_that_the_sweep_never_saw(swept: Swept):
    spec = make_request(swept.study()).spec
    tokens = prepare(spec.data)
    sweeps = tokens.validation(spec.block_size, spec.eval_tokens)
    held = phase_spec(spec, CONFIRM)
    size, skip = held.eval_tokens, int(held.base("eval_skip_tokens"))
    held_back = tokens.validation(spec.block_size, size, skip)
    every = tokens.validation(spec.block_size, 10**9)
    rows = len(sweeps.targets)
    assert (every.targets[:rows] == sweeps.targets).all()
    after = every.targets[rows : rows + len(held_back.targets)]
    assert (after == held_back.targets).all()
    assert len(held_back.targets) > len(sweeps.targets)


def write_story_files(swept: Swept) -> None:
    """What a run leaves of its held-back stories, with every token as likely as on average."""
    request = make_request(swept.study())
    spec = phase_spec(request.spec, CONFIRM)
    skip = int(spec.base("eval_skip_tokens"))
    held_back = prepare(spec.data).validation(spec.block_size, spec.eval_tokens, skip)
    counts = (held_back.targets >= 0).sum(1).numpy()
    tokens = np.bincount(held_back.story.numpy(), weights=counts)
    for run in phase_runs(request, swept.storage, CONFIRM).to_dict("records"):
        nats = run["cross_entropy"] * tokens
        stories = {"tokens": tokens.tolist(), "nats": nats.tolist()}
        (Path(run["run_dir"]) / "stories.json").write_text(json.dumps(stories))


def test_record_compares_the_seeds_pair_by_pair_and_is_kept_with_the_study(swept: Swept):
    write_story_files(swept)
    request = make_request(swept.study())
    record = make_record(request, swept.storage)
    (comparison,) = record["comparisons"]
    runs = phase_runs(request, swept.storage, CONFIRM).sort_values("seed")
    ce, sq = (runs[runs["arm"] == arm]["cross_entropy"].to_numpy() for arm in request.arms)
    assert comparison["difference"]["per_seed"] == pytest.approx(list(sq - ce))
    assert comparison["ratio"] == pytest.approx(math.exp((sq - ce).mean()))
    low, high = comparison["bootstrap"]
    assert low <= comparison["ratio"] <= high
    assert [row["complete"] for row in record["ledger"]] == [2, 1]
    assert [row["arm"] for row in record["winners_curse"]] == ["cross_entropy"]
    assert "squentropy" in record["answer"]
    keep(swept.study(), record)
    assert kept(swept.study()) == json.loads(json.dumps(record))


@pytest.fixture
def command(swept: Swept, monkeypatch: pytest.MonkeyPatch):
    """Runs `squen-sweep verdict` on the sweep in this process; returns its exit code."""

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", swept.command(*options))
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


def test_verdict_on_a_complete_confirm_phase_trains_nothing_and_prints_what_the_study_keeps(
    swept: Swept, command, capsys: pytest.CaptureFixture[str]
):
    before = {path: path.stat().st_mtime_ns for path in swept.folder.rglob("events.jsonl")}
    assert command("--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["comparisons"][0]["settings_answer"] in (
        *("better", "worse", "equivalent", "inconclusive"),
    )
    note = get_note(swept.study()).replace("\\", "")  # which keep names from being markup
    assert f"**{record['headline'][0]}**" in note
    assert record["answer"].replace(record["headline"][0], "").strip() in note
    assert record == kept(swept.study())
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_verdict_says_its_paragraph_and_where_the_report_is(
    swept: Swept, command, capsys: pytest.CaptureFixture[str]
):
    assert command() == 0
    *_, header, first, second, _, answer, _, report = capsys.readouterr().out.splitlines()
    assert header.split() == " ".join(table_columns({})).split()
    assert first.startswith("cross_entropy")
    assert first.endswith("the reference")
    assert second.startswith("squentropy")
    assert answer == kept(swept.study())["answer"]
    assert "the luck of the search is not in the intervals" in answer
    assert report == f"report: {swept.folder / 'runs' / 'tiny' / 'report.html'}"


def test_a_verdict_whose_time_is_up_exits_75_and_the_same_command_adds_the_missing_runs(
    swept: Swept, command, capsys: pytest.CaptureFixture[str]
):
    keep(swept.study(), make_record(make_request(swept.study()), swept.storage))
    before = kept(swept.study())
    assert command("--seeds", "4", "--timeout", "0.1s", "--quiet") == 75
    assert re.search(r"stopped at [4-7] of 8 runs of tiny.confirm.*:", capsys.readouterr().err)
    assert kept(swept.study()) == before
    assert command("--seeds", "4", "--quiet") == 0
    record = kept(swept.study())
    assert capsys.readouterr().out.strip() == record["answer"]
    assert record["seeds"] == seeds_of(make_request(swept.study()).spec, CONFIRM, 4)
    assert record["comparisons"][0]["analysed_seeds"] == [2, 4]
    assert len(swept.study("tiny.confirm").trials) == 2 * 4


def test_a_killed_verdict_goes_on_with_the_same_runs(swept: Swept, command):
    folder = swept.folder / "runs" / "tiny.confirm"
    started = len(list(folder.glob("*/events.jsonl")))
    process = Forked(swept.folder, *swept.command("--seeds", "5")[1:])
    wait_until(lambda: len(list(folder.glob("*/events.jsonl"))) > started)
    process.kill()
    process.wait()
    assert command("--seeds", "5", "--quiet") == 0
    confirm = swept.study("tiny.confirm")
    runs = confirm.trials
    assert {run.state for run in runs} == {TrialState.COMPLETE}
    each = [(run.user_attrs["of_trial"], run.params["seed"]) for run in runs]
    assert len(each) == len(set(each)) == 2 * 5
    for run in runs:
        events, _ = read_events(run_dir(confirm, run))
        steps = [event["step"] for event in events if event["event"] == "evaluation"]
        assert steps == sorted(set(steps))  # nothing is measured twice
        assert events[-1]["event"] == "done"


def test_a_verdict_is_refused_or_waits_while_the_search_goes_on(
    swept: Swept, command, capsys: pytest.CaptureFixture[str]
):
    held, enough = Event(), Event()

    def run() -> None:
        with only_tuner(swept.folder / "runs" / "tiny", "tiny"):
            held.set()
            enough.wait()

    running = Thread(target=run)
    running.start()
    held.wait()
    assert command("--seeds", "6") == 75
    assert re.search(r"study 'tiny' .*one tuner.*process", capsys.readouterr().err)
    waiting = Forked(swept.folder, *swept.command("--wait")[1:])
    wait_until(lambda: "waiting: process" in waiting.printed())
    enough.set()
    assert waiting.wait() == 0
    running.join()
    assert len(swept.study("tiny.confirm").trials) < 2 * 6


def test_changed_text_is_refused_in_one_line(
    swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SQUEN_SWEEP_CACHE", str(tmp_path))  # the tokens are not kept any more
    text = swept.folder / "text" / "train.txt"
    before = text.read_text()
    text.write_text(before.replace("Tom", "Tim"))
    with pytest.raises(InputError, match=r"text .*changed"):
        run_phases(
            make_request(swept.study(), seeds=9), swept.storage, swept.options, QuietProgress
        )
    text.write_text(before)


def test_seeds_are_added_until_the_answer_is_settled_or_there_are_as_many_as_may_be(
    swept: Swept, command, capsys: pytest.CaptureFixture[str]
):
    assert command("--until", "settled", "--max-seeds", "6", "--quiet") == 0
    record = kept(swept.study())
    said = capsys.readouterr()
    settled = record["comparisons"][0]["settings_answer"] != "inconclusive"
    assert settled or len(record["seeds"]) == 6
    lines = [line for line in said.err.splitlines() if "going on to" in line]
    counted = [int(line.partition(" ")[0]) for line in lines] + [len(record["seeds"])]
    assert [int(line.rpartition(" ")[2]) for line in lines] == counted[1:]
    analysed = record["comparisons"][0]["analysed_seeds"]
    assert set(counted) <= set(analysed)
    runs = len(swept.study("tiny.confirm").trials)
    assert command("--until", "settled", "--max-seeds", "6", "--quiet") == 0
    assert "going on" not in capsys.readouterr().err  # it begins where it ended
    assert len(swept.study("tiny.confirm").trials) == runs


def test_a_second_search_is_run_confirmed_and_answered_with_the_first(
    swept: Swept, command, capsys: pytest.CaptureFixture[str]
):
    options = ("--searches", "2", "--seeds", "2", "--top", "1", "--quiet")
    assert command(*options, "--timeout", "0.1s") == 75
    assert re.search(r"stopped at [0-3] of \d runs of tiny.search-2", capsys.readouterr().err)
    assert command(*options) == 0
    second = swept.study("tiny.search-2")
    assert len(second.trials) == len(swept.study().trials) == 3
    pairs = zip(second.trials, swept.study().trials, strict=True)
    assert [a.user_attrs["arm"] == b.user_attrs["arm"] for a, b in pairs] == [True] * 3
    config = read_config(run_dir(second, second.trials[0]) / "config.json")
    assert config.seed == 11337
    confirm = swept.study("tiny.search-2.confirm")
    assert {run.params["seed"] for run in confirm.trials} == {13337, 13338}
    record = kept(swept.study())
    (one,) = record["searches"]["comparisons"]
    assert len(one["difference"]["per_seed"]) == 2
    assert capsys.readouterr().out.startswith("Tuned with up to 2 trials each,")
    before = {path: path.stat().st_mtime_ns for path in swept.folder.rglob("events.jsonl")}
    assert command(*options) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing is repeated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--until", "better"), "--until must be settled, but got 'better'"),
        (("--max-seeds", "9"), "--max-seeds must come with --until settled"),
        (("--until", "settled", "--max-seeds", "1"), "--max-seeds must be from 2"),
        (("--until", "settled", "--searches", "2"), "--until must go without searches"),
        (("--searches", "0"), "--searches must be from 1 to 50"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    swept: Swept, command, capsys: pytest.CaptureFixture[str], options, message: str
):
    assert command(*options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
