"""Fixtures that several test files share: real data, and a token cache of one's own."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data of the developers' machine; a test that needs it is skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty token cache that only this test sees."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SQUEN_SWEEP_CACHE", str(folder))
    return folder
