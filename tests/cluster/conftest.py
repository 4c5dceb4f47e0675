"""A cluster of two cores on this machine, for all tests of a file."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """Ray on this machine. `connected` uses a connection that is there."""
    ray = pytest.importorskip("ray")
    heard = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    signal.signal(signal.SIGTERM, heard)
    yield
    ray.shutdown()
