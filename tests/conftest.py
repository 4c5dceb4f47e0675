"""What every test gets: its own user folder, so that no test sees or changes the user's models."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import cgconvert  # noqa: F401 - before any test imports OpenVINO, whose telemetry it switches off

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background, where Ctrl-C is ignored; programs that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Extra material beside the checkout; tests that use it skip where it is absent."""


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CGCONVERT_HOME at an empty folder of this test's own."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CGCONVERT_HOME", str(home))
    return home


@pytest.fixture
def exact_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tile="auto"` takes the exact way however long it takes: a busy machine would choose by luck."""
    monkeypatch.setattr("cgconvert.engines.tiles.tiling.FAST_FROM", float("inf"))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """What a command that runs in this process does to SIGTERM is undone, whatever the order of tests."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def shared() -> Path:
    """The folder of extra material, or a skip."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared folder here")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip CUDA tests without a GPU, unless CGCONVERT_REQUIRE_CUDA=1 turns the skip into a failure."""
    marked = [item for item in items if item.get_closest_marker("needs_cuda")]
    if not marked or os.environ.get("CGCONVERT_REQUIRE_CUDA") == "1":
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
