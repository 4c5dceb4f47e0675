"""What is built for one shape: on which device it is recorded, and by what it is found again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from cgconvert.engines.cache import digest
from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.graphs import record_graph
from cgconvert.engines.keys import engine_parts
from tests.engines.models import make_model

CPU = torch.device("cpu")


class FakeCuda:
    """Takes the place of what `record_graph` uses of `torch.cuda`; says which device was the current one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current, self.events = "cuda:0", list[str]()
        for name in ("device", "stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        for name in ("Stream", "CUDAGraph", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda *given: self)

    def wait_stream(self, other: Any) -> None:
        """As a stream."""

    def replay(self) -> None:
        """As a graph."""
        self.events.append("replay")

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, "that of the example"
        yield
        self.current = before

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.events.append(f"record on {self.current}")
        yield


def test_a_graph_is_recorded_on_the_device_of_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda(monkeypatch)
    runs = []

    def run(images: Tensor) -> Tensor:
        runs.append(fake.current)
        return images + 1

    replay = record_graph(run, torch.zeros(1, 3, 4, 4))
    assert fake.events == ["record on that of the example"]
    assert runs == ["that of the example"] * 4
    assert fake.current == "cuda:0", "the current device is again what it was"
    replay(torch.zeros(1, 3, 4, 4))
    assert fake.events[1:] == ["replay"]


def test_a_library_for_other_threads_is_another_one() -> None:
    """A library on a CPU holds the number of threads that it was built for."""
    model, threads = make_model(), torch.get_num_threads()
    engine = CompileEngine(model, CPU, "fp32")

    def name() -> str:
        return digest(engine_parts(model, "compile", CPU, "fp32", **engine._parts()))

    try:
        before = name()
        torch.set_num_threads(threads + 1)
        assert engine._parts() == {"threads": threads + 1}
        assert name() != before
        torch.set_num_threads(threads)
        assert name() == before
    finally:
        torch.set_num_threads(threads)
    engine.device = torch.device("cuda")
    assert engine._parts() == {}
