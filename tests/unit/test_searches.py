"""Verdicts over several searches: what they plan, what they say, without training."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from scipy import stats
from stored_studies import STUDY
from stored_verdicts import Judged, ends

from gpt.errors import InputError
from sweep.analysis.phases import CONFIRM, SCREENING, searches_of
from sweep.report.status_table import status_json, study_status
from sweep.report.verdict_section import make_section
from sweep.search.samplers import sobol_params
from sweep.storage.catalogue import catalogue
from sweep.storage.rdb import create_study
from sweep.study.validation import check_study_name
from sweep.verdict.confirm_plan import seeds_of
from sweep.verdict.record import add_searches, keep, make_record
from sweep.verdict.request import make_request
from sweep.verdict.searches.compare import judge_searches
from sweep.verdict.searches.plan import check_searches, search_spec
from sweep.verdict.searches.run import request_of
from sweep.verdict.statistics import search_error_rate

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from searches import CASES, as_one_search, confirmed, over_searches, searched

FACTORS = [1.05, 1.01, 1.08]  # of squentropy's winner to cross_entropy's, by search


class Searched(Judged):
    """Searches of two arms, with confirm runs of the winners of each."""

    def __init__(self, folder: Path, text: str = STUDY, factors: list[float] = FACTORS) -> None:
        super().__init__(folder, text)
        self.stored.study.set_user_attr("n_trials", 2)
        self.stored.study.set_user_attr("identity", "the sweep's")
        first = self.request
        self._confirm(factors[0])
        for number, factor in enumerate(factors[1:], start=2):
            self._further(number)
            self._confirm(factor)
        self.request, self.stored.study = first, first.study

    def _further(self, number: int, complete: list[str] | None = None) -> None:
        sweep = make_request(self.sweep)
        name = f"tiny.search-{number}"
        spec = search_spec(sweep.spec, number).model_copy(update={"name": name})
        self.stored.study = create_study(
            self.stored.storage, spec, dict(self.sweep.user_attrs["data"]), "cpu"
        )
        self.stored.study.set_user_attr("identity", f"of search {number}")
        self.stored.study.set_user_attr("of", "the sweep's")
        self.stored.study.set_user_attr("n_trials", 2)
        for arm in complete or spec.arms:
            self.stored.add(arm, [80.0])
        self.request = request_of(sweep, self.stored.storage, number)

    @property
    def sweep(self) -> optuna.Study:
        return optuna.load_study(study_name="tiny", storage=self.stored.storage)

    def _confirm(self, factor: float) -> None:
        self.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(factor)})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Three searches, for tests that store nothing."""
    return Searched(tmp_path_factory.mktemp("searches"))


# --- the plan --------------------------------------------------------------------------------


def test_searches_differ_in_their_luck_alone_and_share_no_seed(tmp_path: Path):
    spec = Judged(tmp_path).request.spec
    second = search_spec(spec, 2)
    assert set(second.differences(spec.model_dump(mode="json"))) == {"sampler.seed", "train.seed"}
    assert sobol_params(second, "squentropy", 0) != sobol_params(spec, "squentropy", 0)
    shared = sobol_params(second, "squentropy", 0)
    assert sobol_params(second, "cross_entropy", 0)["learning_rate"] == shared["learning_rate"]
    phases = [seeds_of(one, phase, 900) for one in (spec, second) for phase in (SCREENING, CONFIRM)]
    every = [spec.seed, second.seed, *(seed for seeds in phases for seed in seeds)]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("count", [0, 51])
def test_a_number_of_searches_out_of_range_is_refused(tmp_path: Path, count: int):
    with pytest.raises(InputError, match=f"--searches must be from 1 to 50, but got {count}"):
        check_searches(Judged(tmp_path).request, count)


def test_a_search_is_repeated_only_once_it_is_finished(tmp_path: Path):
    judged = Judged(tmp_path)
    judged.stored.study.set_user_attr("n_trials", 2)
    assert check_searches(judged.request, 3) == 3
    assert check_searches(judged.request, None) == 1
    judged.stored.study.set_user_attr("n_trials", 3)
    with pytest.raises(InputError, match=r"must be finished before .* 2 of 3 trials are"):
        check_searches(judged.request, 2)


def test_a_study_file_may_say_how_many_searches_and_stays_the_same_study(tmp_path: Path):
    usual = Judged(tmp_path).request.spec
    (tmp_path / "more").mkdir()
    more = Judged(tmp_path / "more", f"{STUDY}\n[verdict]\nsearches = 5\n").request
    more.study.set_user_attr("n_trials", 2)
    assert check_searches(more, None) == 5
    assert more.spec.digest == usual.digest


@pytest.mark.parametrize("name", ["a.search-2", "a.Search-12", "a.confirm"])
def test_names_of_searches_are_ours(name: str):
    with pytest.raises(ValueError, match="search-N"):
        check_study_name(name)
    check_study_name("my.search")


# --- the answer ------------------------------------------------------------------------------


def test_the_interval_is_a_t_interval_of_the_searches_means(found: Searched):
    verdict = judge_searches(found.request, found.stored.storage, 3)
    (one,) = verdict.comparisons
    nats = np.log(FACTORS)
    assert one.difference.per_seed == pytest.approx(nats)
    for rate, ends_ in ((0.04, (one.ratio_low, one.ratio_high)), (0.05, one.only_analysis)):
        half = stats.t.ppf(1 - rate / 2, 2) * nats.std(ddof=1) / math.sqrt(3)
        assert np.log(ends_) == pytest.approx([nats.mean() - half, nats.mean() + half])
    own = np.std([0.001, 0.0, -0.001, 0.002, -0.002], ddof=1)
    assert one.between_seeds == pytest.approx(own)
    assert one.between_searches == pytest.approx(math.sqrt(nats.var(ddof=1) - own**2 / 5))
    assert (one.answer, one.analysed_searches) == ("inconclusive", [3])
    settings = make_record(found.request, found.stored.storage)["comparisons"][0]
    assert settings["settings_answer"] == "worse"  # of the first search's, and rightly so


def test_searches_that_agree_settle_it(tmp_path: Path):
    found = Searched(tmp_path, factors=[1.05, 1.051, 1.049])
    (one,) = judge_searches(found.request, found.stored.storage, 3).comparisons
    assert one.answer == "worse"


def test_searches_that_lost_pairs_in_both_arms_are_not_equivalent(tmp_path: Path):
    found = Searched(tmp_path, factors=[1.0])
    found._further(2)
    found.run(CONFIRM, {"cross_entropy": ends(1), "squentropy": ends(1)}, diverged=2)
    request = make_request(found.sweep)
    (one,) = judge_searches(request, found.stored.storage, 2).comparisons
    assert (one.answer, one.lost_pairs) == ("inconclusive", 1)
    record = make_record(request, found.stored.storage)
    (sentence,) = add_searches(record, request, found.stored.storage, 2)["headline"]
    assert sentence.startswith("1 of 10 pairs of runs")


def test_a_search_without_a_complete_trial_of_an_arm_is_refused(tmp_path: Path):
    found = Searched(tmp_path, factors=[1.0])
    with pytest.raises(InputError, match=r"tiny\.search-2.* complete trial of squentropy"):
        found._further(2, ["cross_entropy"])


def test_a_record_over_searches_answers_of_arms_and_then_of_settings(found: Searched):
    storage, request = found.stored.storage, found.request
    plain = make_record(request, storage)
    record = add_searches(plain, request, storage, 3)
    (sentence,) = record["headline"]
    assert sentence.startswith("Tuned with 1 trial each, it stays open whether squentropy")
    assert "96% interval over searches and seeds" in sentence
    assert record["answer"].startswith(sentence)
    assert plain["headline"][0] in record["answer"]
    assert "the luck of the search is not in" in plain["answer"]
    assert "the luck of the search is not in" not in record["answer"]
    assert record["search_luck"] == {"searches": 3, "in_the_intervals": True}
    assert [row["search"] for row in record["ledger"]] == [1, 1, 2, 2, 3, 3]
    section = make_section(record)
    assert section is not None
    winners, *_ = section.tables
    assert [row[1] for row in winners.rows[::2]] == ["tiny", "tiny.search-2", "tiny.search-3"]
    assert [row[-1] for row in winners.rows[1::2]] == ["+5.00%", "+1.00%", "+8.00%"]
    ledger = next(table for table in section.tables if "budget" in table.caption)
    assert (ledger.columns[0], ledger.rows[-1][:2]) == ("search", ["3", "squentropy"])


def test_more_searches_are_another_analysis_and_the_same_number_is_not(tmp_path: Path):
    found = Searched(tmp_path)
    storage, request = found.stored.storage, found.request
    for count, analysis in ((2, 1), (2, 1), (3, 2)):
        record = add_searches(make_record(request, storage), request, storage, count)
        keep(request.study, record)
        (one,) = record["searches"]["comparisons"]
        assert one["difference"]["error_rate"] == search_error_rate(analysis)
    assert one["analysed_searches"] == [2, 3]
    assert make_record(request, storage)["comparisons"][0]["question"] == 1  # a ledger of its own


def kept_over_searches(found: Searched, seeds: int) -> dict[str, Any]:
    """Answer over three searches and keep it as the command does; return the comparison."""
    request, storage = make_request(found.sweep, seeds=seeds), found.stored.storage
    record = add_searches(make_record(request, storage), request, storage, 3)
    keep(found.sweep, record)
    (one,) = record["searches"]["comparisons"]
    return dict(one)


def test_other_data_of_as_many_searches_are_another_analysis(tmp_path: Path):
    found = Searched(tmp_path)
    first = kept_over_searches(found, seeds=5)
    assert kept_over_searches(found, seeds=5) == first
    assert kept_over_searches(found, seeds=4)["analysis"] == 2  # other seeds
    found.sweep.set_user_attr("n_trials", 3)  # other trials
    third = kept_over_searches(found, seeds=4)
    assert (third["analysis"], third["analysed_searches"]) == (3, [3, 3, 3])
    found.stored.study = found.sweep
    found.stored.add("squentropy", [70.0])  # another winner
    found.request = make_request(found.sweep, top=1)
    found.run(CONFIRM, {"cross_entropy": ends(1, [0] * 5), "squentropy": ends(1.05)})
    (fourth,) = judge_searches(found.request, found.stored.storage, 3).comparisons
    assert fourth.analysis == 4


def test_an_analysis_over_searches_of_an_earlier_version_counts_as_another(tmp_path: Path):
    found = Searched(tmp_path)
    old = {"arms": ["cross_entropy", "squentropy"], "searches": 3, "budget": 2}
    found.sweep.set_user_attr("interim_analyses", [old])
    assert kept_over_searches(found, seeds=5)["analysis"] == 2


def test_status_counts_further_searches_and_studies_lists_none(found: Searched):
    assert [one.study_name for one in searches_of(found.sweep)] == [
        "tiny.search-2",
        "tiny.search-3",
    ]
    assert '"study": "tiny.search-2"' in status_json(found.sweep)
    lines = [str(part) for part in study_status(found.sweep, 120)]
    assert "further searches: tiny.search-2 2/2, tiny.search-3 2/2" in lines
    listed = [entry.name for entry in catalogue(str(found.stored.path))]
    assert "tiny" in listed
    assert not [name for name in listed if re.search(r"search-\d$", name)]


def test_a_further_search_is_no_sweep(found: Searched):
    second = searches_of(found.sweep)[0]
    with pytest.raises(InputError, match="search-2 phase of the verdict on 'tiny'; pass --study"):
        make_request(second)
    assert {run.state for run in second.trials} == {TrialState.COMPLETE}


# --- simulated -------------------------------------------------------------------------------


def test_an_interval_over_searches_holds_the_truth_and_one_over_seeds_does_not():
    world, rng = CASES["equal arms"], np.random.default_rng(1)
    first, second = searched(world, 300 * 5, rng)
    pairs = confirmed(world, (second - first).reshape(300, 5), rng)
    both = (over_searches(pairs), as_one_search(pairs))
    held = [np.mean(np.abs(mean) <= half) for mean, half in both]
    assert 0.91 <= held[0] <= 0.985
    assert held[1] < 0.8
