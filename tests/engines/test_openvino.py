"""OpenVINO's engine: what holds for its runtime alone."""

from __future__ import annotations

import gc
from typing import Any

from cgconvert.engines.openvino import OpenVINOEngine

PARTS = ("queue", "single", "network")


def test_a_forgotten_engine_lets_its_requests_go_before_their_network() -> None:
    """Requests that outlive their network can end the process; a collection keeps no order by itself."""
    gone: list[str] = []
    engine: Any = object.__new__(OpenVINOEngine)
    for part in reversed(PARTS):
        # Without slots the collector sees no cycle in it, as in an object of the runtime.
        native = type(part, (), {"__slots__": (), "__del__": lambda self: gone.append(type(self).__name__)})
        setattr(engine, part, native())
    engine.itself = engine
    del engine
    gc.collect()
    assert tuple(gone) == PARTS
