"""Programs of the user's as trials: what they report, how they fail, and what is left of them."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pytest
from commands import Commands
from forked import Forked
from invariants import ROOT, wait_until
from optuna.trial import FrozenTrial

from gpt.events import read_events
from sweep.analysis import results
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.storage.schema import trial_attrs
from sweep.trainers.run_command import LOG, MAX_LOG_BYTES, OLD_LOG

# A program that is well or has one of the faults that a sweep must survive.
PROGRAM = """
import os, signal, sys, time
behaviour = sys.argv[1]
def show(step, value):
    print(f"step {step}: train loss 1.0, val loss {value}", flush=True)
if behaviour == "fine":
    for step in (0, 10, 20): show(step, 3 - step / 20)
elif behaviour == "silent":
    print("nothing that matches")
elif behaviour == "nan":
    show(0, 4.0); show(10, "nan"); time.sleep(60)
elif behaviour == "milliseconds":
    show(0, 1200); time.sleep(60)
elif behaviour == "twice":
    for step, value in ((0, 3.0), (10, 2.5), (10, 9.0), (5, 9.0), (20, 2.0)): show(step, value)
elif behaviour == "exits":
    show(0, 3.0); sys.exit("no such corpus") if len(sys.argv) < 3 else sys.exit(3)
elif behaviour == "flood":
    line = b"x" * 99 + b"\\n"
    for _ in range(20): os.write(1, line * 10_000)
    show(10, 2.25)
elif behaviour == "slow":
    print("5" + "ab" * 500, flush=True); time.sleep(60)
elif behaviour == "memory":
    show(0, 3.0); sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.")
elif behaviour == "goes on":
    if "--resume" in sys.argv: show(0, 9.0); show(20, 2.0)
    else:
        open(os.environ["SQUEN_RUN_DIR"] + "/checkpoint", "w").close()
        show(0, 3.0); time.sleep(60)
elif behaviour == "saves":
    helper = os.fork()
    if helper == 0: time.sleep(60)
    def save(*_):
        if os.waitpid(helper, os.WNOHANG) == (0, 0):  # it is there still
            time.sleep(0.2)
            open(os.environ["SQUEN_RUN_DIR"] + "/checkpoint", "w").close()
        os._exit(0)
    signal.signal(signal.SIGTERM, save)
    show(0, 3.0); time.sleep(60)
else:
    assert behaviour == "stubborn"
    if os.fork() == 0: time.sleep(60)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    show(0, 3.0); time.sleep(60)
"""
BEHAVIOURS = ["fine", "silent", "twice", "exits", "flood", "nan", "milliseconds"]
STUDY = f"""
name = "faults"
compare = "behaviour"
search.behaviour.choices = {BEHAVIOURS}
pruner.kind = "none"
[trainer]
command = "{sys.executable} program.py {{behaviour}}"
[trainer.metric]
name = "val_loss"
pattern = 'step (?P<step>\\d+): train loss \\S+, val loss (?P<value>\\S+)'
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a trial of each behaviour."""
    made = tmp_path_factory.mktemp("programs")
    (made / "program.py").write_text(PROGRAM)
    (made / "faults.toml").write_text(STUDY)
    options = ["--device", "cpu", "--trials", str(len(BEHAVIOURS)), "--workers", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        sweep = Forked(made, "run", "--study", "faults.toml", *options)
    assert sweep.wait() == 0, sweep.printed()
    return made


@pytest.fixture(scope="module")
def study(folder: Path) -> optuna.Study:
    return load_study(open_storage(str(folder / "runs" / "sweep.db")), "faults")


@pytest.fixture
def trial(study: optuna.Study, request: pytest.FixtureRequest) -> FrozenTrial:
    return study.get_trials()[BEHAVIOURS.index(request.param)]


def of(behaviour: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("trial", [behaviour], indirect=True)


@of("fine")
def test_lines_that_match_become_evaluations_in_nats(trial: FrozenTrial):
    assert trial.intermediate_values == pytest.approx(
        {0: math.exp(3), 10: math.exp(2.5), 20: math.exp(2)}
    )
    assert trial_attrs(trial).outcome == "complete"


@of("silent")
def test_a_program_that_never_reports_fails_at_once(trial: FrozenTrial, folder: Path):
    assert trial_attrs(trial).outcome == "failed"
    assert "val_loss" in (trial_attrs(trial).reason or "")
    run_dir = folder / "runs" / "faults" / str(trial.number)
    assert sum(event["event"] == "start" for event in read_events(run_dir)[0]) == 1


@of("nan")
def test_a_figure_that_is_nan_ends_the_program_as_diverged(trial: FrozenTrial):
    assert trial_attrs(trial).outcome == "diverged"
    assert trial_attrs(trial).reason == "val_loss became nan at step 10"


@of("milliseconds")
def test_a_figure_too_high_for_nats_ends_the_program_with_the_way_out(trial: FrozenTrial):
    assert trial_attrs(trial).outcome == "diverged"
    assert "val_loss was 1200 at step 0" in (trial_attrs(trial).reason or "")
    assert "set trainer.metric.unit" in (trial_attrs(trial).reason or "")


@of("twice")
def test_of_a_step_that_comes_twice_or_late_the_first_counts(trial: FrozenTrial):
    assert list(trial.intermediate_values) == [0, 10, 20]
    assert trial.intermediate_values[10] == pytest.approx(math.exp(2.5))


@of("exits")
def test_an_exit_code_is_tried_again_once_and_given_with_the_last_line(
    trial: FrozenTrial, folder: Path
):
    assert trial_attrs(trial).reason == "ended with exit code 1: no such corpus"
    run_dir = folder / "runs" / "faults" / str(trial.number)
    assert sum(event["event"] == "start" for event in read_events(run_dir)[0]) == 2


@of("flood")
def test_a_program_that_floods_its_output_is_heard_and_its_log_is_bounded(
    trial: FrozenTrial, folder: Path
):
    assert trial.intermediate_values == pytest.approx({10: math.exp(2.25)})
    run_dir = folder / "runs" / "faults" / str(trial.number)
    for name in (LOG, OLD_LOG):
        assert 0 < (run_dir / name).stat().st_size < MAX_LOG_BYTES + 2**17


def test_trials_that_fail_or_diverge_are_not_ranked(study: optuna.Study):
    assert set(results.best_by_arm(study)) == {"fine", "twice", "flood"}


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("verdict", "--study", "faults"), "{seed}"),
        (("run", "--study", "faults.toml", "--data", "built-in"), "--data"),
        (("run", "--study", "missing.toml"), "no_such.py"),
        (("run", "--study", "changed.toml", "--trials", "8"), "program.py"),
        (("export", "--study", "faults", "--format", "json"), "toml"),
    ],
)
def test_what_a_program_cannot_do_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    words: tuple[str, ...],
    key: str,
):
    other = folder / "other"
    other.mkdir(exist_ok=True)
    (other / "program.py").write_text(PROGRAM + "# changed")
    (folder / "changed.toml").write_text(STUDY.replace("[trainer]", '[trainer]\nfolder = "other"'))
    missing = STUDY.replace("program.py", "no_such.py").replace('"faults"', '"missing"')
    (folder / "missing.toml").write_text(missing)
    refused = Commands(monkeypatch, capsys, folder)(*words)
    assert refused.code == 2
    assert refused.is_right
    assert key in refused.err
    assert not (folder / "runs" / "missing").exists()


# --- one process --------------------------------------------------------------------------------


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def supervised(run_dir: Path, behaviour: str, pattern: str, grace: float = 30.0) -> list[str]:
    """The command of a program's process, with the time that it gives a program to end."""
    (run_dir.parent / "program.py").write_text(PROGRAM)
    run_dir.mkdir()
    program = {
        "command": [sys.executable, "program.py", behaviour],
        "resume": ["--resume"],
        "folder": str(run_dir.parent),
        "environment": {"SQUEN_RUN_DIR": str(run_dir)},
        "metric": {"name": "val_loss", "pattern": pattern},
        "max_steps": None,
        "rendered": "",
    }
    (run_dir / "program.json").write_text(json.dumps(program))
    code = f"import sweep.trainers.run_command as r; r.STOP_SECONDS = {grace}; r.main()"
    return [sys.executable, "-c", code, str(run_dir)]


def started(command: list[str], run_dir: Path) -> tuple["subprocess.Popen[bytes]", list[int]]:
    """Start a process, wait for its program's report; return it and the pids of its program."""
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_until(lambda: any(e["event"] == "evaluation" for e in read_events(run_dir)[0]))
    family = psutil.Process(process.pid).children(recursive=True)
    return process, [one.pid for one in family if "program.py" in " ".join(one.cmdline())]


PATTERN = r"step (?P<step>\d+): train loss \S+, val loss (?P<value>\S+)"


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_program_that_ignores_a_request_to_end_is_killed_with_its_children(run_dir: Path):
    process, pids = started(supervised(run_dir, "stubborn", PATTERN, grace=0.1), run_dir)
    assert len(pids) == 2
    process.terminate()
    process.wait()
    wait_until(lambda: all(map(is_gone, pids)))
    assert read_events(run_dir)[0][-1]["event"] == "stopped"


def test_a_program_behind_scripts_that_die_of_the_request_has_its_time_and_its_helpers(
    run_dir: Path,
):
    command = supervised(run_dir, "saves", PATTERN)
    program = json.loads((run_dir / "program.json").read_text())
    for _ in range(2):  # a script in a script
        program["command"] = ["sh", "-c", '"$@"; echo end', "sh", *program["command"]]
    (run_dir / "program.json").write_text(json.dumps(program))
    process, pids = started(command, run_dir)
    process.terminate()
    process.wait()
    assert (run_dir / "checkpoint").exists()
    wait_until(lambda: all(map(is_gone, pids)))
    assert read_events(run_dir)[0][-1]["event"] == "stopped"


def test_a_program_that_left_a_checkpoint_is_resumed_and_its_steps_go_on(run_dir: Path):
    command = supervised(run_dir, "goes on", PATTERN)
    process, _ = started(command, run_dir)
    process.terminate()
    process.wait()
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    events = read_events(run_dir)[0]
    kinds = [event["event"] for event in events]
    assert kinds == ["start", "evaluation", "stopped", "start", "evaluation", "done"]
    assert [e["value"] for e in events if e["event"] == "evaluation"] == [3.0, 2.0]
    seconds = [e["seconds"] for e in events if e["event"] == "evaluation"]
    assert seconds == sorted(seconds)


def test_a_program_under_nohup_goes_on_when_its_terminal_closes(run_dir: Path):
    command = ["nohup", *supervised(run_dir, "waits", PATTERN)]
    (run_dir.parent / "program.py").write_text(WAITS)
    process, _ = started(command, run_dir)
    process.send_signal(signal.SIGHUP)
    (run_dir.parent / "go").touch()
    process.wait()
    assert read_events(run_dir)[0][-1]["event"] == "done"


def test_a_program_without_memory_says_so_in_its_last_lines(run_dir: Path):
    command = supervised(run_dir, "memory", PATTERN)
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert read_events(run_dir)[0][-1]["outcome"] == "oom"


def test_a_program_dies_with_the_process_that_runs_it(run_dir: Path):
    process, pids = started(supervised(run_dir, "stubborn", PATTERN), run_dir)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: all(map(is_gone, pids)))  # or it fails
    assert process.returncode == -signal.SIGKILL


DIES_AT_ONCE = """
import os, subprocess, sys
start = subprocess.Popen
def dies(command, **options):
    process = start(command, **options)
    if "sleep" in command:
        with open(sys.argv[1] + "/pid", "w") as file: file.write(str(process.pid))
        os.kill(os.getpid(), 9)
    return process
subprocess.Popen = dies
"""


def test_a_program_dies_with_the_process_that_has_just_started_it(run_dir: Path):
    python, option, code, folder = supervised(run_dir, "stubborn", PATTERN)
    program = json.loads((run_dir / "program.json").read_text()) | {"command": ["sleep", "200"]}
    (run_dir / "program.json").write_text(json.dumps(program))
    command = [python, option, DIES_AT_ONCE + code, folder]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    pid = int((run_dir / "pid").read_text())
    wait_until(lambda: is_gone(pid))  # or it fails


def test_a_pattern_that_takes_too_long_on_a_line_ends_the_program(run_dir: Path):
    slow = r"(?P<step>\d)(?:ab|a|b)+z(?P<value>\d)"
    command = supervised(run_dir, "slow", slow)
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    (error,) = (event for event in read_events(run_dir)[0] if event["event"] == "error")
    assert error["outcome"] == "unusable"
    assert "pattern" in error["message"]


def test_the_process_of_a_program_imports_neither_torch_nor_optuna():
    slow = "{'torch', 'optuna', 'pydantic', 'numpy'}"
    code = f"import sys, sweep.trainers.run_command; print({slow} & {{*sys.modules}})"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "set()\n"


# --- a sweep that is killed -----------------------------------------------------------------------

WAITS = """
import os, sys, time
print("step 0: train loss 1.0, val loss 3.0", flush=True)
while not os.path.exists("go"): time.sleep(0.02)
print("step 10: train loss 1.0, val loss 2.0", flush=True)
"""


def test_programs_outlive_a_killed_sweep_and_the_next_one_takes_them_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "program.py").write_text(WAITS)
    study = STUDY.replace(str(BEHAVIOURS), '["a", "b"]').replace('"faults"', '"waits"')
    (tmp_path / "waits.toml").write_text(study)
    options = ["--device", "cpu", "--trials", "2", "--workers", "2"]
    words = ["run", "--study", "waits.toml", *options]
    sweep = Forked(tmp_path, *words)
    runs = [tmp_path / "runs" / "waits" / number for number in ("0", "1")]
    wait_until(lambda: all(len(read_events(run)[0]) > 1 for run in runs))
    sweep.kill()
    sweep.wait()
    (tmp_path / "go").touch()
    again = Forked(tmp_path, *words)
    assert again.wait() == 0, again.printed()
    stored = load_study(open_storage(str(tmp_path / "runs" / "sweep.db")), "waits")
    for trial, run in zip(stored.get_trials(), runs, strict=True):
        assert sorted(trial.intermediate_values) == [0, 10]
        assert [event["event"] for event in read_events(run)[0]].count("start") == 1


# --- a metric that is maximised ------------------------------------------------------------------

ACCURATE = """
import json, os
from pathlib import Path
from sweep.report_to import report
text = Path(os.environ["SQUEN_RUN_DIR"], "settings.json").read_text()
settings = json.loads(text)
assert json.loads(Path(os.environ["SQUEN_PARAMS"]).read_text())["seed"] == settings["seed"]
for epoch in (1, 2, 3, 4):
    bonus = 0.2 if settings["wide"] else 0.0
    accuracy = 0.3 + bonus + 0.1 * epoch * settings["lr"] + settings["seed"] % 7 * 1e-4
    report(epoch, accuracy, tokens=1000 * epoch)
"""
TEMPLATE = """{"lr": {lr}, "wide": {wide}, "seed": {seed},
 "folder": "{run_dir}", "as_it_is": "{{seed}}"}
"""
ACCURACY_STUDY = f"""
name = "accuracy"
compare = "wide"
search.wide.choices = [false, true]
search.lr = {{ low = 0.1, high = 1.0 }}
sampler = {{ startup_trials = 4 }}
pruner = {{ startup_trials = 1, shadow_fraction = 0.0 }}
verdict = {{ top = 2, screening_seeds = 2, seeds = 3 }}
[trainer]
command = ["{sys.executable}", "accurate.py"]
template = "settings.json.in"
[trainer.metric]
name = "accuracy"
direction = "maximize"
"""


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Commands(monkeypatch, capsys, tmp_path)


def test_a_metric_that_is_maximised_has_its_highest_value_as_the_best(commands: Commands):
    (commands.folder / "accurate.py").write_text(ACCURATE)
    (commands.folder / "settings.json.in").write_text(TEMPLATE)
    (commands.folder / "mine.toml").write_text(ACCURACY_STUDY)
    options = ("--study", "mine.toml", "--device", "cpu")
    ran = commands("run", *options, "--trials", "8", "--workers", "1")
    assert ran.code == 0, ran.err
    assert "perplexity" not in ran.out
    study = load_study(open_storage(str(commands.folder / "runs" / "sweep.db")), "accuracy")
    assert study.direction.name == "MAXIMIZE"
    complete = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    best = max(complete, key=lambda trial: trial.values[0])
    assert results.best_trial(study).number == best.number
    assert best.params["wide"] is True
    pruned = [trial for trial in study.get_trials() if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        assert "below the median" in (trial_attrs(trial).reason or "")
    rendered = (commands.folder / "runs" / "accuracy" / "0" / "settings.json").read_text()
    assert '"wide": false' in rendered
    assert '"as_it_is": "{seed}"' in rendered

    judged = commands("verdict", *options, "--json")
    assert judged.code == 0, judged.err
    assert '"settings_answer": "better"' in judged.out
    report = (commands.folder / "runs" / "accuracy" / "report.html").read_text()
    assert "highest validation accuracy" in report or "is better than" in report
    assert "bits per byte" not in report.partition("<script>")[0]
    written = commands("export", "--study", "accuracy", "-o", "best.toml")
    assert written.code == 0, written.err
    (line,) = (
        line[2:]
        for line in (commands.folder / "best.toml").read_text().splitlines()
        if line.startswith("# mkdir")
    )
    subprocess.run(["sh", "-c", line], check=True)
    again = commands.folder / f"out-accuracy-{best.number}"
    reported = [json.loads(each) for each in (again / "events.jsonl").read_text().splitlines()]
    assert reported[-1]["value"] == best.values[0]
    assert json.loads((again / "settings.json").read_text())["folder"] == str(again)
    assert commands("train", "best.toml").code == 2


def test_a_sweep_whose_trials_all_failed_ends_with_1(commands: Commands):
    text = ACCURACY_STUDY.replace('"accurate.py"', '"silent.py"').replace(
        'template = "settings.json.in"\n', ""
    )
    (commands.folder / "silent.py").write_text("")
    (commands.folder / "mine.toml").write_text(text)
    options = ("--study", "mine.toml", "--device", "cpu", "--workers", "1")
    ran = commands("run", *options, "--trials", "1")
    assert (ran.code, "1 failed" in ran.out) == (1, True), ran
