"""Study files that are wrong: one line says the file, the key, what must hold, what came."""

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt.errors import InputError
from sweep.search.samplers import sobol_params
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file

VALID = (Path(__file__).parents[1] / "helpers" / "mine.toml").read_text()
N_LAYER = "[search.n_layer]\nlow = 1\nhigh = 4"
WHEN = '{ loss = "squentropy" }'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


FAULTS = [  # what stands in the file, what is written instead: the key, the rule, what came
    ('name = "mine"', 'name = "mine.toml"', "name", ("must not end in .toml", "'mine.toml'")),
    (
        "low = 1e-4",
        "low = 1e-1",
        "search.learning_rate",
        ("low must be below high", "low=0.1", "high=0.01"),
    ),
    (
        "low = 1e-4",
        "low = 1e-2",
        "search.learning_rate",
        ("low must be below high", "low=0.01", "high=0.01"),
    ),
    (
        "low = 1e-4",
        "low = 0.0",
        "search.learning_rate",
        ("low must be above 0", "low=0.0", "high=0.01"),
    ),
    (
        "low = 1e-4",
        "low = -1.0",
        "search.learning_rate",
        ("low must be above 0", "low=-1.0", "high=0.01"),
    ),
    (
        "log = true",
        "log = true\nstep = 0.1",
        "search.learning_rate",
        ("must have log or step", "step=0.1"),
    ),
    ("low = 1e-4", "", "search.learning_rate", ("must have low and high", "no low")),
    ("low = 1e-4", 'low = "tiny"', "search.learning_rate.low", ("must be a number", "'tiny'")),
    ("low = 1e-4", "low = nan", "search.learning_rate.low", ("must be a number",)),
    (
        "log = true",
        'log = "yes"',
        "search.learning_rate.log",
        ("input should be a valid boolean", "'yes'"),
    ),
    (
        "high = 1e-2",
        "hihg = 1e-2",
        "search.learning_rate.hihg",
        ("is not a known key", "nearest is 'high'"),
    ),
    (
        "[search.n_layer]\nlow = 1\nhigh = 4",
        "[search.n_layer]\nlow = 0\nhigh = 4",
        "search.n_layer",
        ("input should be greater than or equal to 1", "0"),
    ),
    (
        "[search.n_layer]\nlow = 1\nhigh = 4",
        "[search.n_layer]\nlow = 1.5\nhigh = 4",
        "search.n_layer",
        ("input should be a valid integer", "1.5"),
    ),
    (
        "[search.n_layer]",
        "[search.n_leyer]",
        "search.n_leyer",
        ("is not a known key", "nearest is 'n_layer'"),
    ),
    (
        "[search.n_layer]",
        "[search.max_steps]",
        "search.max_steps",
        ("must not be set here", "[train]"),
    ),
    ('["cross_entropy", "squentropy"]', "[]", "search.loss", ("choices must not be empty", "[]")),
    (
        '["cross_entropy", "squentropy"]',
        '"squentropy"',
        "search.loss.choices",
        ("input should be a valid list", "'squentropy'"),
    ),
    (
        '["cross_entropy", "squentropy"]',
        '["cross_entropy", "squentrpy"]',
        "search.loss.choices",
        ("must be among", "'squentrpy'", "nearest is 'squentropy'"),
    ),
    (
        "low = 0.1\nhigh = 10.0",
        "low = 1\nhigh = 10",
        "search.square_weight",
        ("must be a range of real numbers", "low=1", "high=10"),
    ),
    (
        '{ loss = "squentropy" }',
        '{ los = "squentropy" }',
        "search.square_weight.when",
        ("must name a searched parameter without a when of its own", "'los'", "nearest is 'loss'"),
    ),
    (
        '{ loss = "squentropy" }',
        '{ loss = "mse" }',
        "search.square_weight.when",
        ("loss must be a value that is searched", "'mse'"),
    ),
    (
        '{ loss = "squentropy" }',
        "{ n_layer = 9 }",
        "search.square_weight.when",
        ("n_layer must be a value that is searched", "9"),
    ),
    (
        'when = { loss = "squentropy" }',
        "",
        "search.square_weight",
        ("must be searched for squentropy only", "add when = { loss"),
    ),
    (
        "[search.square_weight]",
        "[search.momentum]\n[search.square_weight]",
        "search.momentum",
        ("must be searched for muon or sgd only", "adamw is trained", "when = { optimizer = ["),
    ),
    (
        "n_embd = 32",
        'n_embd = 32\noptimizer = "adam"',
        "train.optimizer",
        ("must be among adamw, muon", "'adam'", "nearest is 'adamw'"),
    ),
    (
        "n_embd = 32",
        "n_embd = 32\nmomentum = 0.9",
        "train.momentum",
        ("is not a known key",),
    ),
    (
        "n_embd = 32",
        "n_embd = 32\noptimizer_options = { momentum = 0.9 }",
        "train.optimizer_options",
        ("must not be set here", "name the option itself"),
    ),
    (
        "[search.square_weight]",
        '[search.loss_schedule]\nchoices = ["constant", "linear"]\nwhen = { n_layer = 1 }\n'
        "[search.square_weight]",
        "search",
        ("loss_schedule must be 'constant' unless", "'linear' for 'cross_entropy'"),
    ),
    ("n_embd = 32", "n_embed = 32", "train.n_embed", ("is not a known key", "nearest is 'n_embd'")),
    (
        "n_embd = 32",
        'n_embd = "wide"',
        "train.n_embd",
        ("input should be a valid integer", "'wide'"),
    ),
    (
        "n_embd = 32",
        "n_embd = 30",
        "train",
        ("n_embd must be a multiple of n_head", "n_embd=30", "n_head=4"),
    ),
    ("n_embd = 32", 'n_embd = 32\nloss = "mse"', "train.loss", ("must be among", "'mse'")),
    ("n_embd = 32", 'n_embd = 32\ndevice = "cuda"', "train.device", ("must not be set here",)),
    (
        "n_embd = 32",
        "n_embd = 32\nvocab_size = 99",
        "train.vocab_size",
        ("must not be set here", "data.bpe_vocab_size"),
    ),
    (
        "bpe_vocab_size = 512",
        "bpe_vocab_size = 3",
        "data.bpe_vocab_size",
        ("input should be greater than or equal to 257", "3"),
    ),
    (
        'source = "built-in"',
        'sorce = "built-in"',
        "data.sorce",
        ("is not a known key", "nearest is 'source'"),
    ),
    (
        'compare = "loss"',
        'compare = "los"',
        "compare",
        ("must be a searched parameter", "'los'", "nearest is 'loss'"),
    ),
    (
        'compare = "loss"',
        'compare = "n_layer"',
        "compare",
        ("must be a parameter with choices and without when", "'n_layer'"),
    ),
    (
        "n_layer = 2 }",
        "n_layer = 2, depth = 3 }",
        "baselines.base.params.depth",
        ("is not a known key",),
    ),
    (
        "n_layer = 2 }",
        "n_layer = 20 }",
        "baselines.base.params.n_layer",
        ("must be in the search space", "20"),
    ),
    (
        ", n_layer = 2 }",
        "}",
        "baselines.base.params",
        ("must set every searched parameter", "no n_layer"),
    ),
    (
        "n_layer = 2 }",
        'n_layer = 2, loss = "squentropy" }',
        "baselines.base.params.loss",
        ("must not be set",),
    ),
    (
        "low = 0.1\n",
        "low = 2.0\n",
        "baselines.base.params",
        ("must set square_weight", "1.0", "2.0", "10.0"),
    ),
    (
        "[sampler]",
        '[[baselines]]\nname = "base"\nparams = {}\n[sampler]',
        "baselines",
        ("names must differ from each other", "['base', 'base']"),
    ),
    ('kind = "tpe"', 'kind = "bayes"', "sampler.kind", ("must be one of tpe", "'bayes'")),
    (
        'kind = "median"',
        'kind = "hyper"',
        "pruner.kind",
        ("must be one of median, none", "'hyper'", "nearest is 'hyperband'"),
    ),
    ('name = "mine"', 'name = "../mine"', "name", ("must be 1 to 64 letters", "'../mine'")),
    ('name = "mine"', "", "name", ("must be given",)),
    ('name = "mine"', 'name = "mine"\n"a\\nb" = 3', "a\\nb", ("is not a known key",)),
    (
        "[budget.cuda.train]",
        "[budget.gpu.train]",
        "budget.gpu",
        ("is not a known key", "nearest is 'cpu'"),
    ),
    (
        "[budget.cuda.train]\nn_embd",
        "[budget.cuda]\nn_embd",
        "budget.cuda.n_embd",
        ("is not a known key",),
    ),
    (
        "high = 8",
        "high = 0",
        "budget.cuda.search.n_layer",
        ("low must be below high", "low=1", "high=0"),
    ),
    (
        "n_embd = 64",
        "n_embd = 0",
        "budget.cuda.train.n_embd",
        ("input should be greater than or equal to 1", "0"),
    ),
    (
        "[search.n_layer]\nlow = 1",
        "[search.seed]\nlow = 1",
        "search.seed",
        ("must not be set here", "squen-sweep verdict --seeds"),
    ),
    ("warmup_steps = 4", "warmup_steps = 40", "train.warmup_steps", ("below max_steps", "=40")),
    ("warmup_steps = 4", "", "train.warmup_steps", ("below max_steps", "warmup_steps=100")),
    (
        "eval_interval = 10",
        "eval_interval = 41",
        "train.eval_interval",
        ("at most max_steps", "eval_interval=41", "max_steps=40"),
    ),
    ("eval_interval = 10", "eval_interval = 40", "pruner", ("evaluation", 'set kind = "none"')),
    (
        'kind = "median"',
        'kind = "median"\nwarmup_fraction = 0.9',
        "pruner",
        ("after its warm-up", "warmup_fraction=0.9", "eval_interval=10"),
    ),
    ("n_embd = 32", "n_embd = 32\nseed = 9223372036854772807", "train.seed", ("at most",)),
    (
        "[sampler]",
        "[verdict]\nscreening_seeds = 901\n[sampler]",
        "verdict.screening_seeds",
        ("900",),
    ),
    ('name = "mine"', 'name = "final"', "name", ("must not be one of", "'final'")),
    ('name = "mine"', 'name = "Artifacts"', "name", ("must not be one of", "'Artifacts'")),
    ('name = "mine"', 'name = "mine.confirm"', "name", ("must not be one of", "'mine.confirm'")),
    (
        'source = "built-in"',
        'source = "https://example.com/stories.txt"',
        "data.source",
        ("must be a path", "https://example.com/stories.txt"),
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), FAULTS)
def test_fault_is_one_line_with_file_key_and_what_must_hold(
    path: Path, old: str, new: str, key: str, words: tuple[str, ...]
) -> None:
    assert old in VALID
    path.write_text(VALID.replace(old, new, 1))

    with pytest.raises(InputError) as error:
        read_study_file(str(path), "cpu")

    line = str(error.value)
    assert line.startswith(f"mine.toml: {key}: ")
    assert "\n" not in line
    assert [word for word in words if word not in line] == []


def test_a_searched_warm_up_must_end_before_the_last_step(path: Path) -> None:
    text = VALID.replace(N_LAYER, "[search.warmup_steps]\nlow = 2\nhigh = 50")
    path.write_text(text.replace("n_layer", "warmup_steps").replace("high = 8", "high = 60"))

    with pytest.raises(InputError, match=r"search\.warmup_steps: .*=50 and max_steps=40"):
        read_study_file(str(path), "cpu")


def test_heads_that_do_not_divide_the_width_are_found_in_the_middle_of_a_range(path: Path) -> None:
    text = VALID.replace(N_LAYER, "[search.n_head]\nlow = 1\nhigh = 4").replace("n_layer", "n_head")
    path.write_text(text)

    with pytest.raises(InputError, match=r"n_embd must be a multiple of n_head.*n_head=3"):
        read_study_file(str(path), "cpu")


def test_heads_that_do_not_divide_the_width_are_found_between_two_searched_parameters(
    path: Path,
) -> None:
    text = VALID.replace("n_embd = 32\nn_head = 4", "").replace(
        "[budget.cuda.train]\nn_embd = 64", ""
    )
    text = text.replace(
        N_LAYER, "[search.n_head]\nchoices = [2, 4]\n[search.n_embd]\nchoices = [32, 34]"
    )
    text = text.replace("n_layer = 2", "n_head = 2, n_embd = 32").split("[budget")[0]
    path.write_text(text)

    with pytest.raises(InputError, match=r"search: n_embd must be .* n_embd=34 and n_head=4"):
        read_study_file(str(path), "cpu")


@pytest.mark.parametrize("text", ["name = \n", "[search\n", "\x00", "a = 1\na = 2\n"])
def test_file_that_is_no_toml_is_refused(path: Path, text: str) -> None:
    path.write_text(text)

    with pytest.raises(
        InputError, match=r"^mine\.toml: must be TOML, but is not: .*\(at line \d.*\)\.$"
    ):
        read_study_file(str(path), "cpu")


def test_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InputError, match="must be TOML in UTF-8"):
        read_study_file(str(path), "cpu")


def test_unknown_study_is_refused_with_the_nearest_and_all_names() -> None:
    with pytest.raises(InputError) as error:
        read_study_file("tinystoris", "cpu")

    assert str(error.value) == (
        "study must be one of few_stories, optimizers, original, smoke, tinystories or the path of "
        "a .toml file, but got 'tinystoris'; the nearest is 'tinystories'."
    )


def test_study_file_that_is_missing_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.toml: must be a study file, but there is no"):
        read_study_file(str(path), "cpu")


# --- any file at all -------------------------------------------------------------------------

names = st.sampled_from(
    ["low", "high", "log", "step", "choices", "when", "loss", "name", "params", "n_head", "x y\n"]
)
scalars = st.one_of(
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.sampled_from(["loss", "squentropy", "mse", "n_layer", "", "a\nb", "../x"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


def places(table: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of nested tables."""
    items = table.items() if isinstance(table, dict) else enumerate(table)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The valid file with one or two values replaced, removed or added."""
    tables = copy.deepcopy(tomllib.loads(VALID))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(places(tables)))
        table: Any = tables
        for key in way:
            table = table[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                table[last] = draw(values)
            case "remove":
                del table[last]
            case "add" if isinstance(table, dict):
                table[draw(names)] = draw(values)
    return tables


def spec_or_line(path: Path, device: str) -> StudySpec | str:
    try:
        return read_study_file(str(path), device)
    except InputError as error:
        return str(error)


@settings(max_examples=300)
@given(tables=mutated(), device=st.sampled_from(["cpu", "cuda"]))
def test_any_file_gives_runs_that_train_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, Any], device: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.toml"
    path.write_text(tomli_w.dumps(tables))

    spec = spec_or_line(path, device)

    if isinstance(spec, str):
        assert spec.startswith("any.toml: ")
        assert len(spec.splitlines()) == 1
        return
    assert StudySpec.model_validate(json.loads(spec.model_dump_json())) == spec
    for arm in spec.arms:
        for index in range(4):
            params = sobol_params(spec, arm, index)
            spec.train_config(params, spec.data, device, 1)
            assert set(spec.distributions(params)) == set(params)


def test_a_programs_parameter_with_the_name_of_our_option_needs_a_range_of_its_own(path: Path):
    program = """
name = "mine"
search.momentum = { when = { optimizer = "sgd" } }
search.optimizer = { choices = ["sgd", "adam"] }
[trainer]
command = "python train.py {momentum} {optimizer}"
max_steps = 4
metric = { name = "loss" }
"""
    path.write_text(program)
    with pytest.raises(InputError, match=r"search\.momentum: must have low and high"):
        read_study_file(str(path), "cpu")
