import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from forked import Forked
from invariants import wait_until
from tiny_runs import write_stories
from tiny_studies import STUDY
from typer.testing import CliRunner

from gpt.events import read_events
from sweep.cli import _option, app, main
from sweep.study.toml_file import shipped_files

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("studies", "run", "status", "report", "plot", "dashboard", "verdict", "init", "check"),
    *("export", "train", "sample", "doctor"),
)
SQUEN = [sys.executable, "-m", "sweep"]


class Outcome(NamedTuple):
    """What a command leaves on the terminal."""

    code: int
    out: str
    err: str


class Home:
    """A user's folder with a study, its text and whatever commands have left there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))

    def __call__(self, *arguments: str) -> Outcome:
        """Run a command in this process."""
        self._monkeypatch.setattr(sys, "argv", ["squen-sweep", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = self._capsys.readouterr()
        return Outcome(int(ended.value.code or 0), shown.out, shown.err)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command in a process of its own."""
        return subprocess.Popen(
            [*SQUEN, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def files(self) -> dict[str, str]:
        """Every file's hash and every folder, without SQLite's log and the token cache."""
        return {
            str(path.relative_to(self.folder)): _hash(path) if path.is_file() else "folder"
            for path in sorted(self.folder.rglob("*"))
            if not path.name.endswith(("-wal", "-shm"))
            and "cache" not in path.relative_to(self.folder).parts
        }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_study(folder: Path, max_steps: int = 12, eval_interval: int = 4) -> None:
    """tiny.toml, its text, and text that is none."""
    write_stories(folder / "text")
    (folder / "empty.txt").write_text("")
    (folder / "short.txt").write_text("A cat.<|endoftext|>A dog.")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 16)
    knobs = {"lowest": 1e-3, "highest": 1e-2, "baseline": 5e-3, "pruner": "none", "batch_size": 4}
    study = STUDY.format(text="text", max_steps=max_steps, eval_interval=eval_interval, **knobs)
    (folder / "tiny.toml").write_text(study)


@pytest.fixture
def home(tmp_path: Path, monkeypatch, capsys) -> Home:
    """Before the first command."""
    write_study(tmp_path)
    return Home(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def swept_folder(tmp_path_factory) -> Path:
    """A folder in which the study has run; no test may change its study."""
    folder = tmp_path_factory.mktemp("swept")
    write_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        run = Forked(folder, "run", "--study", "tiny.toml", "--trials", "2")
    assert run.wait() == 0, run.printed()
    (folder / "run.txt").write_text(run.printed())
    return folder


@pytest.fixture
def swept(swept_folder: Path, monkeypatch, capsys) -> Home:
    """After `squen-sweep run --study tiny.toml --trials 2`."""
    return Home(swept_folder, monkeypatch, capsys)


def last_evaluation(run_dir: Path) -> dict[str, float]:
    events = [event for event in read_events(run_dir)[0] if event["event"] == "evaluation"]
    return events[-1]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)


# --- help ------------------------------------------------------------------------------------


def test_help_lists_every_command():
    shown = CliRunner().invoke(app, ["--help"]).output
    assert all(f" {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: squen-sweep {command}" in result.output


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_h_is_help_and_flags_have_no_type(command):
    short = CliRunner().invoke(app, [*command, "-h"])
    assert short.exit_code == 0
    assert short.output == CliRunner().invoke(app, [*command, "--help"]).output
    assert "<bool>" not in short.output


def test_version_is_that_of_the_package(home):
    assert home("--version") == Outcome(0, f"squen-sweep {version('squen-sweep')}\n", "")


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['squen-sweep', '--help']\n"
        "from sweep.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'optuna', 'pandas', 'plotly', 'numpy', 'datasets', 'pydantic'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    assert python(code).stdout.endswith("loaded: []\n")


def test_studies_lists_the_shipped_studies(home):
    code, out, _ = home("studies")
    assert code == 0
    assert all(name in out for name in ("tinystories", "original", "smoke"))


def test_studies_lists_own_files_and_what_the_storage_holds(swept):
    folder = swept.folder / "studies"
    folder.mkdir()
    own = (swept.folder / "tiny.toml").read_text()
    (folder / "mine.toml").write_text(own.replace('name = "tiny"', 'name = "mine"'))
    (folder / "broken.toml").write_text("name = ")
    try:
        code, out, err = swept("studies")
        rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line}
        assert (code, err) == (0, "")
        assert rows["tiny"] == "tiny 2 of 2 Seconds on a CPU."
        assert rows["studies/mine.toml"] == "studies/mine.toml - Seconds on a CPU."
        assert "not a study: broken.toml: must be TOML" in rows["studies/broken.toml"]
        assert rows["smoke"].startswith("smoke - ")
        shipped = sorted(shipped_files())
        assert list(rows)[: 1 + len(shipped)] == ["study", *shipped]
    finally:
        shutil.rmtree(folder)


# --- the main job ----------------------------------------------------------------------------


def test_run_ends_with_results_places_and_the_next_commands(swept):
    lines = (swept.folder / "run.txt").read_text().splitlines()
    end = lines[next(i for i, line in enumerate(lines) if line.startswith("tiny is complete")) :]
    assert end[0].startswith("tiny is complete: 2/2 trials (2 complete) in ")
    assert end[1].startswith("best: cross_entropy ")
    assert end[2] == "runs: runs/tiny, storage: runs/sweep.db"
    assert end[3] == "report: runs/tiny/report.html"
    assert end[4] == "next:"
    assert [line.strip().partition(" --")[0] for line in end[5:]] == [
        "squen-sweep verdict",
        "squen-sweep report",
        "squen-sweep export",
        "squen-sweep train best.toml",
        "squen-sweep dashboard",
    ]


def test_run_again_says_that_the_study_is_complete(swept):
    code, out, err = swept("run", "--study", "tiny.toml", "--trials", "2")
    assert (code, err) == (0, "")
    assert re.search(r"tiny .*complete: 2/2 trials \(2 complete\)", out)


def test_a_study_goes_on_from_a_file_that_says_the_same_in_other_words(swept):
    path = Path("tiny.toml")
    before = path.read_bytes()
    head, *tables = before.decode().split("\n[")
    changed = "\n[".join([head, *reversed(tables)])
    changed = changed.replace("n_embd = 16", "dropout = 0.0 # none\nn_embd = 16")
    changed = changed.replace("low = 0.001", "low = 1e-3")
    assert changed.encode() != before
    path.write_bytes(b"\xef\xbb\xbf" + changed.replace("\n", "\r\n").encode())
    try:
        code, out, err = swept("run", "--study", "tiny.toml", "--trials", "2")
    finally:
        path.write_bytes(before)
    assert (code, err) == (0, "")
    assert re.search(r"tiny .*complete: 2/2 trials", out)


def test_a_changed_study_goes_on_under_another_name(swept):
    path = Path("tiny.toml")
    before = path.read_text()
    path.write_text(before.replace("max_steps = 12", "max_steps = 8"))
    command = ("run", "--study", "tiny.toml", "--trials", "1", "--storage", "named.db")
    try:
        assert swept(*command, "--runs", "named").code == 0
        path.write_text(before)
        code, _, err = swept(*command, "--runs", "named")
        assert code == 2
        assert re.search(r"train\.max_steps .*--as ", err)
        assert swept(*command, "--runs", "named", "--as", "tiny-12").code == 0
    finally:
        path.write_text(before)
    code, out, _ = swept("status", "--study", "tiny-12", "--storage", "named.db")
    assert code == 0
    assert "1/1 trials finished, 1 complete" in out
    assert swept("doctor", "--storage", "named.db", "--runs", "named").code == 0


def test_quiet_run_shows_nothing(swept):
    outcome = swept("run", "--study", "tiny.toml", "--trials", "2", "--quiet")
    assert outcome == Outcome(0, "", "")


def test_status_shows_a_whole_row_per_trial_in_a_pipe(swept):
    code, out, err = swept("status", "--study", "tiny")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "study tiny on cpu"
    assert [line.split()[0] for line in lines[2:5]] == ["trial", "0", "1"]
    assert lines[3].split()[:5] == ["0", "cross_entropy", "baseline:usual", "complete", "12"]
    assert "2/2 trials finished, 2 complete" in lines
    assert any(line.startswith("best: cross_entropy ") for line in lines)
    assert "…" not in out
    assert not any(line.endswith(" ") for line in lines)


def test_status_fits_a_narrow_terminal(swept):
    from rich.console import Console

    from sweep.report.status_table import study_status
    from sweep.storage.rdb import open_storage
    from sweep.storage.reader import load_study

    study = load_study(open_storage("runs/sweep.db"), "tiny")
    console = Console(file=io.StringIO(), width=80)
    console.print(*study_status(study, console.width), sep="\n")
    shown = console.file.getvalue()
    assert "…" not in shown
    table = shown[: shown.index("best: ")].splitlines()
    assert len(table) == 6  # no row wraps


def test_status_takes_the_study_file_as_well_as_the_name(swept):
    assert swept("status", "--study", "tiny.toml") == swept("status", "--study", "tiny")
    changed = swept.folder / "changed.toml"
    changed.write_text('name = "tiny"\n[search.seed]\nlow = 1\nhigh = 9')
    assert swept("status", "--study", "changed.toml") == swept("status", "--study", "tiny")


def test_status_works_before_the_first_trial_and_shows_the_notice(home):
    from sweep.storage.rdb import create_study, open_storage
    from sweep.study.toml_file import read_study_file

    facts = {
        "fingerprint": "0123abcd",
        "name": "built-in story grammar",
        "train_tokens": 1000,
        "tokenizer": "bpe-280",
        "notice": "these are not TinyStories figures",
        "floor_perplexity": 1.99,
    }
    spec = read_study_file("tiny.toml", "cpu")
    create_study(open_storage("new.db", create=True), spec, facts, "cpu")
    code, out, _ = home("status", "--study", "tiny", "--storage", "new.db")
    assert code == 0
    assert "no trials yet" in out
    assert "NOTICE: these are not TinyStories figures" in out
    assert "the grammar itself has perplexity 1.99" in out


def test_exported_best_trains_again_digit_for_digit(swept):
    code, out, _ = swept("export", "--study", "tiny", "-o", "best.toml", "--arm", "squentropy")
    assert code == 0
    number = int(out.partition("trial ")[2].partition(" ")[0])
    trial = last_evaluation(Path("runs/tiny") / str(number))

    code, out, err = swept("train", "best.toml")
    assert (code, err) == (0, "")
    final = last_evaluation(Path("runs/final/best"))
    for name in ("perplexity", "cross_entropy", "train_loss", "grad_norm"):
        assert final[name] == trial[name]
    assert "done: runs/final/best" in out
    assert 'squen-sweep sample runs/final/best --prompt "Once upon a time"' in out

    code, out, _ = swept("train", "best.toml")
    assert code == 0
    assert out.startswith("runs/final/best is complete: 12 steps.")


def test_train_for_longer_goes_on_in_its_directory(swept):
    swept("export", "--study", "tiny", "-o", "longer.json")
    assert swept("train", "longer.json", "--steps", "16", "--out", "runs/longer").code == 0
    assert last_evaluation(Path("runs/longer"))["step"] == 16
    assert swept("train", "longer.json", "--steps", "20", "--out", "runs/longer").code == 0
    assert last_evaluation(Path("runs/longer"))["step"] == 20
    code, out, err = swept("train", "longer.json", "--steps", "16", "--out", "runs/longer")
    assert (code, out) == (2, "")
    assert "16" in err
    assert "20" in err


def test_export_replaces_what_it_wrote_and_other_files_only_by_force(swept, tmp_path):
    for name in ("own.toml", "own.json", "own.py"):
        own = str(tmp_path / name)
        assert swept("export", "--study", "tiny", "-o", own).code == 0
        assert swept("export", "--study", "tiny", "-o", own, "--trial", "1").code == 0
    (tmp_path / "empty.toml").touch()
    assert swept("export", "--study", "tiny", "-o", str(tmp_path / "empty.toml")).code == 0

    other = tmp_path / "notes.toml"
    other.write_text("mine = true")
    assert swept("export", "--study", "tiny", "-o", str(other)).code == 2
    assert other.read_text() == "mine = true"
    assert swept("export", "--study", "tiny", "-o", str(other), "--force").code == 0
    assert other.read_text().startswith("# Study tiny, trial ")


def test_an_exported_configuration_is_no_study(swept, tmp_path):
    path = tmp_path / "best.toml"
    assert swept("export", "--study", "tiny", "-o", str(path)).code == 0
    assert_refused(
        swept, ("run", "--study", str(path)), f"best.toml: .*`squen-sweep train {path}` trains it"
    )


def test_paths_from_the_home_folder_are_found_by_every_command(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home.folder / "my home"))
    (home.folder / "my home").mkdir()
    shutil.move("tiny.toml", "my home/tiny.toml")
    shutil.move("text", "my home/my text")
    where = ("--storage=~/x.db",)
    run = ("run", "--study=~/tiny.toml", "--runs=~/r", "--data=~/my text", *where)
    assert home(*run, "--trials", "1", "--quiet") == Outcome(0, "", "")
    assert home("status", "--study=~/tiny.toml", *where).code == 0
    assert home("export", "--study", "tiny", "--output=~/best.toml", *where).code == 0
    assert home("train", "~/best.toml", "--out=~/final run").code == 0
    assert home("sample", "~/final run", "--max-new-tokens", "4").code == 0
    assert home("doctor", "--runs=~/r", *where).code == 0
    assert not (home.folder / "~").exists()
    made = {path.name for path in (home.folder / "my home").iterdir()}
    assert made >= {"x.db", "r", "best.toml", "final run"}


@pytest.mark.parametrize("words", [["--storage", "a.db"], ["--storage=a.db"]])
def test_the_storage_of_an_error_line_is_the_one_that_was_typed(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["squen-sweep", "status", *words])
    assert _option("--storage") == "a.db"
    assert _option("--runs") is None


def test_export_writes_to_stdout_without_an_output(swept):
    code, out, err = swept("export", "--study", "tiny", "--format", "json", "--trial", "1")
    assert (code, err) == (0, "")
    assert json.loads(out)["loss"] == "squentropy"


def test_sample_prints_the_same_stories_for_the_same_seed(swept):
    arguments = ("sample", "runs/tiny/0", "--prompt", "Tom saw", "--max-new-tokens", "8")
    code, out, err = swept(*arguments, "--num-samples", "2", "--seed", "3")
    assert (code, err) == (0, "")
    assert [story.startswith("Tom saw") for story in out.split("\n---\n")] == [True, True]
    assert swept(*arguments, "--num-samples", "2", "--seed", "3").out == out
    assert swept(*arguments, "--num-samples", "2", "--seed", "4").out != out


def test_report_goes_beside_the_run_directories(swept):
    code, out, err = swept("report", "--study", "tiny")
    assert (code, out, err) == (0, "report: runs/tiny/report.html\n", "")
    assert Path("runs/tiny/report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("browser", ["browser", "nowhere"])
def test_report_open_shows_the_file_in_the_browser(swept, tmp_path, monkeypatch, browser):
    script, seen = tmp_path / "browser", tmp_path / "seen"
    script.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(tmp_path / browser))
    monkeypatch.setenv("PATH", "")  # no other one
    page = tmp_path / "a b.html"
    with Forked(swept.folder, "report", "--study", "tiny", "--open", "-o", str(page)) as run:
        printed, _ = run.communicate()
    assert run.returncode == 0
    assert f"report: {page}\n" in printed
    others = printed.replace(f"report: {page}\n", "")
    if browser == "nowhere":
        assert re.fullmatch(r"no browser .*\n", others)
    else:
        assert others == ""
        assert seen.read_text() == f"file://{tmp_path}/a%20b.html\n"


def test_plot_writes_the_figure_of_the_report_as_html_or_json(swept, tmp_path):
    for suffix, start in (("json", '{"data"'), ("html", "<!doctype html>")):
        out = tmp_path / f"curves.{suffix}"
        code, shown, err = swept("plot", "curves", "--study", "tiny", "-o", str(out))
        assert (code, shown, err) == (0, f"written: {out}\n", "")
        assert out.read_text().startswith(start)
    drawn = json.loads((tmp_path / "curves.json").read_text())
    assert {trace["name"] for trace in drawn["data"]} == {"cross_entropy", "squentropy"}


def test_plot_list_names_every_figure(swept):
    listed = swept("plot", "--list", "--study", "tiny").out
    names = [line.partition(":")[0] for line in listed.splitlines()]
    assert {
        "curves",
        "tuning-curve",
        "confirm-runs",
        "slice-learning_rate",
        "importances-best",
        "calibration",
    } <= set(names)


def test_run_as_json_prints_nothing_but_objects(swept):
    code, out, err = swept("run", "--study", "tiny.toml", "--trials", "2", "--json")
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["event"] == "summary"
    assert events[-1]["outcomes"] == {"complete": 2}
    assert events[-1]["report"] == "runs/tiny/report.html"


def test_status_as_json_has_the_best_of_each_arm_and_every_trial(swept):
    status = json.loads(swept("status", "--study", "tiny", "--json").out)
    assert status["finished"] == 2
    assert set(status["best"]) == {"cross_entropy", "squentropy"}
    assert [trial["number"] for trial in status["trials"]] == [0, 1]


def test_the_shell_completion_names_the_commands(monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # here is no shell
    script = CliRunner().invoke(app, ["--show-completion", "bash"])
    assert "_SQUEN_SWEEP_COMPLETE" in script.output


# --- interrupts and pipes --------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_in_a_run_exits_130_and_says_how_to_go_on(home):
    write_study(home.folder, max_steps=100_000, eval_interval=50)
    process = Forked(home.folder, "run", "--study", "tiny.toml", "--workers", "1")
    wait_until(lambda: " step " in process.printed())
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode == 130
    assert re.search(
        r"\nstopped at 0 of 40 trials.*: squen-sweep run --study tiny.toml --w.* 1\n$", printed
    )


def test_ctrl_c_in_final_training_exits_130_and_says_how_to_go_on(swept):
    swept("export", "--study", "tiny", "-o", "long.toml")
    process = Forked(swept.folder, "train", "long.toml", "--steps", "100000")
    wait_until(lambda: "step " in process.printed())
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode == 130
    last = printed.splitlines()[-1]
    assert re.match(r"stopped .*runs/final/long.*: squen-sweep train long.toml --steps 1\d+$", last)


def test_a_reader_that_leaves_is_no_error(swept):
    process = swept.start("status", "--study", "tiny")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait()
    process.stderr.close()


# --- bad input: one clear line, exit code 2, nothing written ---------------------------------

NEW = ("--storage", "new.db", "--runs", "new")
TINY = ("--study", "tiny")
READ_ONLY = "sqlite:///file:runs/sweep.db?mode=ro&uri=true"  # holds for root as well

BAD_BEFORE_A_RUN = {
    "unknown study": (("run", "--study", "tinystoris"), "'tinystoris'.*tinystories"),
    "missing study file": (("run", "--study", "my.toml"), "my.toml"),
    "no trials": (("run", "--study", "tiny.toml", "--trials", "0"), "at least 1, but got 0"),
    "negative trials": (("run", "--study", "tiny.toml", "--trials", "-3"), "but got -3"),
    "no workers": (("run", "--study", "tiny.toml", "--workers", "0"), "--workers .* got '0'"),
    "workers without end": (
        ("run", "--study", "tiny.toml", "--workers", "9" * 5000),
        "--workers .*1 to 999",
    ),
    "odd workers": (("run", "--study", "tiny.toml", "--workers", "two"), "--workers .* 'two'"),
    "no such GPU": (("run", "--study", "tiny.toml", "--device", "cuda:77"), "cuda:77 is not"),
    "odd device": (("run", "--study", "tiny.toml", "--device", "gpu"), "device .* got 'gpu'"),
    "missing text": (("run", "--study", "tiny.toml", "--data", "no.txt", *NEW), "no.txt"),
    "text without a name": (
        ("run", "--study", "tiny.toml", "--data", "", *NEW),
        "--data.* or a file or folder that exists, but got ''",
    ),
    "empty text": (("run", "--study", "tiny.toml", "--data", "empty.txt", *NEW), "empty.txt"),
    "short text": (
        ("run", "--study", "tiny.toml", "--data", "short.txt", *NEW),
        "bpe_vocab_size .*at most",
    ),
    "binary text": (("run", "--study", "tiny.toml", "--data", "binary.txt", *NEW), "UTF-8"),
    "text as storage": (
        ("run", "--study", "tiny.toml", "--storage", "tiny.toml", "--runs", "new"),
        "tiny.toml must be a SQLite database",
    ),
    "odd option of a database": (
        ("run", "--study", "tiny.toml", "--storage", "sqlite:///x.db?timeout=soon"),
        "timeout=soon .*'soon'",
    ),
    "odd option of a stored database": (
        ("status", *TINY, "--storage", "sqlite:///tiny.toml?timeout=soon"),
        "tiny.toml must be a SQLite database",
    ),
    "name without end": (
        ("run", "--study", "tiny.toml", "--storage", f"{'x' * 300}.db"),
        r"x+\.db .*File name too long",
    ),
    "name of two lines": (("run", "--study", "a\nb.toml"), r"a\\nb.toml: must be a study file"),
    "unknown kind of database": (
        ("run", "--study", "tiny.toml", "--data", "no.txt", "--storage", "oracel://host/db"),
        "storage .*oracel://host/db",
    ),
    "file as runs": (
        ("run", "--study", "tiny.toml", "--runs", "tiny.toml", "--storage", "runs/new.db"),
        "--runs .*tiny.toml is a file",
    ),
    "open quote": (("run", "--study", "tiny.toml", '--sbatch=--comment="x'), "--sbatch .*quot"),
    "device of a cluster": (
        ("run", "--study", "tiny.toml", "--device", "mps", "--backend", "slurm"),
        "--device must be auto, cpu or cuda .*'mps'",
    ),
    "odd time": (("run", "--study", "tiny.toml", "--timeout", "soon"), "--timeout .* got 'soon'"),
    "no time": (("run", "--study", "tiny.toml", "--hang-timeout", "0"), "--hang-timeout .* '0'"),
    "odd new name": (("run", "--study", "tiny.toml", "--as", "../x"), "--as must be .*'../x'"),
    "doctor without storage": (("doctor",), "runs/sweep.db must exist"),
    "status without storage": (("status", *TINY), "runs/sweep.db must exist"),
    "report without storage": (("report", *TINY), "runs/sweep.db must exist"),
    "export without storage": (("export", *TINY), "runs/sweep.db must exist"),
    "verdict without storage": (("verdict", *TINY), "runs/sweep.db must exist"),
    "dashboard without storage": (("dashboard",), "runs/sweep.db must exist"),
    "dashboard on no port": (("dashboard", "--port", "0"), "--port .* got 0"),
    "missing configuration": (("train", "best.toml"), "best.toml"),
    "study as configuration": (
        ("train", "tiny.toml"),
        "tiny.toml .*it is a study.*`squen-sweep run --study tiny.toml`.* export",
    ),
    "URL as text": (
        ("run", "--study", "tiny.toml", "--data", "https://example.com/stories.txt"),
        "--data must be a path .*'https://example.com/stories.txt'",
    ),
    "URL as runs": (
        ("run", "--study", "tiny.toml", "--runs", "s3://b/runs"),
        "--runs must be a path",
    ),
    "URL as configuration": (("train", "https://example.com/best.toml"), "must be a path"),
    "URL with too few slashes": (
        ("run", "--study", "tiny.toml", "--storage", "sqlite://runs/x.db"),
        "pass runs/x.db or sqlite:///runs/x.db",
    ),
    "URL without slashes": (("status", *TINY, "--storage", "sqlite:x.db"), "pass x.db or"),
    "reserved name": (
        ("run", "--study", "tiny.toml", "--as", "final"),
        "--as must not be .*'final'",
    ),
    "story as configuration": (("train", "text/train.txt"), "must be a .toml or .json"),
    "missing run": (("sample", "runs/final/best"), "runs/final/best must be a run directory"),
    "folder as run": (("sample", "text"), "text must be a run directory, .* no config.json"),
    "no samples": (("sample", "text", "--num-samples", "0"), "--num-samples .* at least 1"),
    "no tokens": (("sample", "text", "--max-new-tokens", "0"), "--max-new-tokens .* at least 1"),
    "cold": (("sample", "text", "--temperature", "-1"), "--temperature .* at least 0"),
    "hot": (("sample", "text", "--temperature", "inf"), "--temperature .* at most 1000, .* inf"),
    "no temperature": (("sample", "text", "--temperature", "nan"), "--temperature .* nan"),
    "negative top-k": (("sample", "text", "--top-k", "-1"), "--top-k .* at least 0"),
}

BAD_STUDY_FILES = {  # what stands in the study file: what is written instead, what is said
    "misspelt key": (
        "eval_interval =",
        "eval_intervall =",
        "eval_intervall: .*eval_interval",
    ),
    "wrong type": ("n_embd = 16", 'n_embd = "16"', "train.n_embd: .*'16'"),
    "empty choices": ('["cross_entropy", "squentropy"]', "[]", "search.loss"),
    "low above high": ("high = 2", "high = 0", "search.n_layer: low must be below high"),
    "log with zero": ("low = 0.001", "low = 0.0", "search.learning_rate"),
    "unknown loss": (
        '"squentropy"]',
        '"mse"]',
        "search.loss.choices: .*cross_entropy, squentropy, .*'mse'",
    ),
    "warm-up without an end": ("warmup_steps = 2", "warmup_steps = 12", "warmup_steps: .*=12"),
    "no evaluation": ("eval_interval = 4", "eval_interval = 13", "eval_interval: .*=13"),
    "seed as a setting": ("[search.n_layer]", "[search.seed]", "search.seed: .*verdict --seeds"),
    "reserved name": ('name = "tiny"', 'name = "artifacts"', "name: .*'artifacts'"),
    "heads": ("n_embd = 16", "n_embd = 15", "n_embd .*multiple of n_head.*n_embd=15"),
    "block too long": ("block_size = 16", "block_size = 90000", "longer than one block"),
}

BAD_AFTER_A_RUN = {
    "other text": (
        ("run", "--study", "tiny.toml", "--data", "other"),
        "study 'tiny' is pinned .*--data .*text.* new study",
    ),
    "other text and runs": (
        ("run", "--study", "tiny.toml", "--data", "other", "--runs", "elsewhere"),
        "study 'tiny' is pinned",
    ),
    "other storage": (
        ("run", "--study", "tiny.toml", "--storage", "other/other.db"),
        "runs/tiny .*another storage",
    ),
    "other runs": (
        ("run", "--study", "tiny.toml", "--trials", "3", "--runs", "elsewhere"),
        "elsewhere/tiny .*--runs",
    ),
    "read-only storage": (
        ("run", "--study", "tiny.toml", "--storage", READ_ONLY, "--trials", "3"),
        "attempt to write a readonly database",
    ),
    "unknown stored study": (("status", "--study", "tinny"), "'tinny'.*it holds tiny"),
    "stored study in capitals": (("status", "--study", "Tiny"), "the nearest is 'tiny'"),
    "study's folder as run": (
        ("sample", "runs/tiny"),
        "runs/tiny .*run directory.* 2 .*runs/tiny/0",
    ),
    "checkpoints as run": (("sample", "runs/tiny/0/checkpoints"), "pass runs/tiny/0"),
    "configuration as run": (("sample", "runs/tiny/0/config.json"), "pass runs/tiny/0"),
    "run as configuration": (("train", "runs/tiny/0"), "pass runs/tiny/0/config.json"),
    "export over a study": (("export", *TINY, "-o", "tiny.toml"), "tiny.toml must be .* --force"),
    "export over a trial's configuration": (
        ("export", *TINY, "-o", "runs/tiny/0/config.json"),
        "runs/tiny/0/config.json must be .* --force",
    ),
    "open quote": (("verdict", *TINY, '--sbatch=--comment="x'), "--sbatch .*quot"),
    "unknown arm": (("export", *TINY, "--arm", "mse"), "cross_entropy, squentropy.*'mse'"),
    "unknown trial": (("export", *TINY, "--trial", "2"), "--trial .* got 2"),
    "unknown format": (("export", *TINY, "--format", "yaml"), "--format .* got 'yaml'"),
    "unknown suffix": (("export", *TINY, "-o", "best.yaml"), "best.yaml must end in"),
    "export to nowhere": (("export", *TINY, "-o", "no/best.toml"), "no must be a directory"),
    "export to a device": (
        ("export", *TINY, "-o", "dev", "--format", "toml"),
        "dev must be an ordinary file",
    ),
    "report to a device": (("report", *TINY, "-o", "dev"), "dev must be an ordinary file"),
    "plot to a device": (("plot", "curves", *TINY, "-o", "dev.json"), "ordinary file"),
    "export to a folder": (
        ("export", *TINY, "-o", "runs", "--format", "toml"),
        "runs must be a file",
    ),
    "unknown plot": (
        ("plot", "curve", *TINY),
        "one of curves, .*calibration.*'curve'",
    ),
    "plot as a text": (("plot", "curves", *TINY, "-o", "x.txt"), "x.txt must end in .html, .png"),
    "plot to nowhere": (("plot", "curves", *TINY, "-o", "no/x.json"), "no must be a directory"),
    "unknown tracker": (
        ("run", "--study", "tiny.toml", "--track", "aim"),
        "--track .*tensorboard, wandb, mlflow.*'aim'",
    ),
    "report to nowhere": (("report", *TINY, "-o", "no/x.html"), "no must be a directory"),
    "no steps": (("train", "runs/tiny/0/config.json", "--steps", "0"), "--steps .* got 0"),
    "train without the GPU": (
        ("train", "runs/tiny/0/config.json", "--device", "cuda:77"),
        "cuda:77 is not there",
    ),
    "train on no text": (("train", "runs/tiny/0/config.json", "--data", "no.txt"), "no.txt"),
    "train into a study": (
        ("train", "runs/tiny/0/config.json", "--out", "runs/tiny"),
        "runs/tiny must be a new directory",
    ),
    "train into a file": (
        ("train", "runs/tiny/0/config.json", "--out", "tiny.toml"),
        "tiny.toml must be a new directory",
    ),
    "train into another run": (
        ("train", "runs/tiny/0/config.json", "--out", "runs/tiny/1"),
        "runs/tiny/1 .*same run.* loss is squentropy there",
    ),
}


EXIT_CODES = {
    "text as storage": 65,
    "odd option of a stored database": 65,
    "read-only storage": 74,
    "name without end": 74,
}  # of others: 2, usage


def assert_refused(home: Home, arguments: tuple[str, ...], message: str, expected: int = 2) -> None:
    before = home.files()
    code, out, err = home(*arguments)
    assert code == expected
    assert out == "" or arguments[0] == "doctor"  # which begins with what people report of it
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(message, err)
    assert home.files() == before


@pytest.mark.parametrize("case", BAD_BEFORE_A_RUN)
def test_bad_input_is_one_line_and_leaves_nothing(home, case):
    assert_refused(home, *BAD_BEFORE_A_RUN[case], EXIT_CODES.get(case, 2))


@pytest.mark.parametrize("case", BAD_STUDY_FILES)
def test_a_study_file_that_cannot_run_is_one_line_and_leaves_nothing(home, case):
    right, wrong, message = BAD_STUDY_FILES[case]
    path = home.folder / "tiny.toml"
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert_refused(home, ("run", "--study", "tiny.toml"), message)


@pytest.mark.parametrize("case", BAD_AFTER_A_RUN)
def test_bad_input_is_one_line_and_changes_nothing(swept, case):
    write_stories(swept.folder / "other", count=100)
    for name in ("dev", "dev.json"):
        (swept.folder / name).unlink(missing_ok=True)
        os.mkfifo(swept.folder / name)
    assert_refused(swept, *BAD_AFTER_A_RUN[case], EXIT_CODES.get(case, 2))


def test_a_study_without_a_finished_trial_is_not_exported(home):
    from sweep.storage.rdb import create_study, open_storage
    from sweep.study.toml_file import read_study_file

    facts = {"fingerprint": "0123abcd", "name": "text"}
    spec = read_study_file("tiny.toml", "cpu")
    opened = open_storage("new.db", create=True)
    create_study(opened, spec, facts, "cpu")
    opened.engine.dispose()  # the last connection that is closed moves its log into the file
    message = "study 'tiny' must have a complete trial"
    assert_refused(home, ("export", *TINY, "--storage", "new.db"), message)


def test_a_truncated_checkpoint_is_refused_in_one_line(swept, tmp_path):
    shutil.copytree("runs/tiny/0", tmp_path / "run")
    for weights in (tmp_path / "run").rglob("model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(swept, ("sample", str(tmp_path / "run")), "must hold an intact checkpoint", 65)


def test_a_truncated_checkpoint_is_not_trained_on(swept, tmp_path):
    shutil.copytree("runs/tiny/0", tmp_path / "final")
    for weights in (tmp_path / "final").rglob("model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-100])
    config = tmp_path / "again.json"
    shutil.copy("runs/tiny/0/config.json", config)
    arguments = ("train", str(config), "--out", str(tmp_path / "final"))
    assert_refused(swept, arguments, "must hold an intact checkpoint", 65)


def test_a_final_training_that_diverges_ends_in_one_line(swept, tmp_path):
    values = json.loads(Path("runs/tiny/0/config.json").read_text())
    config = tmp_path / "wild.json"
    config.write_text(json.dumps(values | {"learning_rate": 1e30, "grad_clip": 0.0}))
    code, _, err = swept("train", str(config), "--out", str(tmp_path / "wild"))
    assert code == 1
    assert re.fullmatch(r"error: .*wild ended early: training loss .* at learning rate .*\n", err)


def test_optunas_own_command_reads_the_storage(swept):
    optuna = str(Path(sys.executable).with_name("optuna"))
    study = ["--storage", "sqlite:///runs/sweep.db", "--study-name", "tiny"]
    best = subprocess.run(
        [optuna, "best-trial", "--format", "json", *study],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(best.stdout)["params"]["n_layer"] == 1


def test_an_odd_number_is_one_line(home):
    code, out, err = home("run", "--study", "tiny.toml", "--trials", "many")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: .*--trials.*\n", err)


def test_no_command_shows_the_help(home):
    code, out, err = home()
    assert code == 2
    assert "tinystories" in out + err


def test_a_bug_keeps_its_traceback():
    code = (
        "import sys; from sweep.cli import app, main\n"
        "@app.command()\n"
        "def bug(): raise ZeroDivisionError('a bug')\n"
        "sys.argv = ['squen-sweep', 'bug']; main()"
    )
    done = python(code)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: a bug\n")


@pytest.mark.parametrize(
    ("words", "full", "code"),
    [
        (("--version",), ("stdout",), 74),
        (("--version",), ("stdout", "stderr"), 74),
        (("status", "--study", "none"), ("stderr",), 2),
        (("status", "--study", "none"), ("stdout", "stderr"), 2),
    ],
)
def test_a_log_on_a_full_disk_is_an_error_and_hides_no_other(tmp_path, words, full, code):
    with Path("/dev/full").open("w") as device:
        streams = {
            name: device if name in full else subprocess.PIPE for name in ("stdout", "stderr")
        }
        command = [sys.executable, "-m", "sweep", *words]
        done = subprocess.run(command, cwd=tmp_path, text=True, check=False, **streams)
    assert done.returncode == code
    if full == ("stdout",):
        assert done.stderr.startswith("error: there must be space for what is written, but: No")
        assert done.stderr.count("\n") == 1
