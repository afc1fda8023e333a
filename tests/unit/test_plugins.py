"""Losses of the user's own from a file: what is taken, what is refused, what runs when."""

import sys
from pathlib import Path

import pytest

from gpt.config import TrainConfig, read_config
from gpt.errors import InputError
from gpt.losses import LOSSES
from gpt.optim import OPTIMIZERS
from gpt.plugins import load, registry
from gpt.train import with_loaded_plugins
from sweep.study.external.plugins import check_plugin
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file

SHARP = """
from gpt.losses import LOSSES, LogitStats, Loss, Option


def sharp(s: LogitStats, sharpness: float):
    return s.cross_entropy + sharpness * s.cross_entropy.square()


LOSSES["sharp"] = Loss(sharp, {"sharpness": Option(0.1, low=0.01, high=1.0, log=True)})
"""
SCHEDULE = """
from gpt.losses.options import Option
from gpt.optim import SCHEDULES
from gpt.optim.schedules import Schedule

SCHEDULES["mine"] = Schedule(lambda p, peak: p, {"peak": Option(0.1, low=0.01, high=1.0)})
"""
STUDY = """
name = "mine"
plugins = ["my_losses.py"]
compare = "loss"
search.loss = { choices = ["cross_entropy", "sharp"] }
search.sharpness = { when = { loss = "sharp" } }
"""


pytestmark = pytest.mark.usefixtures("our_choices")


def plugin(folder: Path, text: str = SHARP, name: str = "my_losses.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def study(folder: Path, text: str = STUDY) -> StudySpec:
    path = folder / "mine.toml"
    path.write_text(text)
    return read_study_file(str(path), "cpu")


def test_a_study_finds_the_losses_of_a_file_beside_it_with_their_ranges(tmp_path: Path):
    path = plugin(tmp_path)
    spec = study(tmp_path)
    assert (spec.search["sharpness"].low, spec.search["sharpness"].log) == (0.01, True)
    assert spec.plugins == {str(path): load.file_sha256(path)}
    assert spec.meaning["plugins"] == {"my_losses.py": load.file_sha256(path)}


def test_another_place_is_the_same_study_and_another_content_is_not(tmp_path: Path):
    (tmp_path / "moved").mkdir()
    plugin(tmp_path)
    plugin(tmp_path / "moved")
    spec = study(tmp_path)
    assert study(tmp_path / "moved").digest == spec.digest
    plugin(tmp_path, SHARP + "# changed\n")
    stored = spec.model_dump(mode="json")
    assert study(tmp_path).differences(stored) == ["plugins.my_losses.py"]


def test_a_file_that_changed_replaces_its_own_losses_alone(tmp_path: Path):
    first = dict(LOSSES)
    load.load_file(plugin(tmp_path))
    load.load_file(plugin(tmp_path, SHARP.replace('"sharp"', '"sharper"')))
    assert set(LOSSES) - set(first) == {"sharper"}
    assert all(LOSSES[name] is loss for name, loss in first.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_there", "must import, but line 1: ModuleNotFoundError"),
        ("x = 1\ny = = 2", "must import, but line 2: SyntaxError"),
        ("def f():\n    raise SystemExit(3)\nf()", "must import, but line 2: SystemExit"),
        ("x = 1", "adds nothing"),
        (SHARP.replace('"sharp"', '"squentropy"'), "loss 'squentropy' exists already"),
        (SHARP.replace("Loss(sharp, ", "dict(one="), "loss 'sharp' must be a Loss"),
        (SHARP.replace('"sharp"', '"my loss"'), "must have a name like my_loss, but got 'my loss'"),
        (SHARP.replace('"sharpness"', '"dropout"'), "must not have an option 'dropout'"),
        (
            SHARP.replace('"sharpness"', '"weight"'),
            "option 'weight', which is an argument of every",
        ),
        (
            SHARP.replace('"sharpness"', '"logits"'),
            "option 'logits', which is an argument of every",
        ),
        (SCHEDULE, "schedule 'mine' must not have an option 'peak', which is an argument of every"),
        (SHARP + "raise OSError('late')", "must import, but line 10: OSError: late"),
    ],
)
def test_a_plugin_that_cannot_be_is_refused_in_one_line_and_adds_nothing(
    tmp_path: Path, text: str, message: str
):
    before = dict(LOSSES), dict(OPTIMIZERS)
    with pytest.raises(InputError, match=message) as refused:
        load.load_file(plugin(tmp_path, text))
    assert "\n" not in str(refused.value)
    assert (dict(LOSSES), dict(OPTIMIZERS)) == before


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ('["nowhere.py"]', "nowhere.py must be a file to read"),
        ('["my_losses"]', "plugins: must name files that end in .py, but got 'my_losses'"),
        ('"my_losses.py"', "plugins: must be a list of files"),
        ("[3]", "plugins: must be a list of files"),
        ('["my_losses.py", "o/my_losses.py"]', "files of different names, but got my_losses.py"),
        ("[]", "search.sharpness: "),
    ],
)
def test_a_list_of_plugins_that_cannot_be_is_refused(tmp_path: Path, listed: str, message: str):
    (tmp_path / "o").mkdir()
    plugin(tmp_path)
    plugin(tmp_path / "o")
    with pytest.raises(InputError, match=message):
        study(tmp_path, STUDY.replace('["my_losses.py"]', listed))


def test_a_run_directory_carries_its_plugin_and_reading_it_runs_no_code(tmp_path: Path):
    source = plugin(tmp_path, "open(__file__ + '.ran', 'w').close()\n" + SHARP)
    pinned = {source.name: load.file_sha256(source)}
    config = TrainConfig(vocab_size=300, loss="sharp", plugins=pinned)
    run_dir = tmp_path / "runs" / "0"
    run_dir.mkdir(parents=True)
    beside = load.with_plugins(config, tmp_path, run_dir)
    (run_dir / "config.json").write_text(beside.model_dump_json())
    registry.forget(source.name)
    load._loaded.clear()
    source.unlink()
    Path(f"{source}.ran").unlink()
    read = read_config(run_dir / "config.json")
    assert not list(tmp_path.rglob("*.ran"))
    with_loaded_plugins(read, run_dir)
    assert [path.parent for path in tmp_path.rglob("*.ran")] == [run_dir]
    assert "sharp" in LOSSES


def test_a_run_whose_plugin_changed_or_lacks_its_loss_is_refused(tmp_path: Path):
    path = plugin(tmp_path)
    pinned = {path.name: load.file_sha256(path)}
    other = TrainConfig(vocab_size=300, loss="blunt", plugins=pinned)
    with pytest.raises(InputError, match=r"loss must be one of .*'blunt'"):
        with_loaded_plugins(other, tmp_path)
    load._loaded.clear()
    registry.forget(path.name)
    plugin(tmp_path, SHARP + "# changed\n")
    with pytest.raises(InputError, match="has changed"):
        with_loaded_plugins(other.model_copy(update={"loss": "sharp"}), tmp_path)


def test_a_weight_to_schedule_is_asked_for_once_the_plugin_is_loaded(tmp_path: Path):
    pinned = {plugin(tmp_path).name: load.file_sha256(tmp_path / "my_losses.py")}
    config = TrainConfig(vocab_size=300, loss="sharp", loss_schedule="linear", plugins=pinned)
    with pytest.raises(InputError, match=r"loss_schedule must be 'constant' .* for 'sharp'"):
        with_loaded_plugins(config, tmp_path)


def test_a_copy_of_a_plugin_that_a_kill_tore_is_made_again(tmp_path: Path):
    source = plugin(tmp_path)
    config = TrainConfig(
        vocab_size=300, loss="sharp", plugins={source.name: load.file_sha256(source)}
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / source.name).write_text(SHARP[:20])
    load.with_plugins(config, tmp_path, tmp_path / "run")
    assert (tmp_path / "run" / source.name).read_text() == SHARP


# --- an installed package ------------------------------------------------------------------------


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str = "1.2") -> None:
    """What pip leaves of a package that has a plugin."""
    (folder / "our_losses.py").write_text(text)
    facts = folder / f"our_losses-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: our-losses\nVersion: {version}\n"
    )
    (facts / "entry_points.txt").write_text("[squen_sweep.plugins]\nours = our_losses\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "our_losses", raising=False)
    load.load_installed.cache_clear()


WITHOUT_A_LIST = STUDY.replace('plugins = ["my_losses.py"]\n', "")


def test_a_study_may_name_the_losses_of_an_installed_package_which_is_pinned_by_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path, monkeypatch, SHARP)
    spec = study(tmp_path, WITHOUT_A_LIST)
    assert spec.plugins == {"ours": "1.2"}
    other = WITHOUT_A_LIST.replace('"sharp"]', '"focal"]').replace(
        'search.sharpness = { when = { loss = "sharp" } }', ""
    )
    assert study(tmp_path, other).plugins == {}
    config = TrainConfig(vocab_size=300, loss="sharp", plugins=spec.plugins)
    assert with_loaded_plugins(config, tmp_path) == config
    with pytest.raises(InputError, match=r"ours must be the version .* 1\.1, but 1\.2"):
        load.load_plugins({"ours": "1.1"}, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_there", "plugin ours must import, but ModuleNotFoundError"),
        (SHARP.replace('"sharp"', '"focal"'), "plugin ours: loss 'focal' exists already"),
    ],
)
def test_a_package_whose_plugin_cannot_be_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
):
    install(tmp_path, monkeypatch, text)
    with pytest.raises(InputError, match=message):
        study(tmp_path, WITHOUT_A_LIST)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="plugin theirs must be installed"):
        load.load_plugins({"theirs": "1.0"}, tmp_path)


# --- squen-sweep check ---------------------------------------------------------------------------

WRONG = {
    "gradient": "lambda s: s.cross_entropy * s.cross_entropy.detach()",
    "reduction": "lambda s: s.cross_entropy - s.cross_entropy.mean()",
    "ignore_index": "lambda s: s.cross_entropy - s.cross_entropy.mean()",
    "head": "lambda s: s.cross_entropy + s.sum_over_negatives(torch.square, torch.sign)",
}


def test_a_sound_loss_passes_every_test_of_losses(tmp_path: Path):
    lines: list[str] = []
    assert check_plugin(plugin(tmp_path), lines.append) == 0
    assert lines == [f"loss sharp: {what}: passed" for what in WRONG]


@pytest.mark.parametrize("what", WRONG)
def test_a_fault_in_a_loss_is_found_by_its_test(tmp_path: Path, what: str):
    text = (
        f"import torch\nfrom gpt.losses import LOSSES, Loss\nLOSSES['bad'] = Loss({WRONG[what]})\n"
    )
    lines: list[str] = []
    assert check_plugin(plugin(tmp_path, text), lines.append) >= 1
    (line,) = (line for line in lines if line.startswith(f"loss bad: {what}: "))
    assert not line.endswith("passed")
