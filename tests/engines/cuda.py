"""A stand-in for CUDA on a processor: streams, events, and the recording of graphs with what it forbids.

torch's own `torch.cuda.graph` runs on it. What it imitates is in torch's `CUDAGraph.cpp` and
`CUDACachingAllocator.cpp`, and in the notes of CUDA's runtime on capturing streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORBIDDEN = "CUDA error: operation not permitted when stream is capturing"
BROKEN = "CUDA error: operation failed due to a previous error during capture"


class Stream:
    """A stream of a device."""

    def __init__(self, device: object = None) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None:
        """Order between streams of what is not computed here."""


class Graph:
    """Takes the place of `torch.cuda.CUDAGraph`; `card` is the stand-in that it belongs to."""

    card: Cuda

    def __init__(self) -> None:
        self.pool_id: tuple[int, int] | None = None
        self.stream: Stream | None = None
        self.ended = False

    def capture_begin(
        self, pool: tuple[int, int] = (9, 9), capture_error_mode: str = "global", **_: Any
    ) -> None:
        card = self.card
        assert card.current is not card.default, "CUDA graphs must be captured on a non-default stream"
        card.underway.add(pool)
        card.capturing, card.broken = self, False
        card.modes.append(capture_error_mode)
        self.pool_id, self.stream = pool, card.current

    def capture_end(self) -> None:
        card = self.card
        assert card.current is self.stream, "Capture must end on the same stream it began on."
        card.capturing = None
        if card.broken:
            raise RuntimeError(BROKEN)
        assert self.pool_id is not None
        card.underway.discard(self.pool_id)
        self.ended = True

    def pool(self) -> tuple[int, int]:
        if not self.ended:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        assert self.pool_id is not None
        return self.pool_id

    def replay(self) -> None:
        self.card.replays += 1


class Cuda:
    """The state of the stand-in. Tensors stay where they are, in main memory.

    `current` is the calling thread's stream, `device` its device. `underway` are the pools of memory that the
    allocator takes for being recorded into, `released` those that it was told to free.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default = self.current = Stream("default")
        self.device: object = "cuda:0"
        self.capturing: Graph | None = None
        self.broken = False
        self.underway: set[tuple[int, int]] = set()
        self.released: list[tuple[int, int]] = []
        self.modes: list[str] = []
        self.streams: list[Stream] = []
        self.replays = self.pools = 0
        graph = type("GraphHere", (Graph,), {"card": self})
        places: dict[str, Any] = {
            "CUDAGraph": graph,
            "Stream": self.new_stream,
            "current_stream": lambda device=None: self.current,
            "set_stream": self.set_stream,
            "stream": self.in_stream,
            "device": self.on_device,
            "graph_pool_handle": self.new_pool,
            "synchronize": lambda device=None: None,
            "empty_cache": self.empty_cache,
        }
        for name, place in places.items():
            monkeypatch.setattr(torch.cuda, name, place)
        for name, place in {
            "_host_emptyCache": lambda: None,
            "_cuda_endAllocateToPool": lambda index, pool: self.underway.remove(pool),
            "_cuda_releasePool": lambda index, pool: self.released.append(pool),
        }.items():
            monkeypatch.setattr(torch._C, name, place, raising=False)

    def new_stream(self, device: object = None) -> Stream:
        self.streams.append(Stream(device))
        return self.streams[-1]

    def set_stream(self, stream: Stream) -> None:
        self.current = stream

    def new_pool(self) -> tuple[int, int]:
        self.pools += 1
        return (0, self.pools)

    @contextmanager
    def in_stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def on_device(self, device: object) -> Iterator[None]:
        before, self.device = self.device, device
        try:
            yield
        finally:
            self.device = before

    def empty_cache(self) -> None:
        assert not self.underway, "captures_underway.empty() INTERNAL ASSERT FAILED"

    def query_event(self) -> None:
        """What a library does that waits for an event; a recording does not survive it."""
        if self.capturing is not None:
            self.broken = True
            raise RuntimeError(FORBIDDEN)


class NoUnsigned(TorchDispatchMode):
    """Operations that CUDA lacks for unsigned numbers of 16 bits fail here too: all that do not only copy."""

    COPIES = (
        "_to_copy",
        "copy_",
        "clone",
        "empty",
        "view",
        "permute",
        "slice",
        "expand",
        "unsqueeze",
        "select",
    )
    COPIES += ("as_strided", "alias", "detach", "empty_like", "empty_strided", "new_empty", "t", "unflatten")

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        flat = [one for arg in given for one in (arg if isinstance(arg, list | tuple) else [arg])]
        wide = [one for one in flat if one is torch.uint16 or getattr(one, "dtype", None) is torch.uint16]
        name = function._schema.name.removeprefix("aten::")
        if wide and name not in self.COPIES:
            raise NotImplementedError(f"\"{name}_cuda\" not implemented for 'UInt16'")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """The stand-in, in the place of `torch.cuda`."""
    return Cuda(monkeypatch)
