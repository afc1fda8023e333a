"""Every shipped study on both devices: it loads, says what it asks, and can be trained."""

import math
from pathlib import Path

import optuna
import pytest

from gpt.config import TrainConfig
from sweep.search.samplers import sobol_params
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file, read_tables, shipped_files
from sweep.trainers.gpt import GPTTrainer

STUDIES = list(shipped_files())
both_devices = pytest.mark.parametrize("device", ["cpu", "cuda"])
every_study = pytest.mark.parametrize("name", STUDIES)


def runs(spec: StudySpec, device: str, only: str | None = None) -> list[TrainConfig]:
    """The baselines and 32 points of each arm, or of one."""
    return [
        spec.train_config(params, spec.data, device, threads=1)
        for arm in ([only] if only else spec.arms)
        for params in [
            *(spec.baseline_params(baseline, arm) for baseline in spec.baselines),
            *(sobol_params(spec, arm, index) for index in range(32)),
        ]
    ]


@every_study
@both_devices
def test_study_has_the_name_of_its_file_and_says_what_it_asks(name: str, device: str) -> None:
    spec = read_study_file(name, device)

    assert spec.name == name
    assert spec.description.endswith(".")
    assert spec.question.endswith("?")


@every_study
def test_list_of_studies_shows_name_description_and_file(name: str) -> None:
    path = shipped_files()[name]

    assert read_tables(path)["description"] == read_study_file(name, "cpu").description
    assert path == Path(__file__).parents[2] / "studies" / f"{name}.toml"


@every_study
@both_devices
def test_every_trial_that_a_study_may_ask_for_is_a_run(name: str, device: str) -> None:
    for config in runs(read_study_file(name, device), device):
        assert config.warmup_steps < config.max_steps


@every_study
@both_devices
def test_no_study_asks_for_a_dtype_that_a_device_may_not_have(name: str, device: str) -> None:
    spec = read_study_file(name, device)

    assert spec.leaves_dtype_open or spec.base("dtype") == "float32"


def test_tinystories_goes_on_where_its_file_still_said_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    spec = read_study_file("tinystories", "cuda")
    stored = spec.with_dtype("bfloat16").model_dump(mode="json")
    trainer = GPTTrainer(spec.data)

    assert trainer.settle(spec, stored, ["cuda:0"]).differences(stored) == []
    assert trainer.settle(spec, None, ["cuda:0"]).base("dtype") == "float16"


@every_study
@both_devices
def test_evaluations_are_on_one_grid_that_ends_at_the_last_step(name: str, device: str) -> None:
    configs = runs(read_study_file(name, device), device)
    grids = {(run.max_steps, run.eval_interval) for run in configs}

    ((max_steps, eval_interval),) = grids
    assert max_steps % eval_interval == 0
    assert max_steps // eval_interval >= 6  # enough to prune on: three after half of the steps


@every_study
@both_devices
def test_arms_are_compared_with_the_same_baselines(name: str, device: str) -> None:
    spec = read_study_file(name, device)

    assert spec.arms in (["cross_entropy", "squentropy"], ["adamw", "muon"])
    for baseline in spec.baselines:
        first, second = (spec.baseline_params(baseline, arm) for arm in spec.arms)
        shared = first.keys() & second.keys() - {spec.compare}
        assert {name: first[name] for name in shared} == {name: second[name] for name in shared}


@both_devices
def test_tinystories_searches_what_the_project_is_about(device: str) -> None:
    spec = read_study_file("tinystories", device)

    real = optuna.distributions.FloatDistribution
    highest = {"cpu": 3e-2, "cuda": 1e-2}[device]
    assert spec.search["learning_rate"].distribution() == real(6e-5, highest, log=True)
    assert spec.search["dropout"].distribution() == real(0.0, 0.3)
    assert set(spec.search) == {"learning_rate", "dropout", "n_layer", "loss"}


@both_devices
def test_tinystories_first_weights_grow_with_the_root_of_what_gpt2_is_wider(device: str) -> None:
    spec = read_study_file("tinystories", device)

    for_width = 0.02 * math.sqrt(768 / spec.base("n_embd"))
    assert spec.base("init_std") == pytest.approx(for_width, rel=0.25)


@both_devices
def test_optimizers_differ_by_their_optimiser_and_the_rates_that_it_has(device: str) -> None:
    spec = read_study_file("optimizers", device)

    by_arm = {
        arm: {run.optimizer: set(run.optimizer_options) for run in runs(spec, device, arm)}
        for arm in spec.arms
    }
    assert by_arm == {"adamw": {"adamw": set()}, "muon": {"muon": {"matrix_lr_ratio"}}}
    assert set(spec.search) == {"optimizer", "learning_rate", "matrix_lr_ratio"}


@both_devices
def test_few_stories_sees_each_a_dozen_times_and_searches_what_tinystories_does(
    device: str,
) -> None:
    spec = read_study_file("few_stories", device)

    assert set(spec.search) == set(read_study_file("tinystories", device).search)
    for config in runs(spec, device):
        tokens_a_story = config.max_steps * config.tokens_per_step / config.data.max_stories
        assert 10 < tokens_a_story / 240 < 15  # a story has 240 tokens of a vocabulary of 1,024
        assert config.optimizer == "muon"


@pytest.mark.parametrize("name", ["tinystories", "original"])
@both_devices
def test_baselines_are_nanogpts_defaults_and_the_original_study(name: str, device: str) -> None:
    spec = read_study_file(name, device)

    nanogpt, original = (baseline.params for baseline in spec.baselines)
    deepest = max(spec.search["n_layer"].values())
    assert (nanogpt["learning_rate"], nanogpt["dropout"]) == (6e-4, 0.0)
    assert nanogpt["n_layer"] == deepest * 12 // 16
    assert original == {"learning_rate": 6e-5, "dropout": 0.1, "n_layer": deepest}


def test_original_has_the_size_of_the_original() -> None:
    spec = read_study_file("original", "cuda")

    configs = runs(spec, "cuda")
    assert {(c.n_embd, c.n_head, c.vocab_size) for c in configs} == {(768, 12, 50257)}
    assert max(config.n_layer for config in configs) == 16
    assert {6e-6, 6e-4, 6e-2} < {config.learning_rate for config in configs}


def test_smoke_needs_no_network_and_few_tokens() -> None:
    spec = read_study_file("smoke", "cpu")

    assert spec.data.source == "built-in"
    assert all(config.max_steps * config.tokens_per_step < 50_000 for config in runs(spec, "cpu"))
