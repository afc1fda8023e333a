"""What a study may grow by, and its earlier trials afterwards."""

import os
import uuid
from pathlib import Path

import pytest
from stored_studies import DATA, PROGRAM, STUDY, StoredStudy

from gpt.errors import InputError, StorageError
from sweep.analysis.results import evaluations_table, trials_table
from sweep.search.samplers import equal_budget, next_arm, next_proposal
from sweep.storage.growth.extension import extended_keys
from sweep.storage.growth.takeover import extend_study, fork_study, settle_runs, stage_runs
from sweep.storage.location import runs_folder
from sweep.storage.rdb import attrs_of_spec, check_study
from sweep.storage.reader import load_study
from sweep.storage.schema import study_attrs, trial_attrs
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file
from sweep.verdict.budget import ledger_table

BASELINE = '[[baselines]]\nname = "usual"\nparams = { learning_rate = 1e-3, n_layer = 2 }\n'


def study_file(folder: Path, *changes: tuple[str, str], more: str = "") -> StudySpec:
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "grown.toml"
    path.write_text(text + more)
    return read_study_file(str(path), "cpu")


CHOICES = '["cross_entropy", "squentropy"]'
THREE = '["z_loss", "cross_entropy", "squentropy"]'


@pytest.mark.parametrize(
    ("changes", "more", "keys"),
    [
        ([], "", []),
        ([(CHOICES, THREE)], "", ["search.loss.choices"]),
        ([("high = 1e-2", "high = 3e-2")], "", ["search.learning_rate.high"]),
        ([("low = 1e-4", "low = 1e-5")], "", ["search.learning_rate.low"]),
        ([("high = 6", "high = 8")], "", ["search.n_layer.high"]),
        ([], BASELINE, ["baselines.usual"]),
        (
            [(CHOICES, THREE)],
            '[search.z_weight]\nwhen = { loss = "z_loss" }\n',
            ["search.loss.choices", "search.z_weight"],
        ),
        (
            [
                (CHOICES, '["cross_entropy", "squentropy", "logit_l2"]'),
                ('when = { loss = "squentropy" }', 'when = { loss = ["squentropy", "logit_l2"] }'),
            ],
            "",
            ["search.square_weight.when.loss", "search.loss.choices"],
        ),
    ],
)
def test_a_study_may_grow_by(
    tmp_path: Path, changes: list[tuple[str, str]], more: str, keys: list[str]
):
    before = study_file(tmp_path)
    assert extended_keys(before, study_file(tmp_path, *changes, more=more)) == keys


@pytest.mark.parametrize(
    ("changes", "more", "key"),
    [
        ([("high = 1e-2", "high = 5e-3")], "", "search.learning_rate.high"),
        ([("low = 1e-4", "low = 2e-4")], "", "search.learning_rate.low"),
        ([("log = true", "log = false")], "", "search.learning_rate.log"),
        ([("high = 6", "high = 7\nstep = 2")], "", "search.n_layer.step"),
        ([("low = 1\nhigh = 6", "choices = [1, 2, 3, 4, 5, 6, 7]")], "", "search.n_layer"),
        ([], "[search.dropout]\nlow = 0.0\nhigh = 0.2\n", "search.dropout"),
        ([], "[train]\nmax_steps = 700\n", "train.max_steps"),
        ([], '[sampler]\nkind = "random"\n', "sampler.kind"),
        ([], "[verdict]\nmargin = 0.02\n", "verdict.margin"),
        ([], "[data]\nmax_stories = 20\n", "data.max_stories"),
    ],
)
def test_a_recipe_or_a_range_that_earlier_trials_would_not_fit_is_refused_by_its_key(
    tmp_path: Path, changes: list[tuple[str, str]], more: str, key: str
):
    before = study_file(tmp_path)
    with pytest.raises(InputError, match=f"{key} |{key}:"):
        extended_keys(before, study_file(tmp_path, *changes, more=more))


def test_a_choice_or_a_baseline_that_is_gone_is_refused(tmp_path: Path):
    with_three = study_file(tmp_path, (CHOICES, THREE), more=BASELINE)
    with pytest.raises(InputError, match=r"search\.loss\.choices .*'z_loss'"):
        extended_keys(with_three, study_file(tmp_path, more=BASELINE))
    with pytest.raises(InputError, match=r"baselines\.usual "):
        extended_keys(with_three, study_file(tmp_path, (CHOICES, THREE)))


# --- in place ------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    """Two arms with three trials each; one is running and one was pruned."""
    stored = StoredStudy(tmp_path)
    for nth in range(3):
        outcome = ("complete", "pruned", "complete")[nth]
        stored.add("cross_entropy", [90.0, 80.0 - nth], outcome, learning_rate=2e-3 + nth / 1e4)
        outcome = ("complete", "complete", "running")[nth]
        stored.add("squentropy", [95.0, 85.0 - nth], outcome, square_weight=0.5)
    return stored


def grown(stored: StoredStudy, folder: Path, name: str = "tiny") -> StudySpec:
    renamed = ('name = "tiny"', f'name = "{name}"')
    return study_file(folder, renamed, (CHOICES, THREE), ("high = 1e-2", "high = 3e-2"))


def extend(stored: StoredStudy, spec: StudySpec) -> None:
    keys = check_study(stored.study, spec, DATA, "cpu", extend=True)
    attributes = attrs_of_spec(stored.study, spec, DATA)
    extend_study(stored.storage, stored.study, spec, attributes, keys)
    stored.study = load_study(stored.storage, "tiny")


def test_without_extend_a_grown_file_is_refused_with_the_way_on(
    stored: StoredStudy, tmp_path: Path
):
    with pytest.raises(InputError, match=r"search\.loss\.choices.*--extend"):
        check_study(stored.study, grown(stored, tmp_path), DATA, "cpu")


def test_every_trial_keeps_its_number_and_all_its_figures(stored: StoredStudy, tmp_path: Path):
    before, evaluated = (
        trials_table(stored.study),
        evaluations_table(stored.storage, "tiny"),
    )
    extend(stored, grown(stored, tmp_path))
    after = trials_table(stored.study)
    assert after.drop(columns="seconds").equals(before.drop(columns="seconds"))
    assert evaluations_table(stored.storage, "tiny").equals(evaluated)
    check_study(stored.study, grown(stored, tmp_path), DATA, "cpu")  # it is that study now


def test_the_new_arm_catches_up_and_samplers_learn_from_all_trials(
    stored: StoredStudy, tmp_path: Path
):
    spec = grown(stored, tmp_path)
    extend(stored, spec)
    stored.spec = spec
    assert equal_budget(stored.study, spec) == 9
    for _ in range(3):
        assert next_arm(stored.study, spec) == "z_loss"
        params = next_proposal(stored.study, spec, "z_loss").params
        stored.add("z_loss", [70.0], **{k: v for k, v in params.items() if k != "loss"})
    seasoned = spec.model_copy(
        update={"sampler": spec.sampler.model_copy(update={"startup_trials": 1})}
    )
    for arm in spec.arms:
        params = next_proposal(stored.study, seasoned, arm).params
        assert params["loss"] == arm
    assert {t.distributions["loss"] for t in stored.study.trials} == {
        spec.search["loss"].distribution()
    }
    assert equal_budget(stored.study, spec) == 9


def test_a_new_baseline_counts_for_the_budget_of_every_arm(stored: StoredStudy, tmp_path: Path):
    spec = study_file(tmp_path, more=BASELINE)
    extend(stored, spec)
    assert equal_budget(stored.study, spec) == 2 * (3 + 1)
    assert next_proposal(stored.study, spec, "squentropy").origin == "baseline:usual"


def test_ledger_counts_what_was_taken_over_by_arm(stored: StoredStudy, tmp_path: Path):
    spec = grown(stored, tmp_path)
    extend(stored, spec)
    stored.spec = spec
    stored.add("z_loss", [70.0])
    ledger = ledger_table(stored.study, spec, stored.storage).set_index("arm")
    assert dict(ledger["taken_over"]) == {"z_loss": 0, "cross_entropy": 3, "squentropy": 3}
    assert dict(ledger["asked"]) == {"z_loss": 1, "cross_entropy": 3, "squentropy": 3}


def test_a_trial_that_was_enqueued_stays_one(stored: StoredStudy, tmp_path: Path):
    stored.study.enqueue_trial({"loss": "squentropy", "learning_rate": 2e-3})
    extend(stored, grown(stored, tmp_path))
    waiting = stored.study.trials[-1]
    assert waiting.system_attrs["fixed_params"] == {"loss": "squentropy", "learning_rate": 2e-3}
    assert trial_attrs(waiting).taken_over is None  # nothing was drawn for it yet


# --- as a new study ------------------------------------------------------------------------------


def fork(stored: StoredStudy, folder: Path, identity: str) -> StudySpec:
    spec = grown(stored, folder, name="new")
    keys = check_study(stored.study, spec, DATA, "cpu", extend=True)
    own = {"identity": identity, "runs": "new"}
    attributes = attrs_of_spec(stored.study, spec, DATA) | own
    fork_study(stored.storage, stored.study, spec, attributes, keys)
    return spec


def test_a_new_study_has_the_old_ones_trials_and_the_old_one_stays(
    stored: StoredStudy, tmp_path: Path
):
    before = trials_table(stored.study)
    fork(stored, tmp_path, uuid.uuid4().hex)
    new = load_study(stored.storage, "new")
    assert trials_table(load_study(stored.storage, "tiny")).equals(before)
    assert check_study(stored.study, stored.spec, DATA, "cpu") == []
    columns = ["number", "arm", "origin", "last_step", "learning_rate", "square_weight"]
    assert trials_table(new)[columns].equals(before[columns])
    assert evaluations_table(stored.storage, "new").equals(
        evaluations_table(stored.storage, "tiny")
    )
    assert [trial_attrs(trial).taken_over for trial in new.trials][:2] == ["tiny:0", "tiny:1"]
    states = {"tiny": "RUNNING", "new": "WAITING"}  # nobody trains the new one's
    for name, state in states.items():
        assert load_study(stored.storage, name).trials[5].state.name == state


def test_run_directories_are_in_place_after_a_kill_before_or_after_the_study_is_stored(
    stored: StoredStudy, tmp_path: Path
):
    (runs_folder(stored.study) / "0" / "events.jsonl").write_text("{}\n")
    folder, identity = tmp_path / "runs" / "new", uuid.uuid4().hex
    stage_runs(stored.study, folder, identity)
    settle_runs(None, folder)  # killed before
    assert not list(folder.iterdir())
    stage_runs(stored.study, folder, identity)
    fork(stored, tmp_path, identity)
    (folder / ".taken-over" / "0").rename(folder / "0")  # killed while they were moved
    settle_runs(load_study(stored.storage, "new"), folder)
    assert sorted(path.name for path in folder.iterdir()) == [".study", "0", "1", "2", "3", "4"]
    assert (folder / "0" / "events.jsonl").read_text() == "{}\n"
    assert study_attrs(load_study(stored.storage, "new")).identity == identity


def staged(stored: StoredStudy, folder: Path) -> Path:
    """The staged copy of the run directory of trial 0."""
    stage_runs(stored.study, folder, "new")
    return folder / ".taken-over" / "0"


def test_only_checkpoints_of_the_gpt_are_shared_by_two_studies(tmp_path: Path):
    for name, text, shared in (("gpt", STUDY, True), ("program", PROGRAM, False)):
        (tmp_path / name).mkdir()
        stored = StoredStudy(tmp_path / name, text)
        stored.add(stored.spec.arms[0], [0.5])
        weights = runs_folder(stored.study) / "0" / "model.safetensors"
        weights.write_bytes(b"step 10")
        copy = staged(stored, tmp_path / name / "new") / "model.safetensors"
        assert copy.read_bytes() == b"step 10"
        assert copy.samefile(weights) == shared


def test_links_of_a_run_directory_stay_links_and_those_within_lead_to_the_copy(
    stored: StoredStudy, tmp_path: Path
):
    run = (runs_folder(stored.study) / "0").resolve()
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "best").symlink_to(run / "step-20")
    (run / "latest").symlink_to("step-10")
    (run / "data").symlink_to(tmp_path / "data")
    copy = staged(stored, tmp_path / "new")
    links = {path.name: str(path.readlink()) for path in copy.rglob("*") if path.is_symlink()}
    assert links == {"latest": "step-10", "best": "../step-20", "data": str(tmp_path / "data")}


def test_a_fifo_in_a_run_directory_is_not_taken_over(stored: StoredStudy, tmp_path: Path):
    os.mkfifo(runs_folder(stored.study) / "0" / "control")
    assert not (staged(stored, tmp_path / "new") / "control").exists()


def test_a_file_that_cannot_be_copied_is_named_in_one_line(
    stored: StoredStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (runs_folder(stored.study) / "0" / "model.safetensors").write_bytes(b"step 10")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(
        StorageError, match=r"0/\S+ must be copied to .*: .*No space left on device"
    ):
        staged(stored, tmp_path / "new")
