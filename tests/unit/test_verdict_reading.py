"""A verdict's request, its plan, and what it says of the search beside its answer."""

import math
import re
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from stored_studies import STUDY, StoredStudy

from gpt.config import GPTConfig
from gpt.errors import InputError
from gpt.model import GPT
from sweep.cli import main
from sweep.search.pruners import is_shadow, should_prune
from sweep.study.toml_file import DEVICES, read_study_file
from sweep.verdict.budget import baseline_table, ledger_table, shadow_table
from sweep.verdict.confirm_plan import CONFIRM, SCREENING, phase_spec, plan, planned_runs, seeds_of
from sweep.verdict.request import make_request


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    """Two arms of complete trials, one pruned and one diverged."""
    stored = StoredStudy(tmp_path)
    for arm, end in (("cross_entropy", 50.0), ("squentropy", 60.0)):
        for extra in (9.0, 3.0, 6.0):
            stored.add(arm, [200.0, 100.0, end + extra])
    stored.add("squentropy", [250.0], outcome="pruned")
    stored.add("squentropy", [180.0, 5e6], outcome="diverged")
    return stored


# --- the request -----------------------------------------------------------------------------


def test_a_request_takes_its_numbers_from_the_study_file(stored: StoredStudy):
    request = make_request(stored.study)
    assert (request.arms, request.top, request.seeds) == (["cross_entropy", "squentropy"], 3, 5)
    assert [trial.number for trial in request.top_trials("cross_entropy")] == [1, 2, 0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"arms": ["squentropy"]}, "at least two arms, but --arms names only 'squentropy'"),
        ({"arms": ["squentropy", "squentropy"]}, "at least two arms"),
        ({"arms": ["cross_entropy", "mse"]}, "--arms must be among .*, but got 'mse'"),
        ({"seeds": 1}, "--seeds must be from 2 to 900.*, but got 1"),
        ({"seeds": 901}, "--seeds must be from 2 to 900.*, but got 901"),
        ({"top": 0}, "--top must be at least 1, but got 0"),
    ],
)
def test_an_impossible_request_is_refused_in_one_line(stored: StoredStudy, asked, message):
    with pytest.raises(InputError, match=message) as refused:
        make_request(stored.study, **asked)
    assert "\n" not in str(refused.value)


def test_an_arm_without_a_complete_trial_is_refused(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [60.0])
    stored.add("squentropy", [70.0], outcome="pruned")
    with pytest.raises(InputError, match="must have a complete trial of squentropy"):
        make_request(stored.study)


def test_a_study_that_compares_nothing_has_no_verdict(tmp_path: Path):
    stored = StoredStudy(tmp_path, STUDY.replace('compare = "loss"', ""))
    stored.add("all", [60.0], loss="cross_entropy")
    with pytest.raises(InputError, match='compare = "loss"'):
        make_request(stored.study)


def command(stored: StoredStudy, monkeypatch: pytest.MonkeyPatch, name: str, *options: str) -> int:
    """Exit code of a command on this study."""
    words = ["squen-sweep", name, "--study", "tiny", "--storage", str(stored.path), *options]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "squentropy"], "a verdict must compare at least two arms"),
        (["--arms", "cross_entropy, mse"], "--arms must be among .*, but got 'mse'"),
        (["--arms", ""], "--arms must be among .*, but got ''"),
        (["--seeds", "1"], "--seeds must be from 2 .* shows no spread, but got 1"),
        (["--top", "0"], "--top must be at least 1, but got 0"),
        (["--workers", "none"], "--workers must be auto or .*, but got 'none'"),
        (["--timeout", "soon"], "--timeout must be a time like .*, but got 'soon'"),
        (["--hang-timeout", "0"], "--hang-timeout must be a time like .*, but got '0'"),
        ([], "must be judged on its own text"),  # which is gone
    ],
)
def test_verdict_refuses_in_one_line_and_writes_nothing(
    stored: StoredStudy, monkeypatch, capsys, options, message
):
    before = stored.study.user_attrs, sorted(stored.path.parent.iterdir())
    assert command(stored, monkeypatch, "verdict", *options) == 2
    assert re.fullmatch(rf"error: .*{message}.*\n", capsys.readouterr().err)
    assert (stored.study.user_attrs, sorted(stored.path.parent.iterdir())) == before
    assert optuna.get_all_study_names(stored.storage) == ["tiny"]


def test_a_study_of_one_arm_is_told_that_it_has_none_to_compare(
    tmp_path: Path, monkeypatch, capsys
):
    stored = StoredStudy(tmp_path, STUDY.replace('compare = "loss"', ""))
    stored.add("all", [60.0], loss="cross_entropy")
    assert command(stored, monkeypatch, "verdict") == 2
    assert capsys.readouterr().err == (
        "error: a verdict must compare at least two arms, but study 'tiny' has only 'all'; a study "
        'has arms where its file says compare, as in compare = "loss".\n'
    )


def test_a_phase_of_a_verdict_is_no_sweep(stored: StoredStudy, monkeypatch, capsys):
    phase = optuna.create_study(storage=stored.storage, study_name="tiny.confirm")
    phase.set_user_attr("of", "the sweep's identity")
    phase.set_user_attr("spec_digest", stored.spec.digest)
    phase.set_user_attr("spec", phase_spec(stored.spec, CONFIRM).model_dump(mode="json"))
    assert command(stored, monkeypatch, "verdict", "--study", "tiny.confirm") == 2
    assert "the confirm phase of the verdict on another study" in capsys.readouterr().err
    stored.study.set_user_attr("identity", "the sweep's identity")
    assert command(stored, monkeypatch, "verdict", "--study", "tiny.confirm") == 2
    assert "confirm phase of the verdict on 'tiny'; pass --study tiny." in capsys.readouterr().err


# --- the phases ------------------------------------------------------------------------------


def test_phases_have_seeds_of_their_own(stored: StoredStudy):
    spec = stored.spec
    screening, confirm = (seeds_of(spec, phase, 900) for phase in (SCREENING, CONFIRM))
    assert not {1337, *screening} & set(confirm)
    assert seeds_of(spec, CONFIRM, 5) == confirm[:5]  # more seeds keep the first ones


def test_a_plan_adds_only_what_is_missing_and_what_failed(stored: StoredStudy):
    request = make_request(stored.study)
    spec = phase_spec(request.spec, CONFIRM)
    study = optuna.create_study()
    trials = [request.top_trials(arm)[0] for arm in request.arms]
    assert plan(study, spec, planned_runs(trials, [3337, 3338])) == 4
    assert plan(study, spec, planned_runs(trials, [3337, 3338])) == 4
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}
    assert [trial.user_attrs["of_trial"] for trial in study.trials] == [1, 4, 1, 4]
    assert [trial.params["seed"] for trial in study.trials] == [3337, 3337, 3338, 3338]
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.FAIL)
    assert plan(study, spec, planned_runs(trials, [3337, 3338])) == 5


def test_only_the_confirm_phase_passes_over_the_stories_of_the_sweep(stored: StoredStudy):
    screening, confirm = (phase_spec(stored.spec, phase) for phase in (SCREENING, CONFIRM))
    assert screening.base("eval_skip_tokens") == 0
    assert screening.eval_tokens == stored.spec.eval_tokens
    assert confirm.base("eval_skip_tokens") == stored.spec.eval_tokens
    assert (screening.pruner.kind, confirm.pruner.kind) == ("none", "none")


# --- the budget ledger -----------------------------------------------------------------------


def test_ledger_counts_what_each_arm_was_given(stored: StoredStudy):
    first, second = ledger_table(stored.study, stored.spec, stored.storage).to_dict("records")
    assert (first["arm"], first["asked"], first["complete"], first["pruned"]) == (
        "cross_entropy",
        3,
        3,
        0,
    )
    assert (second["asked"], second["pruned"], second["diverged"]) == (5, 1, 1)
    assert (first["tokens"], second["tokens"]) == (3 * 3000, 3 * 3000 + 1000 + 2000)
    assert (first["device_seconds"], second["device_seconds"]) == (3 * 6.0, 3 * 6.0 + 2 + 4)
    assert (first["tuned_parameters"], second["tuned_parameters"]) == (2, 3)  # and square_weight


# --- the pruner ------------------------------------------------------------------------------


def with_shadows(tmp_path: Path, fraction: float) -> StoredStudy:
    pruner = f"[pruner]\nstartup_trials = 2\nshadow_fraction = {fraction}\n[train]\nmax_steps = 400"
    stored = StoredStudy(tmp_path, f"{STUDY}{pruner}")
    for end in (50.0, 60.0):
        stored.add("cross_entropy", [150.0, 100.0, 80.0, end])
    return stored


def test_a_share_of_trials_are_shadows_and_always_the_same(tmp_path: Path):
    spec = with_shadows(tmp_path, 0.1).spec
    drawn = [is_shadow(spec, number) for number in range(2000)]
    assert drawn == [is_shadow(spec, number) for number in range(2000)]
    assert 0.07 < np.mean(drawn) < 0.13


def test_a_shadow_is_not_stopped_again_and_does_not_soften_the_pruner(tmp_path: Path):
    stored = with_shadows(tmp_path, 0.5)
    hopeless = stored.add("cross_entropy", [150.0, 140.0], outcome="running")
    assert should_prune(stored.study, stored.spec, hopeless)
    for _ in range(3):  # shadows that ended far behind
        stored.add("cross_entropy", [190.0, 180.0, 170.0, 160.0], shadow=200)
    again = stored.add("cross_entropy", [150.0, 140.0], outcome="running")
    assert should_prune(stored.study, stored.spec, again)
    stored.storage.set_trial_user_attr(stored.study.trials[again]._trial_id, "shadow", 200)
    assert not should_prune(stored.study, stored.spec, again)


def test_shadow_table_says_how_often_the_pruner_was_wrong(tmp_path: Path):
    stored = with_shadows(tmp_path, 0.5)
    winner = stored.add("cross_entropy", [190.0, 130.0, 70.0, 40.0], shadow=200)
    loser = stored.add("cross_entropy", [190.0, 180.0, 170.0, 160.0], shadow=200)
    assert winner != loser
    first, second = shadow_table(stored.study, ["cross_entropy", "squentropy"], 1).to_dict(
        "records"
    )
    assert (first["shadows"], first["among_best"], first["rate"]) == (2, 1, 0.5)
    assert first["low"] == pytest.approx(0.0126, abs=1e-3)  # Clopper and Pearson, 1 of 2
    assert (second["shadows"], second["low"], second["high"]) == (0, 0.0, 1.0)
    assert math.isnan(second["rate"])


# --- baselines and background ----------------------------------------------------------------


def test_baselines_are_ranked_among_the_complete_trials_of_their_arm(stored: StoredStudy):
    number = stored.add("cross_entropy", [300.0, 200.0, 57.0], origin="baseline:original")
    stored.add("squentropy", [300.0], outcome="pruned", origin="baseline:original")
    (row,) = baseline_table(stored.study, ["cross_entropy", "squentropy"]).to_dict("records")
    assert (row["arm"], row["baseline"], row["trial"]) == ("cross_entropy", "original", number)
    assert (row["rank"], row["complete"], row["perplexity"]) == (3, 4, 57.0)


@pytest.mark.parametrize("name", ["tinystories", "original"])
def test_background_is_words_that_change_no_study(name: str):
    spec = read_study_file(name, "cpu")
    facts = spec.background["The original study"]
    assert spec.model_copy(update={"background": {}}).digest == spec.digest
    assert "exp(1.826) is 6.2: nothing explains the 3.8" in facts["Cross-entropy"]
    assert "exp(1.899) = 6.7" in facts["Squentropy"]
    assert (math.exp(1.826), math.exp(1.899)) == (
        pytest.approx(6.2, abs=0.05),
        pytest.approx(6.7, abs=0.05),
    )
    assert "do not compare" in facts["Scale"]


def test_background_of_a_budget_is_shown_on_its_device():
    titles = {device: set(read_study_file("tinystories", device).background) for device in DEVICES}
    assert titles["cpu"] - titles["cuda"] == {"What the CPU budget answers"}


# --- pairs of runs ---------------------------------------------------------------------------


def first_weights(n_layer: int) -> torch.Tensor:
    torch.manual_seed(1)
    shape = {"vocab_size": 300, "n_layer": n_layer, "n_head": 2, "n_embd": 16, "block_size": 8}
    return GPT(GPTConfig(**shape)).transformer.wte.weight.detach()


def test_one_seed_has_the_same_first_weights_only_where_the_models_have_one_shape():
    assert torch.equal(first_weights(2), first_weights(2))
    assert not torch.equal(first_weights(2), first_weights(3))
