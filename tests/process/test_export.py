import json
import random
import shutil
import types
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial
from stored_studies import STUDY, StoredStudy

from gpt.config import DataConfig, TrainConfig
from gpt.data.dataset import prepare
from gpt.errors import InputError
from sweep.export.configuration import EXPORTERS, export_format, is_export, to_json, to_toml
from sweep.export.nanogpt import to_nanogpt
from sweep.export.trial import Origin, export
from sweep.storage.schema import set_trial_attrs
from sweep.trainers.final_training import read_config_file

ORIGIN = Origin("stories", 7, "squentropy", "complete", 53.123456789012345, 600)

# train.py of karpathy/nanoGPT: the names that its configurator knows, with their defaults' types.
NANOGPT_TYPES = {
    **dict.fromkeys(["out_dir", "init_from", "dataset", "backend", "device", "dtype"], str),
    **dict.fromkeys(["eval_only", "always_save_checkpoint", "bias", "decay_lr", "compile"], bool),
    **dict.fromkeys(["eval_interval", "log_interval", "eval_iters", "batch_size"], int),
    **dict.fromkeys(["gradient_accumulation_steps", "block_size", "n_layer", "n_head"], int),
    **dict.fromkeys(["n_embd", "max_iters", "warmup_iters", "lr_decay_iters"], int),
    **dict.fromkeys(["dropout", "learning_rate", "weight_decay", "beta1", "beta2"], float),
    **dict.fromkeys(["grad_clip", "min_lr"], float),
}


def config(**changes) -> TrainConfig:
    values = {
        "vocab_size": 300,
        "block_size": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_embd": 16,
        "learning_rate": 0.1 + 0.2,  # 0.30000000000000004: a short decimal would be another run
        "max_steps": 600,
        "data": DataConfig(source="stories.txt", bpe_vocab_size=300, fingerprint="0123abcd"),
    }
    return TrainConfig.model_validate(values | changes)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """Trials 0 to 5: two of each loss complete, one pruned, one running; no run directories."""
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [90.0, 60.0], n_layer=1)
    stored.add("squentropy", [90.0, 70.0], square_weight=0.3)
    stored.add("cross_entropy", [90.0, 55.5], learning_rate=0.001 + 0.0002)
    stored.add("squentropy", [90.0, 65.25], square_weight=0.7)
    stored.add("squentropy", [50.0], "pruned", n_layer=5, square_weight=0.1)
    stored.add("cross_entropy", [40.0], "running")
    shutil.rmtree(tmp_path / "tiny")
    return stored.study


def test_export_takes_the_best_complete_trial(study):
    exported, origin = export(study)
    assert (exported.loss, exported.learning_rate) == ("cross_entropy", 0.001 + 0.0002)
    assert origin == Origin("tiny", 2, "cross_entropy", "complete", 55.5, 200)


def test_export_takes_the_best_complete_trial_of_an_arm(study):
    exported, origin = export(study, "squentropy")
    assert (exported.loss, exported.loss_options) == ("squentropy", {"square_weight": 0.7})
    assert origin.trial == 3


def test_export_takes_a_trial_by_its_number_and_says_that_it_was_pruned(study):
    exported, origin = export(study, number=4)
    assert exported.n_layer == 5
    assert "trial 4 (squentropy, pruned)" in origin.line()


def test_export_pins_the_text_that_the_study_has(study):
    exported, _ = export(study)
    assert exported.data.fingerprint == "0123456789abcdef"
    assert exported.data.bpe_vocab_size == 300
    assert exported.vocab_size == 300


def test_export_trains_as_the_trial_went_on_after_it_ran_out_of_memory(tmp_path):
    stored = StoredStudy(tmp_path, STUDY + "[train]\nbatch_size = 32")
    whole = stored.add("cross_entropy", [60.0])
    halved = stored.add("cross_entropy", [50.0], "running")
    trial = optuna.trial.Trial(stored.study, stored.study.trials[halved]._trial_id)
    set_trial_attrs(trial, micro_batch=16, threads=3)
    stored.finish(halved, "complete", 50.0)
    first, second = (export(stored.study, number=number)[0] for number in (whole, halved))
    assert (first.batch_size, first.gradient_accumulation_steps, first.threads) == (32, 1, 1)
    assert (second.batch_size, second.gradient_accumulation_steps, second.threads) == (16, 2, 3)
    assert first.tokens_per_step == second.tokens_per_step


def test_export_refuses_an_arm_that_is_not_compared(study):
    with pytest.raises(InputError, match=r"one of cross_entropy, squentropy .* but got 'mse'"):
        export(study, "mse")


@pytest.mark.parametrize("number", [-1, 6])
def test_export_refuses_a_number_that_no_trial_has(study, number):
    with pytest.raises(InputError, match=f"one of the 6 trials .* but got {number}"):
        export(study, number=number)


def test_export_refuses_a_trial_that_still_runs(study):
    with pytest.raises(InputError, match=r"trial 5 .* must be finished, but it is running"):
        export(study, number=5)


def test_export_refuses_a_study_without_a_complete_trial():
    empty = optuna.create_study(study_name="empty")
    with pytest.raises(InputError, match="must have a complete trial"):
        export(empty)


def test_export_refuses_a_trial_that_squen_sweep_did_not_train():
    foreign = optuna.create_study(study_name="foreign")
    foreign.add_trial(create_trial(value=1.0))
    for number in (None, 0):
        with pytest.raises(InputError, match=r"trial 0 .* must have a run directory"):
            export(foreign, number=number)


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize(
    "exported",
    [
        config(),
        config(loss="squentropy", loss_options={"square_weight": 0.1}, warmup_steps=0),
        config(data=DataConfig(source="hub", tokenizer="gpt2", max_stories=1000)),
        config(optimizer="muon", optimizer_options={"momentum": 0.9}, schedule="wsd", qk_norm=True),
        config(learning_rate=6e-05, dtype="bfloat16", compile=True, device="cuda:1"),
    ],
)
def test_exported_file_reads_back_as_the_very_same_configuration(exported, form, tmp_path):
    path = tmp_path / f"best.{form}"
    path.write_text(EXPORTERS[form](exported, ORIGIN, "best"))
    assert read_config_file(path) == exported


def test_toml_says_where_it_comes_from_and_how_to_train_it():
    header = to_toml(config(), ORIGIN, "best.toml").splitlines()[:3]
    assert all(line.startswith("# ") for line in header)
    assert "Study stories, trial 7 (squentropy, complete)" in header[0]
    assert "perplexity 53.12 after" in header[0]  # as everywhere else
    assert header[1].endswith("squen-sweep train best.toml")
    assert header[2].endswith("squen-sweep train best.toml --steps 2400")
    assert "squen-sweep train 'my best.toml'\n" in to_toml(config(), ORIGIN, "my best.toml")


def test_an_export_of_a_study_whose_name_has_a_space_is_known_as_one(tmp_path):
    origin = replace(ORIGIN, study="my study")
    (tmp_path / "best.toml").write_text(to_toml(config(), origin, "best.toml"))
    assert is_export(tmp_path / "best.toml")


def test_json_is_the_text_of_a_run_directory():
    assert json.loads(to_json(config(), ORIGIN, "best.json")) == config().model_dump(mode="json")


@pytest.fixture
def prepared(tmp_path: Path, cache: Path) -> DataConfig:
    words = [f"{a}{b}{c}" for a in "bcdf" for b in "aeiou" for c in "lmnp"]
    rng = random.Random(0)
    stories = (" ".join(rng.choices(words, k=20)) for _ in range(100))
    path = tmp_path / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(stories))
    return DataConfig(source=str(path), bpe_vocab_size=300)


def nanogpt_globals(text: str) -> dict[str, object]:
    """What nanoGPT's configurator does with a config file."""
    namespace: dict[str, object] = {}
    exec(text, namespace)
    return {k: v for k, v in namespace.items() if not isinstance(v, types.ModuleType | dict)}


def test_nanogpt_file_sets_only_names_that_nanogpt_knows_to_values_of_their_types(prepared):
    values = nanogpt_globals(to_nanogpt(config(data=prepared), ORIGIN, "best.py"))
    assert {name: type(value) for name, value in values.items()} == {
        name: NANOGPT_TYPES[name] for name in values
    }


def test_nanogpt_file_sets_the_same_run(prepared):
    run = config(data=prepared, warmup_steps=30, min_lr_ratio=0.5, batch_size=4, eval_tokens=1000)
    values = nanogpt_globals(to_nanogpt(run, ORIGIN, "best.py"))
    assert values["learning_rate"] == 0.1 + 0.2
    assert values["min_lr"] == (0.1 + 0.2) / 2
    assert (values["warmup_iters"], values["max_iters"]) == (30, 600)
    assert values["lr_decay_iters"] == 600
    assert values["eval_iters"] == 16  # batches of 4 x 16 tokens: 1024, the first to reach 1000
    assert (values["n_layer"], values["n_head"], values["n_embd"]) == (1, 2, 16)
    assert Path(str(values["dataset"])) == prepare(prepared).folder.resolve()


def test_nanogpt_file_names_a_folder_with_what_nanogpt_reads(prepared):
    values = nanogpt_globals(to_nanogpt(config(data=prepared), ORIGIN, "best.py"))
    folder = Path(str(values["dataset"]))
    assert folder.is_absolute()  # os.path.join("data", dataset) keeps it as it is
    assert {"train.bin", "val.bin", "meta.pkl"} <= {path.name for path in folder.iterdir()}


def test_nanogpt_file_says_that_nanogpt_has_only_cross_entropy(prepared):
    run = config(data=prepared, loss="squentropy")
    assert "# This trial was trained with squentropy" in to_nanogpt(run, ORIGIN, "best.py")
    run = config(data=prepared, loss="cross_entropy")
    assert "This trial was trained with" not in to_nanogpt(run, ORIGIN, "best.py")


def test_nanogpt_file_says_that_nanogpt_starts_from_weights_of_gpt2s_size(prepared):
    run = config(data=prepared, init_std=0.07)
    said = "# This trial started from weights of std 0.07: nanoGPT starts from 0.02.\n"
    assert said in to_nanogpt(run, ORIGIN, "best.py")
    run = config(data=prepared)
    assert "started from weights" not in to_nanogpt(run, ORIGIN, "best.py")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "muon"}, "trained with muon: nanoGPT will take AdamW"),
        ({"schedule": "wsd"}, "schedule wsd: nanoGPT will take a cosine"),
        ({"loss": "squentropy", "loss_schedule": "linear"}, "trained with squentropy"),
    ],
)
def test_nanogpt_file_says_where_nanogpt_will_train_otherwise(prepared, changes, said):
    assert said in to_nanogpt(config(data=prepared, **changes), ORIGIN, "best.py")


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"qk_norm": True}, "qk_norm = False"), ({"activation": "relu2"}, "activation = 'gelu'")],
)
def test_a_model_that_nanogpt_does_not_have_is_refused(changes, key):
    with pytest.raises(InputError, match=f"nanogpt must have {key}.* trial 7 .*toml or json"):
        to_nanogpt(config(**changes), ORIGIN, "best.py")


def test_format_comes_from_the_option_first_then_from_the_suffix():
    assert export_format(Path("best.toml"), None) == "toml"
    assert export_format(Path("best.json"), None) == "json"
    assert export_format(Path("best.py"), None) == "nanogpt"
    assert export_format(Path("best.txt"), "json") == "json"
    assert export_format(None, None) == "toml"


@pytest.mark.parametrize(("file", "form"), [("best.json", "toml"), ("best.toml", "nanogpt")])
def test_format_refuses_a_suffix_of_another_one(file, form):
    with pytest.raises(InputError, match=rf"{file} must end in .* for --format {form}") as caught:
        export_format(Path(file), form)
    assert "\n" not in str(caught.value)


def test_format_refuses_an_unknown_name_or_suffix():
    with pytest.raises(
        InputError,
        match=r"one of toml, json, nanogpt, .*, but got 'yaml'",
    ):
        export_format(None, "yaml")
    with pytest.raises(InputError, match=r"best.yaml must end in one of .toml, .json, .py, .pt"):
        export_format(Path("best.yaml"), None)
