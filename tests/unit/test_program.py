"""Study files with a program of the user's: placeholders, patterns, metrics, what a run is."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from invariants import ROOT
from optuna.trial import TrialState, create_trial

from gpt.errors import DataError, InputError
from sweep.analysis.results import ranked
from sweep.analysis.tuning_curve import tuning_curve_table
from sweep.callbacks.json import JsonProgress
from sweep.callbacks.metrics import metrics_of
from sweep.search.arms import gp_observations
from sweep.study.metric import PERPLEXITY, Metric, metric_of
from sweep.study.program import OUR_FILES, rendered, rendered_arguments, rendered_file
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from sweep.trainers.command import CommandTrainer
from sweep.trainers.run_command import OURS, parse_report, reported
from sweep.tuner.callback import Evaluated, Opened

STUDY = """
name = "mine"
compare = "optimizer"
[trainer]
command = "python train.py --lr={{lr}} --optimizer={{optimizer}} --momentum={{momentum}} {more}"
{keys}
[trainer.metric]
name = "val_loss"
{metric}
[search]
optimizer.choices = ["adam", "sgd"]
lr = {{ low = 0.001, high = 0.1, log = true }}
momentum = {{ low = 0.1, high = 0.9, when = {{ optimizer = "sgd" }} }}
{search}
"""


@pytest.fixture
def study(tmp_path: Path) -> Any:
    def write(more: str = "", keys: str = "", metric: str = "", search: str = "") -> StudySpec:
        (tmp_path / "train.py").write_text("print()")
        (tmp_path / "log.txt.in").write_text("")
        path = tmp_path / "mine.toml"
        path.write_text(STUDY.format(more=more, keys=keys, metric=metric, search=search))
        return read_study_file(str(path), "cpu")

    return write


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"more": "--wd={weight_decay}"}, "trainer.command", "weight_decay"),
        ({"keys": 'resume = "--from={ckpt}"'}, "trainer.resume", "ckpt"),
        ({"keys": 'template = "no.yaml.in"'}, "trainer.template", "no.yaml.in"),
        ({"keys": 'template = "log.txt.in"'}, "trainer.template", "log.txt"),
        ({"keys": "max_steps = 0"}, "trainer.max_steps", "0"),
        ({"keys": 'comand = "x"'}, "trainer.comand", "command"),
        ({"metric": "patern = 'x'"}, "trainer.metric.patern", "pattern"),
        ({"metric": "pattern = 'loss (?P<value>.)'"}, "trainer.metric.pattern", "(?P<step>"),
        ({"metric": "pattern = 'step (?P<step>.)'"}, "trainer.metric.pattern", "(?P<value>"),
        ({"metric": "pattern = '(?P<step'"}, "trainer.metric.pattern", "regular expression"),
        (
            {"metric": "pattern = '(?P<step>(\\d+)+)z(?P<value>.)'"},
            "trainer.metric.pattern",
            "linear",
        ),
        ({"metric": "", "search": "val_loss = { low = 1, high = 2 }"}, "trainer.metric.name", "lr"),
        ({"metric": 'direction = "down"'}, "trainer.metric.direction", "down"),
        ({"search": "seed = { low = 1, high = 2 }"}, "search.seed", "seed"),
        ({"search": "width = { low = 1, high = 2 }"}, "search.width", "{width}"),
        ({"search": "[train]\nn_layer = 1"}, "train", "[trainer]"),
        ({"search": '[data]\nsource = "hub"'}, "data", "[trainer]"),
        (
            {"search": '[[baselines]]\nname = "usual"\nparams = { lr = 0.01 }'},
            "baselines.usual.params",
            "momentum",
        ),
    ],
)
def test_a_fault_is_one_line_with_its_key(
    study: Any, changes: dict[str, str], key: str, words: str
):
    with pytest.raises(InputError) as error:
        study(**changes)
    text = str(error.value)
    assert text.startswith(f"mine.toml: {key}: ")
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program --lr={lr}", "no-such-program"),
        ("./train --lr={lr}", "./train"),
        ("python other.py --lr={lr}", "other.py"),
    ],
)
def test_a_program_that_is_not_there_is_refused(study: Any, command: str, words: str):
    spec = study()
    trainer = spec.trainer.model_copy(update={"command": command.split()})
    changed = spec.model_copy(update={"trainer": trainer})
    with pytest.raises(InputError, match=words):
        CommandTrainer(changed).check(changed, print)


def test_a_command_may_have_a_script_in_a_word_however_long(study: Any):
    spec = study()
    for script in ("echo " + "x" * 360, "exec ./train.sh"):
        trainer = spec.trainer.model_copy(update={"command": ["sh", "-c", script]})
        changed = spec.model_copy(update={"trainer": trainer})
        assert CommandTrainer(changed).check(changed, print).data["files"] == []


def test_a_folder_that_is_not_there_is_refused(study: Any):
    spec = study(keys='folder = "../nowhere"')
    with pytest.raises(InputError, match="nowhere"):
        CommandTrainer(spec).check(spec, print)


def test_a_changed_program_has_another_fingerprint(study: Any, tmp_path: Path):
    spec = study()
    before = CommandTrainer(spec).check(spec, print).data["fingerprint"]
    (tmp_path / "train.py").write_text("print(1)")
    assert CommandTrainer(spec).check(spec, print).data["fingerprint"] != before


def test_without_a_seed_the_study_says_that_no_verdict_is_possible(study: Any):
    spec = study()
    assert "{seed}" in str(CommandTrainer(spec).check(spec, print).notice)
    spec = study(more="--seed={seed}")
    assert CommandTrainer(spec).check(spec, print).notice is None


def test_a_program_that_reads_its_parameters_alone_has_their_seed(study: Any):
    spec = study()
    trainer = spec.trainer.model_copy(update={"command": ["python", "train.py"]})
    changed = spec.model_copy(update={"trainer": trainer})
    assert CommandTrainer(changed).check(changed, print).notice is None


def test_the_files_that_a_template_may_not_become_are_those_of_a_run():
    assert {*OUR_FILES, ".lock"} == set(OURS)


def test_placeholders_are_replaced_and_doubled_braces_stay():
    values = {"lr": 0.01, "wide": True}
    assert rendered("--lr={lr} {{lr}} {}", values) == "--lr=0.01 {lr} {}"
    assert rendered_arguments(["a", "--x={x}", "{wide}"], values) == ["a", "True"]


def test_a_template_is_written_as_data():
    text = '{"wide": {wide}, "lr": {lr}}\nmomentum: {momentum}\nlast'
    values = {"wide": True, "lr": 1e-5}
    assert rendered_file("a.json", text, values) == '{"wide": true, "lr": 1.0e-05}\nlast'


def test_a_template_of_python_is_written_as_python():
    text = "bias = {bias}\nlr = {lr}\nname = '{name}'\ndropout = {dropout}\n"
    read: dict[str, Any] = {}
    exec(rendered_file("config.py", text, {"bias": True, "lr": 1e-5, "name": "a"}), {}, read)
    assert read == {"bias": True, "lr": 1e-5, "name": "a"}


def test_a_run_has_the_arguments_of_its_arm(study: Any, tmp_path: Path):
    spec = study(more="--seed={seed} --out={run_dir} --n={trial} --on={device}/{threads}")
    trainer, run_dir = CommandTrainer(spec), tmp_path / "runs" / "7"
    facts = trainer.write(run_dir, {"optimizer": "adam", "lr": 0.01}, "cpu", 2)
    assert facts.max_steps is None
    program = json.loads((run_dir / "program.json").read_text())
    assert program["command"] == [
        *("python", "train.py", "--lr=0.01", "--optimizer=adam", "--seed=1337"),
        *(f"--out={run_dir.resolve()}", "--n=7", "--on=cpu/2"),
    ]
    params = json.loads(Path(program["environment"]["SQUEN_PARAMS"]).read_text())
    assert params == {"optimizer": "adam", "lr": 0.01, "seed": 1337}
    with pytest.raises(DataError, match="lr differs"):
        trainer.write(run_dir, {"optimizer": "adam", "lr": 0.02}, "cpu", 2)


def test_a_verdicts_run_has_its_own_seed(study: Any, tmp_path: Path):
    trainer = CommandTrainer(study(more="--seed={seed}"))
    trainer.write(tmp_path / "1", {"optimizer": "adam", "lr": 0.01, "seed": 2337}, "cpu", 1)
    program = json.loads((tmp_path / "1" / "program.json").read_text())
    assert "--seed=2337" in program["command"]


@pytest.mark.parametrize(
    ("lent", "more", "visible"),
    [
        ("", "", "1"),
        ("2,3", "", "3"),  # torch's second one
        ("2,3", "--device={device}", None),
    ],
)
def test_a_program_that_names_no_device_sees_its_own_alone(
    study: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lent: str,
    more: str,
    visible: str | None,
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", lent)
    CommandTrainer(study(more=more)).write(
        tmp_path / "1", {"optimizer": "adam", "lr": 0.01}, "cuda:1", 1
    )
    environment = json.loads((tmp_path / "1" / "program.json").read_text())["environment"]
    assert environment.get("CUDA_VISIBLE_DEVICES") == visible


def test_where_a_program_lies_changes_no_digest_but_its_arguments_do(study: Any):
    spec = study()
    trainer = spec.trainer.model_copy(update={"folder": "/elsewhere"})
    assert spec.model_copy(update={"trainer": trainer}).digest == spec.digest
    assert study(more="--fast").digest != spec.digest


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"step": 5, "val_loss": 1.5}', (5, 1.5)),
        (b'{"event": "evaluation", "step": 5, "value": 2}', (5, 2.0)),
        (b'{"step": 5.0, "value": 2}', (5, 2.0)),
        (b'{"step": 5.5, "value": 2}', None),
        (b'{"step": 5, "value": "low"}', None),
        (b'{"step": true, "value": 1}', None),
        (b'{"event": "start", "step": 5, "value": 2}', None),
        (b'{"value": 2}', None),
        (b"[5, 2]", None),
        (b'{"step": -1, "value": 2}', None),
        (b'{"step": Infinity, "value": 2}', None),
        (b'{"step": NaN, "value": 2}', None),
        (b'{"step": 1e30, "value": 2}', None),
        (b'{"step": 5, "value": 1' + b"0" * 400 + b"}", None),
        (b'{"step": 5, "val', None),
    ],
)
def test_a_line_of_json_is_a_report_if_it_has_a_step_and_a_value(
    line: bytes, found: tuple[int, float] | None
):
    event = parse_report(line)
    assert (None if event is None else reported(event, "val_loss")) == found


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "note", "text": "warmed up"}',
        b'{"event": "done"}',
        b'{"event": "stopped", "step": "last"}',
        b'{"event": "error", "step": 5, "message": "no such file"}',
        b'{"event": "error", "step": 5, "message": "out", "outcome": ["oom"]}',
        b'{"event": "error", "outcome": "diverged"}',
        b'{"event": "error", "outcome": "oom", "step": 5}',
    ],
)
def test_a_programs_line_that_only_shares_its_name_with_one_of_ours_is_passed_over(
    study: Any, line: bytes
):
    assert CommandTrainer(study()).parse(line) is None


def test_figures_beside_the_metric_that_are_none_are_not_measured(study: Any):
    odd = {"step": 5, "value": 2.0, "seconds": "long", "tokens": 1e300, "train_loss": True}
    evaluation = CommandTrainer(study()).evaluation(odd)
    assert math.isnan(evaluation.elapsed_seconds)
    assert math.isnan(evaluation.train_loss)
    assert evaluation.tokens == 2**53


@pytest.mark.parametrize(("unit", "read"), [("nats", None), ("points", 1200.0)])
def test_a_figure_too_high_for_nats_is_no_evaluation(study: Any, unit: str, read: float | None):
    line = b'{"step": 5, "value": 1200.0}'
    event = CommandTrainer(study(metric=f'unit = "{unit}"')).parse(line)
    assert (event and event["value"]) == read


def test_a_perplexity_of_hundreds_of_digits_is_shown_in_few_characters():
    assert PERPLEXITY.shown(math.exp(500)) == "1.40e+217"
    assert PERPLEXITY.shown(123456.7) == "123,457"


def test_nats_are_a_perplexity_and_other_units_stay_as_they_are(study: Any):
    event = {"event": "evaluation", "step": 5, "value": 2.0, "tokens": 64}
    in_nats = CommandTrainer(study()).evaluation(event)
    assert in_nats.perplexity == pytest.approx(math.exp(2))
    assert (in_nats.cross_entropy, in_nats.tokens, in_nats.step) == (2.0, 64, 5)
    assert math.isnan(in_nats.bits_per_byte)
    as_it_is = CommandTrainer(study(metric='unit = "bits"')).evaluation(event)
    assert as_it_is.perplexity == 2.0
    assert math.isnan(as_it_is.cross_entropy)


def test_trackers_log_what_a_program_measured_under_the_name_of_its_metric(study: Any):
    trainer = CommandTrainer(study(metric='direction = "maximize"'))
    evaluation = trainer.evaluation({"step": 5, "value": 0.25, "seconds": 2.0})
    metric = Metric("accuracy", maximize=True, is_perplexity=False)  # also a field of ours
    assert metrics_of(evaluation, metric) == {"accuracy": 0.25, "elapsed_seconds": 2.0}


def test_json_gives_a_programs_figure_under_the_name_of_its_metric(
    study: Any, capsys: pytest.CaptureFixture[str]
):
    metric = Metric("accuracy", maximize=True, is_perplexity=False)
    trainer = CommandTrainer(study(metric='direction = "maximize"'))
    display = JsonProgress()
    memory: Any = None
    display.on(Opened(memory, memory, metric))
    display.on(Evaluated(0, trainer.evaluation({"step": 5, "value": 0.25}), metric))
    shown = json.loads(capsys.readouterr().out)
    assert (shown["accuracy"], shown["step"]) == (0.25, 5)
    assert "perplexity" not in shown


@pytest.mark.parametrize(
    ("keys", "metric"),
    [
        ("", PERPLEXITY),
        ('unit = "nats"', PERPLEXITY),
        ('unit = "bits"', Metric("val_loss", is_perplexity=False)),
        ('direction = "maximize"', Metric("val_loss", maximize=True, is_perplexity=False)),
    ],
)
def test_the_metric_of_a_study_is_what_its_file_says(study: Any, keys: str, metric: Metric):
    assert metric_of(study(metric=keys).model_dump(mode="json")) == metric


def test_a_gaussian_process_learns_from_a_maximised_metric_as_it_is():
    metric = Metric("accuracy", maximize=True, is_perplexity=False)
    good, bad = (create_trial(value=value) for value in (0.9, 0.2))
    diverged = create_trial(
        state=TrialState.PRUNED,
        intermediate_values={1: 0.95},
        user_attrs={"arm": "all", "outcome": "diverged"},
    )
    seen = gp_observations([good, bad, diverged], metric)
    assert [trial.value for trial in seen] == [0.9, 0.2, 0.2]


def test_the_best_of_a_metric_that_is_maximised_is_its_highest():
    metric = Metric("accuracy", maximize=True, is_perplexity=False)
    trials = pd.DataFrame(
        {
            "number": [0, 1, 2],
            "arm": "all",
            "origin": "sampler",
            "outcome": ["complete", "complete", "pruned"],
            "perplexity": [0.5, 0.7, 0.9],
        }
    )
    assert list(ranked(trials, metric)["number"]) == [2, 1, 0]
    curve = tuning_curve_table(trials, ["all"], "random", None, metric)
    assert list(curve["perplexity"])[-1] == 0.7
    assert curve["low"].isna().all()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "studies" / "examples").glob("*.toml")), ids=lambda one: one.stem
)
def test_an_example_can_be_judged(path: Path):
    spec = read_study_file(str(path), "cpu")
    assert spec.trainer is not None
    assert len(spec.arms) == 2
    assert spec.trainer.passes_seed(spec.search)
