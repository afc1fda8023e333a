"""What a stranger's file, name or folder must not be able to do."""

import json
import os
import pickle
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_studies import StoredStudy
from tiny_runs import tiny_config, write_run, write_stories

from gpt import checkpoint
from gpt.config import TrainConfig, read_config, train_config
from gpt.errors import DataError, InputError
from gpt.sample import sample
from gpt.system.files import atomic_write_text, sha256_of
from gpt.train import train_directory
from sweep.cli import main
from sweep.report.report import write_report
from sweep.study.spec import StudySpec
from sweep.study.toml_file import read_study_file, renamed, shipped_files

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that is done."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUEN_SWEEP_CACHE", str(folder / "cache"))
        run_dir = write_run(folder / "run", tiny_config(write_stories(folder / "text")))
        list(train_directory(run_dir))
    return run_dir


@pytest.fixture
def trained(tmp_path: Path, trained_once: Path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(trained_once, tmp_path / "run")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """As a stranger does who knows how."""
    del manifest["own_sha256"]
    manifest["own_sha256"] = checkpoint._own_sha256(manifest)
    (folder / "state.json").write_text(json.dumps(manifest))


# --- checkpoints of strangers ----------------------------------------------------------------


@pytest.mark.parametrize(
    "write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))]
)
@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_a_checkpoint_from_a_stranger_cannot_run_code(
    trained: Path, tmp_path: Path, write: Any, file: str
):
    exploded = tmp_path / "exploded"
    (folder,) = (trained / "checkpoints").iterdir()
    write(Bomb(exploded), folder / file)
    if file != "state.json":  # its SHA-256 is no protection: the stranger writes it as well
        manifest = json.loads((folder / "state.json").read_text())
        manifest["sha256"][file] = sha256_of(folder / file)
        write_manifest(folder, manifest)
    with pytest.raises(DataError, match="must hold an intact checkpoint"):
        sample(trained, "Tom", 4, 0.0, None, 0, 1)
    assert not exploded.exists()
    pickle.loads(pickle.dumps(Bomb(exploded)))
    assert exploded.exists()  # the bomb was a real one


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_a_checkpoint_with_a_link_out_of_its_folder_is_not_read(
    trained: Path, tmp_path: Path, file: str
):
    (folder,) = (trained / "checkpoints").iterdir()
    (folder / file).rename(tmp_path / file)
    (folder / file).symlink_to(tmp_path / file)
    with pytest.raises(DataError, match=f"{file} must not be a link"):
        checkpoint.load(trained)


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "other.safetensors"])
def test_a_checkpoint_names_no_file_but_its_own(trained: Path, name: str):
    (folder,) = (trained / "checkpoints").iterdir()
    manifest = json.loads((folder / "state.json").read_text())
    manifest["sha256"][name] = ""
    write_manifest(folder, manifest)
    with pytest.raises(DataError, match="must have the SHA-256 of"):
        checkpoint.load(trained)


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"sha256": []}', '{"sha256": {"a": 1}}'])
def test_a_state_of_any_json_is_a_damaged_checkpoint(trained: Path, content: str):
    (folder,) = (trained / "checkpoints").iterdir()
    (folder / "state.json").write_text(content)
    with pytest.raises(DataError, match="must hold an intact checkpoint"):
        checkpoint.load(trained)


# --- links -----------------------------------------------------------------------------------


def test_a_file_is_written_in_place_of_a_link_not_through_it(tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    link = tmp_path / "out" / "best.toml"
    link.symlink_to(tmp_path / "precious")
    atomic_write_text(link, "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (link.read_text(), link.is_symlink()) == ("new", False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["best.toml"]


def test_what_is_no_ordinary_file_is_never_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null"), Path("/dev/stdout")):
        kind = path.lstat().st_mode
        with pytest.raises(OSError, match="no regular file"):
            atomic_write_text(path, "new")
        assert path.lstat().st_mode == kind


def test_a_file_is_written_whole_and_takes_away_what_a_killed_writer_left(tmp_path: Path):
    for writer in (2**30, os.getppid()):  # above any pid, and one that lives
        (tmp_path / f".best.toml.{writer}").write_text("half a")
    atomic_write_text(tmp_path / "best.toml", "new")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"best.toml", f".best.toml.{os.getppid()}"}


def test_a_report_is_written_in_place_of_a_link_not_through_it(tmp_path: Path):
    stored = StoredStudy(tmp_path)
    stored.add("cross_entropy", [60.0, 50.0])
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "report.html").symlink_to(tmp_path / "precious")
    write_report(stored.storage, stored.study, tmp_path / "report.html")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "report.html").is_symlink()


def test_a_configuration_that_is_a_link_is_not_read(trained: Path, tmp_path: Path):
    (trained / "config.json").rename(tmp_path / "elsewhere.json")
    (trained / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match=r"config\.json must be a file, but it is a link"):
        read_config(trained / "config.json")


# --- random names, files and parameters ------------------------------------------------------


def refusal(call: Callable[[], object]) -> str | None:
    """The line with which something is refused."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


@cache
def some_study() -> StudySpec:
    return read_study_file("tinystories", "cpu")


@settings(deadline=None)
@given(name=st.text(max_size=80) | st.from_regex(NAME))
def test_a_name_is_plain_or_refused_in_one_line(name: str):
    line = refusal(lambda: renamed(some_study(), name))
    assert (line is None) == bool(NAME.fullmatch(name))
    assert line is None or len(line.splitlines()) == 1


@settings(deadline=None)
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_as_a_study_file_are_refused_in_one_line_with_exit_code_2(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
):
    folder = tmp_path_factory.mktemp("any")
    path = folder / "any.toml"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["squen-sweep", "run", "--study", "any.toml", "--quiet"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2
    assert list(folder.iterdir()) == [path]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=10),
    st.lists(st.integers(), max_size=3),
)


@given(
    values=st.dictionaries(
        st.sampled_from(list(TrainConfig.model_fields)) | st.text(max_size=8), VALUES, max_size=6
    )
)
def test_any_parameters_are_a_run_or_one_line(values: dict[str, Any]):
    values = {"vocab_size": 280} | values
    line = refusal(lambda: train_config(values))
    if line is None:
        config = train_config(values)
        assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    else:
        assert len(line.splitlines()) == 1


def test_nothing_of_ours_loads_a_pickle():
    root = Path(__file__).parents[2]
    loading = re.compile(r"pickle\.loads?\(|torch\.load\(|joblib|allow_pickle=True")
    for path in [*(root / "gpt").rglob("*.py"), *(root / "sweep").rglob("*.py")]:
        assert not loading.search(path.read_text()), path


def test_nothing_is_decided_by_a_clock_that_can_be_set():
    root = Path(__file__).parents[2]
    telling = {
        "gpt/events.py",
        "sweep/export/evidence/pack.py",
        "sweep/report/report.py",
    }  # a time for people to read
    # a file that changed has another time, whichever
    telling |= {"gpt/data/files.py", "sweep/backends/ray_files.py"}
    for path in [*(root / "gpt").rglob("*.py"), *(root / "sweep").rglob("*.py")]:
        reads = re.search(r"time\.time\(|datetime\.now\(|st_mtime", path.read_text())
        assert not reads or str(path.relative_to(root)) in telling, path


def test_shipped_studies_have_names_that_are_plain():
    for path in shipped_files().values():
        assert NAME.fullmatch(tomllib.loads(path.read_text())["name"])
