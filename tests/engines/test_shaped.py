"""What is built for one shape: how it is recorded on a card, and by what it is found again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cgconvert.engines.cache import digest
from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.eager import exact_float32
from cgconvert.engines.graphs import WARM_UPS, record_graph
from cgconvert.engines.keys import engine_parts
from tests.engines.cuda import FORBIDDEN, Cuda, cuda
from tests.engines.models import make_model

__all__ = ["cuda"]
CPU = torch.device("cpu")
IMAGES = torch.zeros(1, 3, 4, 4)


class Library:
    """A loaded library, as AOTInductor loads it: unless it is told to be used by one thread, it asks at every
    call for the event of the call before."""

    def __init__(self, card: Cuda, run_single_threaded: bool) -> None:
        self.card, self.single = card, run_single_threaded
        self.devices: list[object] = []

    def __call__(self, images: Tensor) -> Tensor:
        if not self.single:
            self.card.query_event()
        self.devices.append(self.card.device)
        return images + 1


def test_a_graph_is_recorded_on_the_device_of_its_input_in_a_stream_of_its_own(cuda: Cuda) -> None:
    library = Library(cuda, True)
    recorded = record_graph(library, IMAGES)
    assert library.devices == [IMAGES.device] * (WARM_UPS + 1)
    assert (cuda.device, cuda.current) == ("cuda:0", cuda.default), "both are again what they were"
    assert [stream.device for stream in cuda.streams] == [IMAGES.device]
    assert cuda.modes == ["thread_local"], "other threads decode and encode on the device meanwhile"
    result = recorded(torch.full((1, 3, 4, 4), 5.0))
    assert cuda.replays == 1 and recorded.fixed_inputs[0].unique().tolist() == [5.0]
    assert torch.equal(result, recorded.fixed_output) and result is not recorded.fixed_output
    assert not cuda.underway and not cuda.released


def test_what_was_recorded_lives_as_long_as_its_graph(cuda: Cuda) -> None:
    """The graph calls its code and reads its weights; it ends with the library's memory, not before."""
    library = Library(cuda, True)
    alive = weakref.ref(library)
    recorded = record_graph(library, IMAGES)
    del library
    gc.collect()
    assert alive() is not None
    del recorded
    gc.collect()
    assert alive() is None


def test_a_library_is_loaded_so_that_it_can_be_recorded(
    cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def load(path: str, run_single_threaded: bool = False, device_index: int = -1) -> Library:
        given.append((path, device_index))
        return Library(cuda, run_single_threaded)

    monkeypatch.setattr("torch._inductor.aoti_load_package", load)
    engine = CompileEngine(make_model("tiny"), CPU, "fp32")
    engine.device = torch.device("cuda", 1)
    assert record_graph(engine._load(tmp_path), IMAGES)(IMAGES).shape == IMAGES.shape
    assert given == [(str(tmp_path / "network.pt2"), 1)]


def failing(cuda: Cuda, fail: Callable[[], None]) -> Callable[[Tensor], Tensor]:
    """A library that runs, and cannot be recorded."""

    def run(images: Tensor) -> Tensor:
        if cuda.capturing is not None:
            fail()
        return images

    return run


def test_a_recording_that_fails_leaves_nothing_behind(cuda: Cuda) -> None:
    """torch leaves the thread in the recorded stream then, and its allocator in the recording."""
    with pytest.raises(RuntimeError, match="previous error during capture") as caught:
        record_graph(failing(cuda, cuda.query_event), IMAGES)
    assert str(caught.value.__context__) == FORBIDDEN
    assert cuda.current is cuda.default and cuda.device == "cuda:0"
    torch.cuda.empty_cache()
    assert cuda.released == [(0, 1)]
    record_graph(Library(cuda, True), IMAGES)
    assert cuda.released == [(0, 1)] and not cuda.underway


def test_memory_that_runs_short_while_recording_is_given_back_once(cuda: Cuda) -> None:
    """CUDA ends such a recording well, and the graph gives its pool back itself."""

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        record_graph(failing(cuda, fail), IMAGES)
    assert cuda.current is cuda.default
    assert cuda.released == [] and not cuda.underway


def on_a_card(model: str = "tiny") -> CompileEngine:
    """An engine that takes itself for one on a card; its network is in main memory."""
    engine = CompileEngine(make_model(model), CPU, "fp32")
    engine.device = torch.device("cuda", 0)
    engine.example = lambda shape: torch.zeros(shape[0], 3, *shape[1:])  # type: ignore[method-assign]
    return engine


def test_what_cannot_be_recorded_runs_without_a_graph(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, library = on_a_card(), failing(cuda, cuda.query_event)
    monkeypatch.setattr("cgconvert.engines.shaped.get_or_build", lambda *given: library)
    monkeypatch.setattr("cgconvert.engines.shaped.engine_parts", lambda *given, **more: {})
    engine.prepare(16, 24, 2)
    told = engine.describe()
    assert told["without_graph"] == FORBIDDEN and "cuda_graphs" not in told
    images = torch.rand(2, 3, 16, 24)
    assert torch.equal(engine(images), images) and cuda.replays == 0
    monkeypatch.setattr("cgconvert.engines.shaped.get_or_build", lambda *given: Library(cuda, True))
    engine.prepare(24, 24, 2)
    assert engine.describe()["cuda_graphs"] == 1


def test_memory_that_is_short_for_a_graph_is_short(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is halved then, rather than run beside what is left of the memory."""

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = on_a_card()
    monkeypatch.setattr("cgconvert.engines.shaped.get_or_build", lambda *given: failing(cuda, fail))
    monkeypatch.setattr("cgconvert.engines.shaped.engine_parts", lambda *given, **more: {})
    with pytest.raises(torch.OutOfMemoryError):
        engine.prepare(16, 24, 2)
    assert engine.runners == {} and cuda.current is cuda.default


def test_nothing_is_dropped_while_it_runs(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph may have been launched before memory ran short behind it."""
    engine = on_a_card()
    engine.runners[2, 16, 24] = record_graph(Library(cuda, True), IMAGES)
    kept: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: kept.append(len(engine.runners)))
    engine.forget(16, 24, above=1)
    assert kept == [1] and engine.runners == {}
    engine.close()
    assert kept == [1, 0]


def test_a_card_that_is_lost_can_still_be_closed(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or a video goes on with the other cards then."""
    engine = on_a_card()
    engine.runners[2, 16, 24] = record_graph(Library(cuda, True), IMAGES)

    def lost(device: torch.device) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    engine.close()
    assert engine.runners == {} and engine.network is None


def test_cudnn_settings_hold_until_the_last_thread_is_done() -> None:
    """Several cards are used by a thread each, and the settings are those of the process."""
    device, cudnn = torch.device("cuda", 0), torch.backends.cudnn
    before = (cudnn.allow_tf32, cudnn.deterministic)
    first, second = exact_float32(device), exact_float32(device)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (cudnn.allow_tf32, cudnn.deterministic) == (False, True)
    second.__exit__(None, None, None)
    assert (cudnn.allow_tf32, cudnn.deterministic) == before


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
    engine.device = torch.device("cuda", 0)
    assert engine._parts() == {"ahead": True}
