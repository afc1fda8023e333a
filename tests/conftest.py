"""Fixtures that several test files share: real data, and a token cache of one's own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings

# No test depends on the clock: a busy machine takes longer than hypothesis' 200 ms for one example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Files that take longest, the longest first: xdist hands them out in this order, so that no core is
# idle at the end. Those of process/ and browser/ that are not here follow, and unit/ is the rest.
LONGEST = (
    "test_ray.py",
    "test_chaos.py",
    "test_slurm.py",
    "test_in_users_hands.py",
    "test_faults.py",
    "test_tuner.py",
    "test_faults_around.py",
    "test_verdict.py",
    "test_notebooks.py",
    "test_examples.py",
    "test_postgresql.py",
    "test_cli.py",
    "test_report_in_a_browser.py",
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from postgresql import Server
    from ray_cluster import RayCluster
    from slurm import Cluster


def pytest_configure(config: pytest.Config) -> None:
    """Have the trainings that tests start take faults, and databases open in a few milliseconds."""
    from faults import prepare
    from migrations import read_once

    prepare()
    read_once()
    config.option.loadscopereorder = False  # else xdist begins with the files of most tests


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real stories beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        without(f"the folder ../shared/data with real stories is not there ({folder})")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty token cache that only this test sees."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SQUEN_SWEEP_CACHE", str(folder))
    return folder


def choices_kept() -> Iterator[None]:
    """Forget the plugins that are loaded meanwhile."""
    from gpt.plugins import load, registry

    before, owners, loaded = registry.known_choices(), dict(registry._owners), dict(load._loaded)
    yield
    load.load_installed.cache_clear()
    registry.restore(before)
    for now, then in ((registry._owners, owners), (load._loaded, loaded)):
        now.clear()
        now.update(then)


@pytest.fixture
def our_choices() -> Iterator[None]:
    """Leave no plugin's losses to the next test."""
    yield from choices_kept()


@pytest.fixture(scope="module", autouse=True)
def our_choices_in_each_file() -> Iterator[None]:
    """Leave none to the next file either, whatever a fixture of this one has loaded."""
    yield from choices_kept()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused, by a proxy that is not there."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.fixture
def gpt2_cache(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TIKTOKEN_CACHE_DIR with GPT-2's two files, under the names that tiktoken gives them."""
    folder = tmp_path / "tiktoken"
    folder.mkdir()
    for name, key in (
        ("vocab.bpe", "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"),
        ("encoder.json", "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"),
    ):
        (folder / key).write_bytes((shared_data / "gpt2" / name).read_bytes())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files, run torch in one thread, and tests marked gpu only where it sees a CUDA device.

    In CI a test of processes or of a browser that fails is run once more, and listed at the end: a
    machine that stood still for a while costs no whole run.
    """
    import torch

    items.sort(key=lambda item: _place(item.path))
    if "CI" in os.environ:
        for item in items:
            if item.path.parent.name != "unit":
                item.add_marker(pytest.mark.flaky(reruns=1))

    torch.set_num_threads(1)  # pytest -n has a process per core; two threads each wait for another
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


def _place(path: Path) -> int:
    if path.name in LONGEST:
        return LONGEST.index(path.name)
    return len(LONGEST) + (path.parent.name == "unit")


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """A headless Chromium."""
    from browsers import chromium, open_browser

    if chromium() is None:
        without("no Chromium is installed; for the browser tests: apt-get install chromium")
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def postgresql() -> Iterator["Server"]:
    """A PostgreSQL server of its own, in a folder that its own user can reach."""
    from postgresql import binary, server_in

    if binary("initdb") is None:
        without("no PostgreSQL server is installed; for its tests: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))
    with server_in(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator["RayCluster"]:
    """A Ray cluster of a head and two nodes."""
    from ray_cluster import ray_cluster_in

    with ray_cluster_in(tmp_path_factory.mktemp("ray")) as made:
        yield made


@pytest.fixture(scope="module")
def cluster() -> Iterator["Cluster"]:
    """A SLURM cluster of two nodes."""
    from slurm import PROGRAMS, cluster_in, find_program

    if os.geteuid() or not all(map(find_program, PROGRAMS)):
        without("no SLURM that root may start; for its tests: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets have short paths
    with cluster_in(folder) as made:
        yield made
    shutil.rmtree(folder)


def without(what: str) -> NoReturn:
    """Skip a test for want of something; fail where all must run, as `.ci/run all` wants it."""
    say = pytest.fail if "SQUEN_TEST_ALL" in os.environ else pytest.skip
    say(what)
