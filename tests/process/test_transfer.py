"""`squen-sweep transfer`: a tiny sweep, its best configurations at larger sizes, the answer."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from tiny_runs import write_stories
from tiny_studies import run_tiny, tiny_study

from gpt.config import TrainConfig, read_config
from gpt.errors import InputError
from sweep.callbacks.plain import QuietProgress
from sweep.cli import main
from sweep.export.transfer import (
    Transfer,
    answer_in_words,
    assess,
    judge_transfer,
    keep_check,
    plan_transfer,
    run_transfer,
)
from sweep.export.trial import export
from sweep.storage.rdb import open_storage
from sweep.storage.reader import load_study
from sweep.trainers.long_run.prediction import find_prediction
from sweep.trainers.long_run.scale import read_scale, scaled
from sweep.trainers.memory import training_flops
from sweep.tuner.limits import Limits
from sweep.tuner.options import RunOptions

SCALE = "n_embd=32,steps=24"


class Swept:
    """A folder in which the tiny study has run, and a check of one of its arms."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tiny_study(folder, write_stories(folder / "text"), lowest=1e-4, highest=1e-1)
        from sweep.study.toml_file import read_study_file

        run_tiny(read_study_file(str(folder / "tiny.toml"), "cpu"), folder, trials=8)
        self.storage: RDBStorage = open_storage(str(folder / "sweep.db"))

    @property
    def study(self) -> optuna.Study:
        return load_study(self.storage, "tiny")

    @property
    def options(self) -> RunOptions:
        database = str(self.folder / "sweep.db")
        return RunOptions(storage=database, runs=self.folder / "runs", device="cpu", workers=2)

    def plan(self) -> Transfer:
        return plan_transfer(self.study, read_scale(SCALE), "cross_entropy", top=2)

    def runs(self) -> dict[str, list[optuna.trial.FrozenTrial]]:
        names = [n for n in optuna.get_all_study_names(self.storage) if ".transfer-" in n]
        return {name: load_study(self.storage, name).get_trials() for name in names}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        made = Swept(folder)
        stopped = replace(made.options, limits=Limits(sweep=0.0))
        assert run_transfer(made.plan(), made.storage, stopped, QuietProgress).interrupted
        assert not run_transfer(made.plan(), made.storage, made.options, QuietProgress).interrupted
        yield made


def test_the_best_and_two_spread_configurations_train_at_every_size(swept: Swept):
    plan = swept.plan()
    assert len(plan.trials) == 4
    assert plan.trials[0].value == min(trial.value for trial in plan.trials)
    counts = sorted(len(trials) for trials in swept.runs().values())
    assert counts == [4, 4, 8]  # the sweep's own size with two seeds


def test_sizes_are_equal_ratios_on_the_way(swept: Swept):
    own, first, second = swept.plan().sizes
    assert own.scale == {}
    assert [dict(size.scale) for size in (first, second)] == [
        {"n_embd": 16, "steps": 14},  # widths divide into heads of 8
        {"n_embd": 24, "steps": 17},
    ]
    assert own.compute < first.compute < second.compute < 1


def test_each_run_is_the_trials_configuration_scaled(swept: Swept):
    plan, runs = swept.plan(), swept.folder / "runs"
    for size in plan.sizes:
        folder = runs / f"tiny.{size.phase}"
        trials = load_study(swept.storage, folder.name).get_trials()
        for trial in trials:
            found = read_config(folder / str(trial.number) / "config.json")
            expected = size.configs[trial.user_attrs["of_trial"]]
            ignored = {"seed": 0, "eval_interval": 1, "threads": 1, "data": found.data}
            assert found.model_copy(update=ignored) == expected.model_copy(update=ignored)
            assert found.seed == trial.params["seed"] >= 3000


def test_a_check_that_is_complete_trains_nothing_again(swept: Swept):
    before = {name: len(trials) for name, trials in swept.runs().items()}
    run_transfer(swept.plan(), swept.storage, swept.options, QuietProgress)
    assert {name: len(trials) for name, trials in swept.runs().items()} == before


def test_train_finds_the_prediction_of_its_own_long_run_and_of_no_other(swept: Swept):
    plan = swept.plan()
    check = judge_transfer(plan, swept.storage)
    keep_check(plan, check, swept.folder / "runs")
    config, origin = export(swept.study, arm="cross_entropy")
    assert origin.trial == plan.trials[0].number
    found = find_prediction(swept.folder / "runs", scaled(config, read_scale(SCALE)))
    assert found == check.predictions[origin.trial]
    assert found.low < found.nats < found.high
    other = scaled(config, read_scale("n_embd=32,steps=25"))
    assert find_prediction(swept.folder / "runs", other) is None


def test_the_command_prints_the_table_the_answer_and_the_next_commands(
    swept: Swept, capsys, monkeypatch
):
    places = ["--storage", str(swept.folder / "sweep.db"), "--runs", str(swept.folder / "runs")]
    command = ["squen-sweep", "transfer", "--study", "tiny", "--arm", "cross_entropy", "--top", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--scale", SCALE, *places])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "rank correlation" in out
    assert "predicted for trial" in out
    assert "ranking" in out.splitlines()[-6]
    assert f"squen-sweep export --study tiny {' '.join(places[:2])} --trial " in out
    assert f"squen-sweep train best.toml --scale {SCALE}" in out
    monkeypatch.setattr(sys, "argv", [*command, "--scale", SCALE, *places, "--json"])
    with pytest.raises(SystemExit):
        main()
    assert len(json.loads(capsys.readouterr().out)["sizes"]) == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"top": 0}, "--top must be at least 1"),
        ({"sizes": 3}, "--sizes must be 1 or 2"),
        ({"scale": {"steps": 6}}, "must lead to a longer run"),
        ({"scale": {"n_embd": 31}}, "multiple of the size of a head, 8"),
        ({"arm": "brier_ce"}, "arm must be one of cross_entropy, squentropy"),
    ],
)
def test_a_check_that_cannot_be_is_refused_in_a_line(swept: Swept, asked, message):
    before = optuna.get_all_study_names(swept.storage)
    with pytest.raises(InputError, match=message):
        plan_transfer(swept.study, **({"scale": {"n_embd": 32}} | asked))
    assert optuna.get_all_study_names(swept.storage) == before


# --- the answer, of losses by hand -----------------------------------------------------------


def losses_of(plan: Transfer, *sizes: list[float]) -> list[dict[int, list[float]]]:
    """Losses by size, of the trials in the order of the ranking; 0.01 apart between seeds."""
    numbers = [trial.number for trial in plan.trials]
    seeds = [[0.0, 0.01], [0.0], [0.0]]
    return [
        {n: [loss + more for more in extra] for n, loss in zip(numbers, of, strict=True)}
        for of, extra in zip(sizes, seeds, strict=True)
    ]


SAME = ([3.0, 3.1, 3.2, 3.4], [2.8, 2.9, 3.0, 3.2], [2.6, 2.7, 2.8, 3.0])


def test_a_ranking_that_stays_is_trusted(swept: Swept):
    check = assess(plan := swept.plan(), losses_of(plan, *SAME))
    assert check.correlations == pytest.approx([1, 1])
    assert check.noise == pytest.approx(0.01 / math.sqrt(2))
    assert check.doubts == []
    assert all(prediction.trusted for prediction in check.predictions.values())
    assert answer_in_words(plan, check).startswith("the ranking holds: rank correlation 1.00, 1.00")


def test_a_ranking_that_turns_is_not_trusted(swept: Swept):
    turned = list(reversed(SAME[2]))
    check = assess(plan := swept.plan(), losses_of(plan, SAME[0], SAME[1], turned))
    assert check.correlations[1] == pytest.approx(-1)
    words = answer_in_words(plan, check)
    assert words.startswith("do not trust this ranking")
    assert "rank correlation with the sweep's size is -1.00" in words
    assert f"trial {plan.trials[-1].number} is better than trial {plan.trials[0].number}" in words
    assert not any(prediction.trusted for prediction in check.predictions.values())


def test_a_lead_within_the_noise_does_not_unseat_the_best(swept: Swept):
    close = [2.6, 2.59, 2.8, 3.0]
    check = assess(plan := swept.plan(), losses_of(plan, SAME[0], SAME[1], close))
    assert check.doubts == []


def test_a_best_configuration_that_diverges_when_it_grows_is_said_and_not_predicted(swept: Swept):
    lost = [math.inf, 2.7, 2.8, 3.0]
    check = assess(plan := swept.plan(), losses_of(plan, SAME[0], SAME[1], lost))
    best = plan.trials[0].number
    assert best not in check.predictions
    assert f"trial {best} did not end" in answer_in_words(plan, check)


def test_a_long_run_far_beyond_the_checked_sizes_is_not_trusted(swept: Swept):
    plan = plan_transfer(swept.study, {"steps": 12 * 20_000}, "cross_entropy", top=2)
    check = assess(plan, losses_of(plan, *SAME))
    assert "times the compute of the largest checked size" in answer_in_words(plan, check)


def test_the_cost_of_a_check_is_said_in_shares_of_the_long_run(swept: Swept):
    plan = swept.plan()
    configs: list[TrainConfig] = [
        config for size in plan.sizes for _ in size.seeds for config in size.configs.values()
    ]
    longest = training_flops(plan.final[plan.trials[0].number])
    assert plan.relative_cost == pytest.approx(sum(map(training_flops, configs)) / longest)
