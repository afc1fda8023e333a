"""The tuner with real trial processes: exactly N trials, each finished once, whatever stops it."""

import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from faults import inject, slow_down
from forked import Forked, start_anew
from invariants import (
    assert_sound,
    assert_undisturbed,
    curve,
    evaluated,
    start_command,
    stored_trials,
    study_of,
    trial_processes,
    wait_until,
    words_of_run,
)
from optuna.trial import TrialState
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.config import read_config
from gpt.errors import BusyError, InputError, TrialsFailedError
from gpt.events import read_events
from gpt.train import train
from sweep.search.pruners import is_shadow
from sweep.storage.rdb import check_study, open_storage
from sweep.study.toml_file import read_study_file
from sweep.tuner.callback import Callback, Counts, SweepEvent, TrialFinished, TrialStarted


@pytest.fixture
def text(tmp_path: Path, cache: Path) -> Path:
    return write_stories(tmp_path / "text")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study of two complete trials."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        run_tiny(tiny_study(folder, write_stories(folder / "text")), folder, trials=2)
        yield folder


def test_a_sweep_does_not_wait_for_the_import_of_torchs_compiler(text: Path, tmp_path: Path):
    code = f"""
import sys
from pathlib import Path
from tiny_studies import run_tiny, tiny_study
folder = Path({str(tmp_path)!r})
run_tiny(tiny_study(folder, {str(text)!r}), folder, trials=1)
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1] / "helpers",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_a_freed_slot_is_filled_before_displays_count(text: Path, tmp_path: Path):
    told: list[str] = []

    class Told(Callback):
        def on(self, event: SweepEvent) -> None:
            match event:
                case TrialStarted(trial):
                    told.append(f"started {trial}")
                case TrialFinished(trial):
                    told.append(f"finished {trial}")
                case Counts(finished):
                    told.append(f"{finished} counted")

    run_tiny(tiny_study(tmp_path, text), tmp_path, trials=2, workers=1, callback=Told())
    assert told[:5] == ["0 counted", "started 0", "finished 0", "started 1", "1 counted"]
    assert told[5:] == ["finished 1", "2 counted"]


def test_trials_have_the_value_of_the_studys_metric(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text).model_copy(update={"metric": "link_perplexity"})
    run_tiny(spec, tmp_path, trials=2)
    study = study_of(tmp_path)
    assert study.metric_names == ["validation link perplexity"]
    for trial in study.trials:
        events, _ = read_events(tmp_path / "runs" / "tiny" / str(trial.number))
        last = [event for event in events if event["event"] == "evaluation"][-1]
        assert trial.value == last["link_perplexity"]
        own_link = trial.user_attrs["arm"] == "squentropy"
        assert (trial.value != last["perplexity"]) == own_link


def test_an_open_dtype_stays_what_it_was_where_the_study_started(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = tiny_study(tmp_path, text)
    spec = spec.model_copy(update={"train": spec.train | {"dtype": "auto"}})
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    run_tiny(spec, tmp_path, trials=1)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {})  # it goes on on an older machine
    assert run_tiny(spec, tmp_path, trials=2).outcomes == {"complete": 2}
    assert study_of(tmp_path).user_attrs["spec"]["train"]["dtype"] == "bfloat16"
    runs = [tmp_path / "runs" / "tiny" / str(number) for number in range(2)]
    assert [read_config(run / "config.json").dtype for run in runs] == ["bfloat16"] * 2


def test_run_reaches_exactly_the_total_and_then_continues_from_there(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text)
    first = run_tiny(spec, tmp_path, trials=3)
    assert (first.finished, first.total, first.already_complete) == (3, 3, False)
    again = run_tiny(spec, tmp_path, trials=3)
    assert (again.finished, again.already_complete) == (3, True)
    more = run_tiny(spec, tmp_path, trials=6)
    assert (more.finished, more.outcomes) == (6, {"complete": 6})
    trials = stored_trials(tmp_path)
    assert [t.number for t in trials] == list(range(6))
    assert Counter(t.user_attrs["arm"] for t in trials) == {"cross_entropy": 3, "squentropy": 3}
    assert Counter(t.user_attrs["origin"] for t in trials) == {"baseline:usual": 2, "sobol": 4}


def test_a_trial_is_stored_with_its_curve_its_value_and_its_configuration(
    finished: Path,
):
    for trial in stored_trials(finished):
        config = read_config(finished / "runs" / "tiny" / str(trial.number) / "config.json")
        assert (config.loss, config.learning_rate) == (
            trial.params["loss"],
            trial.params["learning_rate"],
        )
        evaluations = list(train(config))  # the same run, in this process
        assert curve(finished, trial.number) == [(e.step, e.cross_entropy) for e in evaluations]
        assert trial.value == evaluations[-1].perplexity
        assert trial.intermediate_values == {e.step: e.perplexity for e in evaluations}


def test_a_diverged_trial_is_pruned_with_the_worst_perplexity_and_its_reason(
    text: Path, tmp_path: Path
):
    spec = tiny_study(tmp_path, text, highest=1e15, baseline=1e15)
    summary = run_tiny(spec, tmp_path, trials=2)
    assert summary.outcomes == {"diverged": 2}
    trial = stored_trials(tmp_path)[0]
    assert trial.state == TrialState.PRUNED
    assert trial.value == 280
    assert "learning rate" in trial.user_attrs["reason"]


@pytest.mark.parametrize(
    ("signum", "code", "start"),
    [(signal.SIGINT, 130, start_anew), (signal.SIGTERM, 143, Forked), (signal.SIGHUP, 129, Forked)],
)
def test_a_signal_stops_at_checkpoints_and_the_same_command_goes_on(
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signum: signal.Signals,
    code: int,
    start: Callable[..., Forked],
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=80, eval_interval=8)
    process = start(tmp_path, *words_of_run(tmp_path, 3))
    wait_until(lambda: evaluated(tmp_path) >= 2)
    process.send_signal(signum)
    output, _ = process.communicate()
    assert process.returncode == code, output
    assert not trial_processes(tmp_path)
    assert TrialState.RUNNING not in {t.state for t in stored_trials(tmp_path)}
    again = start_command(tmp_path, trials=3)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert_sound(tmp_path, trials=3)
    assert_undisturbed(tmp_path)


def test_ctrl_c_twice_stops_now_and_loses_nothing_before_the_last_checkpoint(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=80, eval_interval=8)
    process = start_command(tmp_path, trials=2)
    wait_until(lambda: evaluated(tmp_path) >= 3)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert not trial_processes(tmp_path)
    again = start_command(tmp_path, trials=2)
    again.communicate()
    assert_sound(tmp_path, trials=2)
    assert_undisturbed(tmp_path)


def test_trials_outlive_a_killed_tuner_and_the_next_one_takes_them_over(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=240, eval_interval=16)
    process = start_command(tmp_path, trials=2)
    wait_until(lambda: evaluated(tmp_path) >= 2)
    process.kill()
    process.communicate()
    alive = {p.pid for p in trial_processes(tmp_path)}
    assert alive
    again = start_command(tmp_path, trials=2)
    again.communicate()
    assert again.returncode == 0
    assert_sound(tmp_path, trials=2)
    assert_undisturbed(tmp_path)
    starts = [
        event
        for number in (0, 1)
        for event in read_events(tmp_path / "runs" / "tiny" / str(number))[0]
        if event["event"] == "start"
    ]
    assert {event["pid"] for event in starts} >= alive


def test_a_second_tuner_of_one_study_is_refused_with_the_firsts_pid(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    spec = tiny_study(tmp_path, text, max_steps=400, eval_interval=8)
    process = start_command(tmp_path, trials=1)
    wait_until(lambda: evaluated(tmp_path) >= 1)
    with pytest.raises(BusyError, match=f"process {process.pid} on"):
        run_tiny(spec, tmp_path, trials=1)
    process.send_signal(signal.SIGINT)
    process.communicate()


def test_a_changed_spec_is_refused_naming_what_differs(finished: Path, tmp_path: Path):
    changed = tiny_study(tmp_path, finished / "text", lowest=2e-3)
    with pytest.raises(InputError, match=r"another spec \(search\.learning_rate\.low differs\)"):
        run_tiny(changed, finished, trials=3)
    assert len(stored_trials(finished)) == 2


def test_runs_of_another_storage_are_never_mixed_in(finished: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, finished / "text")
    with pytest.raises(InputError, match="another storage"):
        run_tiny(spec, tmp_path, trials=2, runs=finished / "runs")
    assert not (tmp_path / "sweep.db").exists()


def test_a_study_goes_on_only_where_its_runs_are(finished: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, finished / "text")
    with pytest.raises(InputError, match="--runs"):
        run_tiny(spec, finished, trials=3, runs=tmp_path / "elsewhere")
    assert len(stored_trials(finished)) == 2


def test_a_study_of_another_program_is_refused_and_left_as_it_is(text: Path, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'sweep.db'}"
    theirs = optuna.create_study(storage=url, study_name="tiny")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=2)
    with pytest.raises(InputError, match="another program"):
        run_tiny(tiny_study(tmp_path, text), tmp_path, trials=2)
    after = optuna.load_study(storage=url, study_name="tiny")
    assert after.user_attrs == {}
    assert len(after.trials) == 2


def test_another_kind_of_device_is_refused(finished: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, finished / "text")
    data = {"fingerprint": study_of(finished).user_attrs["data"]["fingerprint"], "name": "text"}
    with pytest.raises(InputError, match="on cpu, but got cuda"):
        check_study(study_of(finished), spec, data, "cuda")


def test_a_new_study_has_no_evaluations_of_a_deleted_one_of_its_name(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text)
    run_tiny(spec, tmp_path, trials=1)
    optuna.delete_study(study_name="tiny", storage=open_storage(str(tmp_path / "sweep.db")))
    with pytest.raises(InputError, match="was renamed or deleted"):
        run_tiny(spec, tmp_path, trials=1)
    run_tiny(tiny_study(tmp_path, text, max_steps=8), tmp_path, trials=1, runs=tmp_path / "new")
    assert [step for step, _ in curve(tmp_path, 0)] == [4, 8]


def test_a_hopeless_trial_is_pruned_or_a_shadow_and_its_curve_kept(text: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, text, max_steps=400, eval_interval=40, pruner="median")
    some = spec.pruner.model_copy(update={"shadow_fraction": 0.4})  # trials 2, 5 and 7
    spec = spec.model_copy(update={"pruner": some})
    summary = run_tiny(spec, tmp_path, trials=8)
    pruned = [t for t in stored_trials(tmp_path) if t.state == TrialState.PRUNED]
    assert summary.outcomes == {"complete": 8 - len(pruned), "pruned": len(pruned)}
    assert pruned
    shadows = [t for t in stored_trials(tmp_path) if "shadow" in t.user_attrs]
    assert {t.state for t in shadows} <= {TrialState.COMPLETE}
    assert all(is_shadow(spec, trial.number) for trial in shadows)
    assert not any(is_shadow(spec, trial.number) for trial in pruned)
    for trial in pruned:
        assert "above the median of its arm at step" in trial.user_attrs["reason"]
        assert trial.value == trial.intermediate_values[trial.last_step]
        assert trial.last_step < 400
    assert_sound(tmp_path, trials=8)


def test_a_tuner_killed_before_its_trials_have_said_anything_loses_none(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    slow_down(monkeypatch)
    tiny_study(tmp_path, text, max_steps=300, eval_interval=150)
    process = start_command(tmp_path, trials=2)
    wait_until(lambda: bool(trial_processes(tmp_path)))
    process.kill()
    process.communicate()
    assert evaluated(tmp_path) == 0
    again = start_command(tmp_path, trials=2)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert {t.user_attrs["outcome"] for t in stored_trials(tmp_path)} == {"complete"}
    assert_sound(tmp_path, trials=2)


def test_a_sweep_whose_trials_all_fail_stops_and_says_why(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inject(monkeypatch, "kill@at=start,times=2")
    with pytest.raises(TrialsFailedError, match=r"last 3 .*trial \d was killed by signal 9"):
        run_tiny(tiny_study(tmp_path, text), tmp_path, trials=10)
    trials = stored_trials(tmp_path)
    assert [t.state for t in trials].count(TrialState.FAIL) >= 3
    assert {t.state for t in trials} <= {TrialState.FAIL, TrialState.WAITING}
    assert len(trials) < 10
    assert not trial_processes(tmp_path)


def test_a_changed_tokenizer_is_refused(finished: Path, tmp_path: Path):
    spec = tiny_study(tmp_path, finished / "text")
    path = tmp_path / "tiny.toml"
    path.write_text(path.read_text().replace("bpe_vocab_size = 280", "bpe_vocab_size = 270"))
    changed = read_study_file(str(path), "cpu")
    assert changed.data != spec.data
    with pytest.raises(InputError, match=r"data\.bpe_vocab_size differs.*--as NEW_NAME"):
        run_tiny(changed, finished, trials=3)
    assert len(stored_trials(finished)) == 2


def test_a_changed_text_is_refused(finished: Path, tmp_path: Path):
    other = write_stories(tmp_path / "text", count=310)
    with pytest.raises(InputError, match="pinned to its text"):
        run_tiny(tiny_study(tmp_path, other), finished, trials=3)
    assert len(stored_trials(finished)) == 2


@pytest.mark.parametrize(("trials", "workers"), [(0, 1), (-3, 1), (2, 0)])
def test_counts_below_one_are_refused_and_nothing_is_written(
    text: Path, tmp_path: Path, trials: int, workers: int
):
    spec = tiny_study(tmp_path, text)
    with pytest.raises(InputError, match="must be at least 1"):
        run_tiny(spec, tmp_path, trials=trials, workers=workers)
    assert not (tmp_path / "sweep.db").exists()
    assert not (tmp_path / "runs").exists()


def test_the_study_knows_its_data_and_its_device(finished: Path):
    attrs = study_of(finished).user_attrs
    assert (attrs["device"], attrs["n_trials"]) == ("cpu", 2)
    assert (attrs["data"]["kind"], attrs["data"]["vocab_size"]) == ("files", 280)
    assert attrs["data"]["floor_perplexity"] is None
    assert attrs["spec"]["compare"] == "loss"
    assert math.isfinite(attrs["wall_seconds"])


def test_what_is_enqueued_meanwhile_is_run_and_a_refused_one_leaves_no_slot_empty(
    text: Path, tmp_path: Path
):
    class Enqueues(Callback):
        done = False

        def on(self, event: SweepEvent) -> None:
            if isinstance(event, TrialStarted) and not self.done:
                self.done = True
                study = study_of(tmp_path)
                study.enqueue_trial({"learning_rate": 1e9})  # outside of its range
                study.enqueue_trial({"learning_rate": 5e-3})

    spec = tiny_study(tmp_path, text)
    run_tiny(spec, tmp_path, trials=3, workers=1, callback=Enqueues())
    trials = stored_trials(tmp_path)
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert trials[2].params["learning_rate"] == 5e-3
