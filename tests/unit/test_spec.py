"""Study files: what they mean. What can be wrong with them is in test_spec_faults.py."""

import json
from pathlib import Path

import optuna
import pytest

from gpt.config import DataConfig, choices
from gpt.errors import InputError
from gpt.losses.functional import LOSSES
from sweep.search.samplers import sobol_params
from sweep.study.paths import read_path, read_source
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file, sbatch_of, shipped_files

VALID = (Path(__file__).parents[1] / "helpers" / "mine.toml").read_text()
N_LAYER = "[search.n_layer]\nlow = 1\nhigh = 4"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


@pytest.fixture
def spec(path: Path) -> StudySpec:
    path.write_text(VALID)
    return read_study_file(str(path), "cpu")


# --- what a file means -----------------------------------------------------------------------


def test_budget_of_the_device_is_laid_over_the_study(path: Path) -> None:
    path.write_text(VALID)

    cpu, cuda = read_study_file(str(path), "cpu"), read_study_file(str(path), "cuda")

    assert (cpu.train["n_embd"], cuda.train["n_embd"]) == (32, 64)
    assert (cpu.search["n_layer"].high, cuda.search["n_layer"].high) == (4, 8)
    assert cpu.search["n_layer"].low == cuda.search["n_layer"].low == 1


def test_baselines_of_a_budget_replace_those_outside_of_it(path: Path) -> None:
    baseline = (
        '[[budget.cuda.baselines]]\nname = "wide"\nparams = { learning_rate = 1e-3, n_layer = 8 }'
    )
    path.write_text(VALID + baseline)

    assert [one.name for one in read_study_file(str(path), "cuda").baselines] == ["wide"]
    assert [one.name for one in read_study_file(str(path), "cpu").baselines] == ["base"]


def test_arms_are_the_choices_of_the_compared_parameter(spec: StudySpec) -> None:
    assert spec.arms == ["cross_entropy", "squentropy"]


def test_a_study_that_compares_nothing_has_one_arm(path: Path) -> None:
    path.write_text(
        VALID.replace('compare = "loss"', "").replace(
            "n_layer = 2", 'n_layer = 2, loss = "squentropy"'
        )
    )
    spec = read_study_file(str(path), "cpu")

    assert spec.arms == ["all"]
    assert spec.baseline_params(spec.baselines[0], "all")["square_weight"] == 1.0


def test_conditional_parameter_is_suggested_only_where_it_applies(spec: StudySpec) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    cross = spec.suggest(study.ask(), "cross_entropy")
    squen = spec.suggest(study.ask(), "squentropy")

    assert set(cross) == {"loss", "learning_rate", "n_layer"}
    assert set(squen) == {"loss", "learning_rate", "n_layer", "square_weight"}
    assert (cross["loss"], squen["loss"]) == ("cross_entropy", "squentropy")


def test_baseline_takes_the_default_of_the_loss_for_a_conditional_parameter(
    spec: StudySpec,
) -> None:
    shared = {"learning_rate": 1e-3, "n_layer": 2}

    baseline = spec.baselines[0]

    assert spec.baseline_params(baseline, "cross_entropy") == shared | {"loss": "cross_entropy"}
    assert spec.baseline_params(baseline, "squentropy") == shared | {
        "loss": "squentropy",
        "square_weight": 1.0,
    }


def test_distributions_are_those_of_exactly_the_given_parameters(spec: StudySpec) -> None:
    params = spec.baseline_params(spec.baselines[0], "cross_entropy")

    assert spec.distributions(params) == {
        "loss": optuna.distributions.CategoricalDistribution(["cross_entropy", "squentropy"]),
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "n_layer": optuna.distributions.IntDistribution(1, 4),
    }


def test_train_config_puts_fields_and_options_of_the_loss_where_they_belong(
    spec: StudySpec,
) -> None:
    params = {"loss": "squentropy", "learning_rate": 2e-3, "n_layer": 3, "square_weight": 0.5}
    data = spec.data.model_copy(update={"fingerprint": "abc"})

    config = spec.train_config(params, data, "cuda:1", threads=2)

    assert config.loss_options == {"square_weight": 0.5}
    assert (config.learning_rate, config.n_layer, config.n_embd) == (2e-3, 3, 32)
    assert (config.device, config.threads, config.data.fingerprint) == ("cuda:1", 2, "abc")


THREE_LOSSES = 'choices = ["cross_entropy", "squentropy", "logit_l2"]'


def test_a_parameter_may_apply_with_several_values_of_another(path: Path) -> None:
    text = VALID.replace('choices = ["cross_entropy", "squentropy"]', THREE_LOSSES)
    path.write_text(
        text.replace(
            'when = { loss = "squentropy" }', 'when = { loss = ["squentropy", "logit_l2"] }'
        )
    )
    spec = read_study_file(str(path), "cpu")

    having = [arm for arm in spec.arms if "square_weight" in sobol_params(spec, arm, 0)]
    assert having == ["squentropy", "logit_l2"]


def test_an_option_named_without_a_range_has_that_of_its_loss(path: Path) -> None:
    whole = "[search.square_weight]\nlow = 0.1\nhigh = 10.0\nwhen"
    assert whole in VALID
    path.write_text(VALID.replace(whole, "[search.square_weight]\nwhen"))

    found = read_study_file(str(path), "cpu").search["square_weight"]

    option = LOSSES["squentropy"].options["square_weight"]
    assert (found.low, found.high, found.log) == (option.low, option.high, option.log)
    assert found.when == {"loss": "squentropy"}


@pytest.mark.parametrize("field", choices())
def test_every_option_of_every_choice_can_be_searched_by_its_name_alone(path: Path, field: str):
    for name, choice in choices()[field].items():
        for option in choice.options:
            search = f'[train]\n{field} = "{name}"\n[search.{option}]\n'
            path.write_text(f'name = "one"\n[data]\nsource = "built-in"\n{search}')
            spec = read_study_file(str(path), "cpu")
            params = sobol_params(spec, "all", 0)
            config = spec.train_config(params, spec.data, "cpu", 1)
            assert getattr(config, f"{field}_options") == {option: params[option]}


OPTIMIZERS_COMPARED = """
name = "optimizers"
compare = "optimizer"
search.optimizer = { choices = ["adamw", "muon", "sgd"] }
search.learning_rate = { low = 1e-3, high = 1e-1, log = true }
search.momentum = { when = { optimizer = ["muon", "sgd"] } }
search.activation = { choices = ["gelu", "relu2"] }
search.qk_norm = { choices = [false, true] }
[[baselines]]
name = "b"
params = { learning_rate = 1e-2, activation = "gelu", qk_norm = false }
"""


def test_each_optimiser_has_the_options_that_apply_and_its_own_defaults(path: Path):
    path.write_text(OPTIMIZERS_COMPARED)
    spec = read_study_file(str(path), "cpu")
    runs = {
        arm: spec.train_config(spec.baseline_params(spec.baselines[0], arm), spec.data, "cpu", 1)
        for arm in spec.arms
    }
    assert {arm: run.optimizer for arm, run in runs.items()} == {a: a for a in spec.arms}
    assert {arm: run.optimizer_options for arm, run in runs.items()} == {
        "adamw": {},
        "muon": {"momentum": 0.95},
        "sgd": {"momentum": 0.9},
    }


def test_settings_that_came_later_leave_a_study_without_them_as_it_was(path: Path):
    path.write_text(VALID)
    spec = read_study_file(str(path), "cpu")
    assert spec.digest.startswith("8dd58941e92c00ee")
    path.write_text(VALID.replace("[train]", '[train]\nschedule = "cosine"\nqk_norm = false'))
    assert read_study_file(str(path), "cpu").digest == spec.digest
    path.write_text(VALID.replace("[train]", '[train]\nschedule = "linear"'))
    assert list(read_study_file(str(path), "cpu").differences(spec.model_dump())) == [
        "train.schedule"
    ]


def test_trials_are_ranked_by_perplexity_unless_the_study_says_otherwise(path: Path) -> None:
    path.write_text(VALID)
    assert read_study_file(str(path), "cpu").metric == "perplexity"
    path.write_text('metric = "link_perplexity"\n' + VALID)
    assert read_study_file(str(path), "cpu").metric == "link_perplexity"


@pytest.mark.parametrize(("tokenizer", "vocab_size"), [("gpt2", 50257), ("bpe", 512)])
def test_vocabulary_is_the_tokenizers(spec: StudySpec, tokenizer: str, vocab_size: int) -> None:
    data = DataConfig.model_validate({"tokenizer": tokenizer, "bpe_vocab_size": 512})
    params = spec.baseline_params(spec.baselines[0], "cross_entropy")

    assert spec.train_config(params, data, "cpu", 1).vocab_size == vocab_size


def test_dtype_may_be_left_open_and_is_then_settled_once(path: Path) -> None:
    path.write_text(VALID.replace("[train]", '[train]\ndtype = "auto"'))
    spec = read_study_file(str(path), "cpu")
    assert spec.leaves_dtype_open

    settled = spec.with_dtype("bfloat16")

    assert not settled.leaves_dtype_open
    assert settled.digest != spec.with_dtype("float32").digest
    params = settled.baseline_params(settled.baselines[0], "squentropy")
    assert settled.train_config(params, settled.data, "cpu", 1).dtype == "bfloat16"
    assert settled.with_dtype("float32") == settled


def test_arm_that_does_not_exist_is_refused(spec: StudySpec) -> None:
    with pytest.raises(InputError, match="arm must be one of cross_entropy, squentropy, but got"):
        spec.baseline_params(spec.baselines[0], "mse")


def test_block_size_is_the_longest_that_is_searched(path: Path) -> None:
    path.write_text(
        VALID.replace(N_LAYER, "[search.block_size]\nlow = 16\nhigh = 64\nstep = 16")
        .replace("n_layer = 2", "block_size = 32")
        .replace("search.n_layer]\nhigh = 8", "search.block_size]\nhigh = 128")
    )

    assert read_study_file(str(path), "cpu").block_size == 64
    assert read_study_file(str(path), "cuda").block_size == 128


# --- stored form and digest ------------------------------------------------------------------


def test_spec_comes_back_from_json(spec: StudySpec) -> None:
    stored = json.loads(json.dumps(spec.model_dump(mode="json")))

    again = StudySpec.model_validate(stored)

    assert again == spec
    assert again.digest == spec.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "mine"', 'name = "yours"'),
        ("A study of my own.", "Another text."),
        ("Which loss?", "What else?"),
        ('source = "built-in"', 'source = "stories.txt"'),
    ],
)
def test_digest_does_not_hang_on_words_or_sources(
    path: Path, spec: StudySpec, old: str, new: str
) -> None:
    assert old in VALID
    path.write_text(VALID.replace(old, new))

    assert read_study_file(str(path), "cpu").digest == spec.digest


@pytest.mark.parametrize(
    "sbatch", ['"--gres=gpu:1 --time=4:00:00"', '["--gres=gpu:1", "--time=4:00:00"]']
)
def test_the_place_of_jobs_is_no_part_of_what_a_study_means(
    path: Path, spec: StudySpec, sbatch: str
) -> None:
    path.write_text(f"{VALID}[backend.slurm]\nsbatch = {sbatch}\n")
    placed = read_study_file(str(path), "cpu")
    assert placed.backend.slurm.sbatch == ["--gres=gpu:1", "--time=4:00:00"]
    assert sbatch_of(str(path)) == placed.backend.slurm.sbatch
    assert placed.digest == spec.digest
    assert list(placed.differences(spec.model_dump(mode="json"))) == []


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ('[backend.slurm]\nbatch = "-c 2"', "backend.slurm.batch", "sbatch"),
        ('[backend.slurm]\nsbatch = "\'"', "backend.slurm.sbatch", "as in a shell"),
        ('[backend.slrum]\nsbatch = "-c 2"', "backend.slrum", "slurm"),
    ],
)
def test_a_table_of_a_backend_that_is_wrong_is_refused(
    path: Path, table: str, key: str, words: str
) -> None:
    path.write_text(f"{VALID}{table}\n")
    with pytest.raises(InputError, match=f"{key}: .*{words}"):
        read_study_file(str(path), "cpu")
    assert sbatch_of(str(path)) == []


def test_digest_and_drawn_points_do_not_hang_on_the_order_of_tables(
    path: Path, spec: StudySpec
) -> None:
    head, *tables = VALID.split("\n[")
    path.write_text("\n[".join([head, *reversed(tables)]))
    reordered = read_study_file(str(path), "cpu")

    assert list(reordered.search) != list(spec.search)
    assert reordered.digest == spec.digest
    assert sobol_params(reordered, "squentropy", 3) == sobol_params(spec, "squentropy", 3)


SAME = [  # what stands in the file, and another way to write it
    ("n_embd = 32", "dropout = 0.0\nbeta2 = 0.95\nn_embd = 32"),
    ("n_embd = 32", "weight_decay = 1e-1\nn_embd = 32"),
    ("low = 1e-4\nhigh = 1e-2", "high = 0.01 # a comment\nlow = 0.0001"),
    ("high = 10.0", "high = 10"),
    ("low = 1\nhigh = 4", "low = 1\nstep = 1\nhigh = 4"),
    ("n_embd = 32", "n_layer = 3\nn_embd = 32"),  # every trial replaces it
    ('{ loss = "squentropy" }', '{ loss = ["squentropy"] }'),
    ("n_layer = 2 }", "n_layer = 2, square_weight = 1.0 }"),
    ("n_layer = 2 }", "n_layer = 2, square_weight = 1 }"),
    ('kind = "tpe"', 'kind = "tpe"\nseed = 0'),
    ('kind = "median"', 'kind = "median"\nshadow_fraction = 1e-1'),
    ("[sampler]", "[verdict]\nmargin = 1e-2\n[sampler]"),
    ('compare = "loss"', 'compare = "loss"\nmetric = "perplexity"'),
]


@pytest.mark.parametrize(("old", "new"), SAME)
def test_what_is_meant_decides_and_not_how_it_is_written(
    path: Path, spec: StudySpec, old: str, new: str
) -> None:
    assert old in VALID
    path.write_text("# a comment\n" + VALID.replace(old, new, 1))

    again = read_study_file(str(path), "cpu")

    assert again.digest == spec.digest
    assert again.differences(spec.model_dump(mode="json")) == []
    for arm in spec.arms:  # and trials are the same, digit for digit
        written, meant = (
            one.train_config(sobol_params(one, arm, 1), one.data, "cpu", 1) for one in (again, spec)
        )
        assert written == meant


def test_choices_of_a_real_parameter_may_be_written_as_integers(path: Path) -> None:
    text = 'name = "one"\n[data]\nsource = "built-in"\n[search.dropout]\nchoices = '
    path.write_text(text + "[0.0, 0.1]")
    stored = read_study_file(str(path), "cpu")
    path.write_text(text + "[0, 1e-1]")
    again = read_study_file(str(path), "cpu")

    assert again.digest == stored.digest
    old, new = (one.distributions({"dropout": 0.1})["dropout"] for one in (stored, again))
    optuna.distributions.check_distribution_compatibility(old, new)

    path.write_text('compare = "dropout"\n' + text + "[0.0, 0.1]")
    stored = read_study_file(str(path), "cpu")
    path.write_text('compare = "dropout"\n' + text + "[0, 0.1]")  # arms are named as written
    assert read_study_file(str(path), "cpu").digest != stored.digest


def test_a_study_that_an_earlier_version_stored_is_the_same(spec: StudySpec) -> None:
    stored = spec.model_dump(mode="json")
    del stored["metric"], stored["verdict"]["seeds"]  # keys that came later

    assert spec.differences(stored) == []
    assert "train.n_embd" in spec.differences(stored | {"train": {"n_embd": 64}})
    assert "train.n_head" not in spec.differences(stored | {"train": {"n_embd": 64}})  # its default
    assert spec.differences(stored | {"optimizer": "muon"}) == ["optimizer"]


def test_a_byte_order_mark_is_read_over(path: Path, spec: StudySpec) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + VALID.encode())

    assert read_study_file(str(path), "cpu") == spec


def test_a_path_may_begin_at_the_home_folder(
    path: Path, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    assert read_study_file("~/mine.toml", "cpu") == spec
    assert read_path(Path("~/a b"), "--runs") == path.parent / "a b"
    assert read_source("~/text", "--data") == str(path.parent / "text")


def test_a_text_is_seen_from_here_and_else_from_beside_its_study_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(VALID.replace('source = "built-in"', 'source = "stories.txt"'))
    (tmp_path / "stories.txt").touch()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    found = read_study_file("../mine.toml", "cpu").data.source
    assert Path(found).samefile(tmp_path / "stories.txt")
    (here / "stories.txt").touch()
    assert read_study_file("../mine.toml", "cpu").data.source == "stories.txt"


@pytest.mark.parametrize("source", ["auto", "hub", "built-in", "./hub", "a b/c.txt", "C:\\text"])
def test_a_source_that_needs_no_home_stays_as_it_is(source: str) -> None:
    assert read_source(source, "--data") == source


@pytest.mark.parametrize(
    "text", ["https://example.com/x", "s3://bucket/x", Path("https://x"), "~nobody-has-this-name/x"]
)
def test_a_path_that_is_none_here_is_refused_in_one_line(text: str | Path) -> None:
    with pytest.raises(InputError, match=r"^--runs must be a path on this machine, but got .*\.$"):
        read_path(text, "--runs")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("high = 4", "high = 5"),
        ("n_embd = 32", "n_embd = 64"),
        ("max_steps = 40", "max_steps = 41"),
        ("bpe_vocab_size = 512", "bpe_vocab_size = 1024"),
        ('kind = "tpe"', 'kind = "tpe"\nseed = 1'),
        ('kind = "median"', 'kind = "none"'),
        ("learning_rate = 1e-3", "learning_rate = 2e-3"),
        ("n_layer = 2 }", "n_layer = 2, square_weight = 2.0 }"),
        ("low = 1e-4\nhigh = 1e-2\nlog = true", "low = 1e-4\nhigh = 1e-2"),
        ("[sampler]", "[verdict]\nmargin = 0.02\n[sampler]"),
        ('["cross_entropy", "squentropy"]', '["squentropy", "cross_entropy"]'),
    ],
)
def test_digest_hangs_on_all_that_changes_results(
    path: Path, spec: StudySpec, old: str, new: str
) -> None:
    assert old in VALID
    path.write_text(VALID.replace(old, new))

    assert read_study_file(str(path), "cpu").digest != spec.digest


def test_shipped_studies_are_listed_by_name() -> None:
    assert list(shipped_files()) == [
        "few_stories",
        "optimizers",
        "original",
        "smoke",
        "tinystories",
    ]


def test_a_folder_is_no_study_file_and_is_called_one(tmp_path: Path):
    folder = tmp_path / "mine.toml"
    folder.mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        read_study_file(str(folder), "cpu")
