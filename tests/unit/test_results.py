import math
import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from stored_studies import STUDY, StoredStudy

from gpt.errors import InputError
from sweep.analysis import results

NO_ARMS = STUDY.replace('compare = "loss"', "").partition("[search.square_weight]")[0]


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    return StoredStudy(tmp_path)


def test_trials_table_holds_one_row_per_trial_with_its_values(stored):
    stored.add("cross_entropy", [80.0, 60.0], learning_rate=2e-3, n_layer=3, origin="sobol")
    row = results.trials_table(stored.study).iloc[0]
    assert row["number"] == 0
    assert row["state"] == "complete"
    assert row["outcome"] == "complete"
    assert row["arm"] == "cross_entropy"
    assert row["loss"] == "cross_entropy"
    assert row["origin"] == "sobol"
    assert row["perplexity"] == 60.0
    assert row["cross_entropy"] == math.log(60.0)
    assert row["learning_rate"] == 2e-3
    assert row["n_layer"] == 3
    assert row["n_params"] == 1000
    assert row["last_step"] == 200
    assert row["seconds"] >= 0


def test_trials_table_has_the_same_dtypes_whether_values_are_missing_or_not(stored):
    stored.add("cross_entropy", [60.0])
    stored.add("squentropy", [60.0], square_weight=0.5)
    one, both = results.trials_table(stored.study).head(1), results.trials_table(stored.study)
    assert list(one.dtypes) == list(both.dtypes)
    names = ("number", "n_layer", "square_weight", "last_step", "perplexity")
    assert [str(both.dtypes[name]) for name in names] == [
        "int64", "Int64", "float64", "Int64", "float64"
    ]  # fmt: skip
    assert both["square_weight"].isna().tolist() == [True, False]


def test_trials_table_of_an_empty_study_has_its_columns_and_no_row(stored):
    table = results.trials_table(stored.study)
    assert table.empty
    assert {"number", "outcome", "arm", "perplexity", "reason"} <= set(table.columns)
    assert results.outcome_counts(table, stored.spec.arms).shape == (2, 0)


def test_a_pruned_and_a_running_trial_have_their_last_measured_perplexity(stored):
    stored.add("cross_entropy", [90.0, 70.0], outcome="pruned")
    stored.add("cross_entropy", [95.0], outcome="running")
    table = results.trials_table(stored.study)
    assert table["perplexity"].tolist() == [70.0, 95.0]
    assert table["outcome"].tolist() == ["pruned", "running"]
    assert table["reason"].isna().tolist() == [False, True]
    assert table["seconds"].isna().tolist() == [False, True]


def test_a_diverged_trial_has_no_perplexity_though_optuna_was_told_a_cap(stored):
    stored.add("cross_entropy", [90.0, 300.0], outcome="diverged")
    row = results.trials_table(stored.study).iloc[0]
    assert stored.study.trials[0].value == 300.0
    assert math.isnan(row["perplexity"])
    assert row["outcome"] == "diverged"
    assert row["state"] == "pruned"


def test_a_study_that_is_not_ours_is_one_arm_with_outcomes_from_its_states():
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=3.0))
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    table = results.trials_table(study)
    assert table["outcome"].tolist() == ["complete", "failed"]
    assert table["arm"].tolist() == ["all", "all"]
    assert results.arms(study) == ["all"]
    assert results.best_trial(study).number == 0


def test_evaluations_table_holds_every_evaluation_of_this_study_in_order(stored):
    stored.add("cross_entropy", [80.0, 60.0])
    stored.add("squentropy", [70.0])
    table = results.evaluations_table(stored.storage, "tiny")
    assert table[["trial_number", "step", "tokens", "perplexity"]].values.tolist() == [
        [0, 100, 1000, 80.0],
        [0, 200, 2000, 60.0],
        [1, 100, 1000, 70.0],
    ]
    assert results.evaluations_table(stored.storage, "another").empty


def test_evaluations_table_has_number_columns_even_without_rows(stored):
    dtypes = results.evaluations_table(stored.storage, "tiny").dtypes
    assert str(dtypes["step"]) == "int64"
    assert str(dtypes["perplexity"]) == "float64"
    assert "study_name" not in dtypes


def test_last_evaluations_are_those_of_the_highest_step(stored):
    stored.add("cross_entropy", [80.0, 60.0])
    stored.add("squentropy", [70.0])
    evaluations = results.evaluations_table(stored.storage, "tiny").sample(frac=1, random_state=0)
    last = results.last_evaluations(evaluations)
    assert last["perplexity"].to_dict() == {0: 60.0, 1: 70.0}


def test_arms_are_in_the_order_of_the_study_file(stored, tmp_path):
    assert results.arms(stored.study) == ["cross_entropy", "squentropy"]
    assert results.compared_parameter(stored.study) == "loss"
    (tmp_path / "other").mkdir()
    other = StoredStudy(tmp_path / "other", NO_ARMS)
    other.add("all", [60.0])
    assert results.arms(other.study) == ["all"]
    assert results.compared_parameter(other.study) is None
    assert results.best_by_arm(other.study) == {"all": (0, 60.0)}


def test_search_space_says_from_what_each_parameter_was_drawn(stored):
    assert results.search_space(stored.study) == {}
    stored.add("squentropy", [60.0], square_weight=0.5)
    space = results.search_space(stored.study)
    assert space["learning_rate"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert space["n_layer"] == IntDistribution(1, 6)
    assert list(space) == ["learning_rate", "n_layer", "square_weight", "loss"]  # as in the file


def test_best_trial_is_the_lowest_complete_one_and_the_first_of_equals(stored):
    stored.add("cross_entropy", [70.0])
    stored.add("cross_entropy", [50.0], outcome="pruned")
    stored.add("squentropy", [60.0])
    stored.add("cross_entropy", [60.0])
    assert results.best_trial(stored.study).number == 2
    assert results.best_trial(stored.study, "cross_entropy").number == 3
    assert results.best_by_arm(stored.study) == {
        "cross_entropy": (3, 60.0),
        "squentropy": (2, 60.0),
    }


def test_best_trial_is_never_one_whose_perplexity_is_not_finite(stored):
    stored.add("cross_entropy", [math.inf])
    stored.add("cross_entropy", [70.0])
    assert results.best_trial(stored.study).number == 1


def test_best_trial_without_a_complete_trial_says_where_the_reasons_are(stored):
    stored.add("cross_entropy", [70.0], outcome="pruned")
    stored.add("squentropy", [60.0])
    with pytest.raises(InputError, match="'tiny' must have a complete trial of cross_entropy") as e:
        results.best_trial(stored.study, "cross_entropy")
    assert "squen-sweep status --study tiny" in str(e.value)  # `run` would need its file
    assert "\n" not in str(e.value)
    assert results.best_by_arm(stored.study) == {"squentropy": (1, 60.0)}


def test_best_trial_refuses_an_arm_that_the_study_has_not(stored):
    with pytest.raises(InputError, match="one of cross_entropy, squentropy in study 'tiny', but"):
        results.best_trial(stored.study, "mse")


def test_outcome_counts_name_every_arm_and_only_outcomes_that_occurred(stored):
    stored.add("cross_entropy", [90.0], outcome="pruned")
    stored.add("cross_entropy", [80.0])
    stored.add("cross_entropy", [80.0])
    counts = results.outcome_counts(results.trials_table(stored.study), stored.spec.arms)
    assert counts.index.tolist() == ["cross_entropy", "squentropy"]
    assert counts.columns.tolist() == ["complete", "pruned"]
    assert counts.values.tolist() == [[2, 1], [0, 0]]


def test_the_example_of_the_readme_runs_on_a_stored_study(tmp_path, monkeypatch, capsys):
    """As it stands there: the storage at runs/sweep.db, the study tinystories."""
    (tmp_path / "runs").mkdir()
    stored = StoredStudy(tmp_path / "runs", STUDY.replace('"tiny"', '"tinystories"'))
    best = stored.add("squentropy", [80.0, 50.0, 47.25], learning_rate=2e-3)
    stored.add("cross_entropy", [90.0, 60.0])
    readme = (Path(__file__).parents[2] / "sweep/analysis/README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["best"]["number"].tolist() == [best, best + 1]
    assert names["curve"]["perplexity"].tolist() == [80.0, 50.0, 47.25]
    assert "47.25" in capsys.readouterr().out


def test_a_study_is_opened_in_one_call_or_refused_in_one_line(stored, tmp_path):
    stored.add("cross_entropy", [60.0])
    found = results.open(stored.path, "tiny")
    assert (len(found.trials), len(found.evaluations), found.arms) == (1, 1, stored.spec.arms)
    for path, name in ((stored.path, "other"), (tmp_path / "none.db", "tiny")):
        with pytest.raises(InputError) as refused:
            results.open(path, name)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "none.db").exists()


def test_trials_of_another_metric_have_no_cross_entropy(tmp_path):
    stored = StoredStudy(tmp_path, 'metric = "link_perplexity"' + STUDY)
    stored.add("cross_entropy", [60.0])
    assert results.trials_table(stored.study)["cross_entropy"].isna().all()
