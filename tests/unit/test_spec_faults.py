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
from gpt.losses.functional import LOSSES
from sweep.search.samplers import sobol_params
from sweep.study.spec import StudySpec, load_study

VALID = (Path(__file__).parents[1] / "helpers" / "mine.toml").read_text()
N_LAYER = "[search.n_layer]\nlow = 1\nhigh = 4"
WHEN = '{ loss = "squentropy" }'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


FAULTS = [
    (
        "low = 1e-4",
        "low = 1e-1",
        "search.learning_rate: low must be below high, but got low=0.1 and high=0.01.",
    ),
    (
        "low = 1e-4",
        "low = 1e-2",
        "search.learning_rate: low must be below high, but got low=0.01 and high=0.01.",
    ),
    (
        "low = 1e-4",
        "low = 0.0",
        "search.learning_rate: low must be above 0 where log = true, but got low=0.0 and "
        "high=0.01.",
    ),
    (
        "low = 1e-4",
        "low = -1.0",
        "search.learning_rate: low must be above 0 where log = true, but got low=-1.0 and "
        "high=0.01.",
    ),
    (
        "log = true",
        "log = true\nstep = 0.1",
        "search.learning_rate: must have log or step, but got log = true and step=0.1.",
    ),
    (
        "low = 1e-4",
        "",
        "search.learning_rate: must have low and high, or choices, but got no low.",
    ),
    (
        "low = 1e-4",
        'low = "tiny"',
        "search.learning_rate.low: must be a number, at most 1e+15 in size, but got 'tiny'.",
    ),
    (
        "low = 1e-4",
        "low = nan",
        "search.learning_rate.low: must be a number, at most 1e+15 in size, but got nan.",
    ),
    (
        "log = true",
        'log = "yes"',
        "search.learning_rate.log: input should be a valid boolean, but got 'yes'.",
    ),
    (
        "high = 1e-2",
        "hihg = 1e-2",
        "search.learning_rate.hihg: is not a known key; the nearest is 'high'; known are low, "
        "high, log, step, choices, when.",
    ),
    (
        N_LAYER,
        "[search.n_layer]\nlow = 0\nhigh = 4",
        "search.n_layer: input should be greater than or equal to 1, but got 0.",
    ),
    (
        N_LAYER,
        "[search.n_layer]\nlow = 1.5\nhigh = 4",
        "search.n_layer: input should be a valid integer, but got 1.5.",
    ),
    (
        "[search.n_layer]",
        "[search.n_leyer]",
        "search.n_leyer: is not a known key; the nearest is 'n_layer'.",
    ),
    (
        "[search.n_layer]",
        "[search.max_steps]",
        "search.max_steps: must not be set here: trials must be comparable at equal steps; set "
        "it in [train].",
    ),
    (
        '["cross_entropy", "squentropy"]',
        "[]",
        "search.loss: choices must not be empty, but got [].",
    ),
    (
        '["cross_entropy", "squentropy"]',
        '"squentropy"',
        "search.loss.choices: input should be a valid list, but got 'squentropy'.",
    ),
    (
        '["cross_entropy", "squentropy"]',
        '["cross_entropy", "squentrpy"]',
        f"search.loss.choices: must be among {', '.join(LOSSES)}, but got 'squentrpy'; "
        "the nearest is 'squentropy'.",
    ),
    (
        "low = 0.1\nhigh = 10.0",
        "low = 1\nhigh = 10",
        "search.square_weight: must be a range of real numbers, such as low = 1.0, but got "
        "low=1 and high=10.",
    ),
    (
        WHEN,
        '{ los = "squentropy" }',
        "search.square_weight.when: must name a searched parameter without a when of its own "
        "(learning_rate, n_layer, loss), but got 'los'; the nearest is 'loss'.",
    ),
    (
        WHEN,
        '{ loss = "mse" }',
        "search.square_weight.when: loss must be a value that is searched ('cross_entropy', "
        "'squentropy'), but got 'mse'.",
    ),
    (
        WHEN,
        "{ n_layer = 9 }",
        "search.square_weight.when: n_layer must be a value that is searched (1 to 4), but got 9.",
    ),
    (
        'when = { loss = "squentropy" }',
        "",
        "search.square_weight: must be searched for squentropy only, but cross_entropy is "
        'trained too; add when = { loss = "squentropy" }.',
    ),
    (
        "n_embd = 32",
        "n_embed = 32",
        "train.n_embed: is not a known key; the nearest is 'n_embd'.",
    ),
    (
        "n_embd = 32",
        'n_embd = "wide"',
        "train.n_embd: input should be a valid integer, but got 'wide'.",
    ),
    (
        "n_embd = 32",
        "n_embd = 30",
        "train: n_embd must be a multiple of n_head, but got n_embd=30 and n_head=4.",
    ),
    (
        "n_embd = 32",
        'n_embd = 32\nloss = "mse"',
        f"train.loss: must be among {', '.join(LOSSES)}, but got 'mse'.",
    ),
    (
        "n_embd = 32",
        'n_embd = 32\ndevice = "cuda"',
        "train.device: must not be set here: it is chosen when the sweep runs.",
    ),
    (
        "n_embd = 32",
        "n_embd = 32\nvocab_size = 99",
        "train.vocab_size: must not be set here: it is the tokenizer's; set data.tokenizer and "
        "data.bpe_vocab_size.",
    ),
    (
        "bpe_vocab_size = 512",
        "bpe_vocab_size = 3",
        "data.bpe_vocab_size: input should be greater than or equal to 257, but got 3.",
    ),
    (
        'source = "built-in"',
        'sorce = "built-in"',
        "data.sorce: is not a known key; the nearest is 'source'; known are source, hub_name, "
        "max_stories, tokenizer, bpe_vocab_size, fingerprint.",
    ),
    (
        'compare = "loss"',
        'compare = "los"',
        "compare: must be a searched parameter, but got 'los'; the nearest is 'loss'.",
    ),
    (
        'compare = "loss"',
        'compare = "n_layer"',
        "compare: must be a parameter with choices and without when, but got 'n_layer', which "
        "is not.",
    ),
    (
        "n_layer = 2 }",
        "n_layer = 2, depth = 3 }",
        "baselines.base.params.depth: is not a known key; known are learning_rate, n_layer, "
        "square_weight.",
    ),
    (
        "n_layer = 2 }",
        "n_layer = 20 }",
        "baselines.base.params.n_layer: must be in the search space (1 to 4), but got 20.",
    ),
    (
        ", n_layer = 2 }",
        "}",
        "baselines.base.params: must set every searched parameter, but got no n_layer.",
    ),
    (
        "n_layer = 2 }",
        'n_layer = 2, loss = "squentropy" }',
        "baselines.base.params.loss: must not be set, because a baseline runs in each arm.",
    ),
    (
        "low = 0.1\n",
        "low = 2.0\n",
        "baselines.base.params: must set square_weight, because its default 1.0 is outside "
        "search.square_weight (2.0 to 10.0).",
    ),
    (
        "[sampler]",
        '[[baselines]]\nname = "base"\nparams = {}\n[sampler]',
        "baselines: names must differ from each other, but got ['base', 'base'].",
    ),
    (
        'kind = "tpe"',
        'kind = "bayes"',
        "sampler.kind: input should be 'tpe', 'gp', 'random' or 'qmc', but got 'bayes'.",
    ),
    (
        'kind = "median"',
        'kind = "hyperband"',
        "pruner.kind: input should be 'median' or 'none', but got 'hyperband'.",
    ),
    (
        'name = "mine"',
        'name = "../mine"',
        "name: must be 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, "
        "but got '../mine'.",
    ),
    (
        'name = "mine"',
        "",
        "name: must be given.",
    ),
    (
        'name = "mine"',
        'name = "mine"\n"a\\nb" = 3',
        "a\\nb: is not a known key; known are name, description, question, compare, metric, data, "
        "train, search, baselines, sampler, pruner, verdict, background, budget.",
    ),
    (
        "[budget.cuda.train]",
        "[budget.gpu.train]",
        "budget.gpu: is not a known key; the nearest is 'cpu'; known are cpu, cuda.",
    ),
    (
        "[budget.cuda.train]\nn_embd",
        "[budget.cuda]\nn_embd",
        "budget.cuda.n_embd: is not a known key; known are data, train, search, baselines, "
        "sampler, pruner, verdict.",
    ),
    (
        "high = 8",
        "high = 0",
        "budget.cuda.search.n_layer: low must be below high, but got low=1 and high=0.",
    ),
    (
        "n_embd = 64",
        "n_embd = 0",
        "budget.cuda.train.n_embd: input should be greater than or equal to 1, but got 0.",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), FAULTS, ids=[fault[2] for fault in FAULTS])
def test_fault_is_one_line_with_file_key_and_what_must_hold(
    path: Path, old: str, new: str, message: str
) -> None:
    assert old in VALID
    path.write_text(VALID.replace(old, new, 1))

    with pytest.raises(InputError) as error:
        load_study(str(path), "cpu")

    assert str(error.value) == f"mine.toml: {message}"


def test_heads_that_do_not_divide_the_width_are_found_in_the_middle_of_a_range(path: Path) -> None:
    text = VALID.replace(N_LAYER, "[search.n_head]\nlow = 1\nhigh = 4").replace("n_layer", "n_head")
    path.write_text(text)

    with pytest.raises(InputError, match=r"n_embd must be a multiple of n_head.*n_head=3"):
        load_study(str(path), "cpu")


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
        load_study(str(path), "cpu")


@pytest.mark.parametrize("text", ["name = \n", "[search\n", "\x00", "a = 1\na = 2\n"])
def test_file_that_is_no_toml_is_refused(path: Path, text: str) -> None:
    path.write_text(text)

    with pytest.raises(
        InputError, match=r"^mine\.toml: must be TOML, but is not: .*\(at line \d.*\)\.$"
    ):
        load_study(str(path), "cpu")


def test_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InputError, match="must be TOML in UTF-8"):
        load_study(str(path), "cpu")


def test_unknown_study_is_refused_with_the_nearest_and_all_names() -> None:
    with pytest.raises(InputError) as error:
        load_study("tinystoris", "cpu")

    assert str(error.value) == (
        "study must be one of original, smoke, tinystories or the path of a .toml file, "
        "but got 'tinystoris'; the nearest is 'tinystories'."
    )


def test_study_file_that_is_missing_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.toml: must be a study file, but there is no"):
        load_study(str(path), "cpu")


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
        return load_study(str(path), device)
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
