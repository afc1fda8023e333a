"""Samplers and pruners of Optuna by name, each within an arm."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial
from stored_studies import STUDY, StoredStudy

from gpt.errors import InputError
from sweep.search.pruners import should_prune
from sweep.search.samplers import next_proposal
from sweep.storage.reader import load_study
from sweep.study.external.optuna_kinds import IMPOSSIBLE
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file


def read(folder: Path, more: str) -> StudySpec:
    path = folder / "named.toml"
    path.write_text(STUDY + more)
    return read_study_file(str(path), "cpu")


@pytest.mark.parametrize(
    "more",
    [
        '[sampler]\nkind = "cmaes"\n',
        '[sampler]\nkind = "optuna.samplers.CmaEsSampler"\noptions = { popsize = 4 }\n',
        '[sampler]\nkind = "tpe"\noptions = { n_ei_candidates = 48 }\n',
        '[pruner]\nkind = "hyperband"\noptions = { reduction_factor = 2 }\n',
        '[pruner]\nkind = "wilcoxon"\n',
        '[pruner]\nkind = "patient"\noptions = { patience = 3 }\n',
        '[pruner]\nkind = "optuna.pruners.PercentilePruner"\noptions = { percentile = 40.0 }\n',
    ],
)
def test_a_study_may_name_samplers_and_pruners_of_optuna(tmp_path: Path, more: str):
    given = tomllib.loads(more)
    read_back = read(tmp_path, more).model_dump()
    for table, keys in given.items():
        assert {key: read_back[table][key] for key in keys} == keys


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[sampler]\nkind = "bayes"\n', "sampler.kind: must be one of tpe, .*'bayes'"),
        ('[sampler]\nkind = "optuna.samplers.Nope"\n', "sampler.kind: .*'optuna.samplers.Nope'"),
        ('[sampler]\nkind = "optuna.pruners.NopPruner"\n', "sampler.kind"),
        ('[sampler]\nkind = "cmaes"\noptions = { pop = 4 }\n', "sampler.options: .*'pop'"),
        ("[sampler]\noptions = { seed = 4 }\n", "sampler.options.seed: .*table's own seed"),
        ('[sampler]\nkind = "qmc"\noptions = { scramble = true }\n', "sampler.options: .*qmc"),
        ('[pruner]\nkind = "hyper"\n', "pruner.kind: .*'hyper'; the nearest is 'hyperband'"),
        ('[pruner]\nkind = "threshold"\n', "pruner.options: .*lower"),
        ("[pruner]\noptions = { x = 1 }\n", "pruner.options: .*median"),
        ('[pruner]\nkind = "wilcoxon"\noptions = { p_threshold = 7.0 }\n', "pruner.options"),
        *(
            (f'[{table}]\nkind = "optuna.{table}s.{name}"\n', f"{table}.kind: {name} cannot work")
            for name in IMPOSSIBLE
            for table in ["sampler" if name.endswith("Sampler") else "pruner"]
        ),
    ],
)
def test_what_cannot_work_within_an_arm_is_refused_in_one_line(
    tmp_path: Path, more: str, message: str
):
    with pytest.raises(InputError, match=message):
        read(tmp_path, more)


def test_optunas_own_sentence_does_not_end_ours_twice(tmp_path: Path):
    with pytest.raises(InputError, match=r"[^.]\.$"):
        read(tmp_path, '[pruner]\nkind = "threshold"\n')


def test_cmaes_needs_two_ranges_in_each_arm(tmp_path: Path):
    path = tmp_path / "one.toml"
    one = STUDY.replace("[search.n_layer]\nlow = 1\nhigh = 6\n", "")
    path.write_text(one + '[sampler]\nkind = "cmaes"\n')
    with pytest.raises(InputError, match=r"sampler\.kind: .*cross_entropy has learning_rate"):
        read_study_file(str(path), "cpu")


def test_options_that_are_not_given_leave_the_digest_as_it_was(tmp_path: Path):
    assert "options" not in read(tmp_path, "").meaning["sampler"]
    with_options = read(tmp_path, "[sampler]\noptions = { n_ei_candidates = 48 }\n")
    stored = read(tmp_path, "").model_dump(mode="json")
    assert with_options.differences(stored) == ["sampler.options"]


# --- within an arm -------------------------------------------------------------------------------


def test_cmaes_goes_from_generation_to_generation_over_a_resume(tmp_path: Path):
    text = STUDY + '[sampler]\nkind = "cmaes"\nstartup_trials = 1\noptions = { popsize = 4 }\n'
    stored = StoredStudy(tmp_path, text)
    states = []
    for nth in range(8):
        proposal = next_proposal(stored.study, stored.spec, "cross_entropy")
        again = next_proposal(load_study(stored.storage, "tiny"), stored.spec, "cross_entropy")
        assert again == proposal
        states.append(proposal.system_attrs.get("cma:generation"))
        _store(stored, proposal.params, proposal.origin, proposal.system_attrs, 80.0 - nth)
    assert states == [None, 0, 0, 0, 0, 1, 1, 1]
    other = next_proposal(stored.study, stored.spec, "squentropy")
    assert other.origin == "sobol"  # an arm has a sampler of its own


def _store(
    stored: StoredStudy,
    params: dict[str, Any],
    origin: str,
    system_attrs: dict[str, Any],
    perplexity: float,
) -> None:
    stored.study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            value=perplexity,
            params=params,
            distributions=stored.spec.distributions(params),
            user_attrs={"arm": params["loss"], "origin": origin, "outcome": "complete"},
            system_attrs=system_attrs,
        )
    )


STEPS = "[train]\nmax_steps = 800\neval_interval = 100\n"
PRUNERS = {
    "percentile": "",
    "patient": "options = { patience = 1 }\n",
    "wilcoxon": "options = { p_threshold = 0.2 }\n",
    "threshold": "options = { upper = 95.0 }\n",
}


@pytest.mark.parametrize("kind", PRUNERS)
def test_a_pruner_of_optuna_stops_a_hopeless_trial_and_sees_its_arm_alone(
    tmp_path: Path, kind: str
):
    text = f'{STUDY}{STEPS}[pruner]\nkind = "{kind}"\nstartup_trials = 2\n{PRUNERS[kind]}'
    stored = StoredStudy(tmp_path, text)
    for nth in range(3):
        stored.add("cross_entropy", [60.0 - step - nth for step in range(8)])
        stored.add("squentropy", [94.0 - step - nth for step in range(8)])
    slow_arm = stored.add("squentropy", [90.0 - step for step in range(4)], "running")
    hopeless = stored.add("cross_entropy", [200.0, 201.0, 202.0, 203.0], "running")
    assert should_prune(stored.study, stored.spec, hopeless)
    assert not should_prune(stored.study, stored.spec, slow_arm)


@pytest.mark.parametrize("kind", ["successive_halving", "hyperband"])
def test_halving_leaves_its_rungs_with_the_trial(tmp_path: Path, kind: str):
    options = "options = { max_resource = 400 }\n" if kind == "hyperband" else ""  # one bracket
    text = f'{STUDY}{STEPS}[pruner]\nkind = "{kind}"\nstartup_trials = 1\n{options}'
    stored = StoredStudy(tmp_path, text)
    stored.add("cross_entropy", [60.0 - step for step in range(8)])
    running = stored.add("cross_entropy", [50.0 - step for step in range(4)], "running")
    assert not should_prune(stored.study, stored.spec, running)
    rungs = load_study(stored.storage, "tiny").trials[running].system_attrs
    assert rungs["completed_rung_0"] == 47.0
    other_arm = stored.add("squentropy", [90.0] * 4, "running")
    hopeless = stored.add("cross_entropy", [90.0] * 4, "running")
    assert should_prune(stored.study, stored.spec, hopeless)
    assert not should_prune(stored.study, stored.spec, other_arm)
