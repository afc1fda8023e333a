"""Fixtures that several test files share: real data, and a token cache of one's own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings

# No test depends on the clock: a busy machine takes longer than hypothesis' 200 ms for one example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_configure() -> None:
    """Have the trainings that tests start take faults."""
    from faults import prepare

    prepare()


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
    """Run torch in one thread, and tests marked gpu only where it sees a CUDA device."""
    import torch

    torch.set_num_threads(1)  # pytest -n has a process per core; two threads each wait for another
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """A headless Chromium."""
    from browsers import chromium, open_browser

    if chromium() is None:
        without("no Chromium is installed; for the browser tests: apt-get install chromium")
    with open_browser() as opened:
        yield opened


def without(what: str) -> NoReturn:
    """Skip a test for want of something; fail where all must run, as `.ci/run all` wants it."""
    say = pytest.fail if "SQUEN_TEST_ALL" in os.environ else pytest.skip
    say(what)
