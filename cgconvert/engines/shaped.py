"""Engines that are built for one shape at a time: what the compile and the TensorRT engine share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cgconvert.engines.base import Engine
from cgconvert.engines.batches import is_out_of_memory
from cgconvert.engines.building import build_apart
from cgconvert.engines.cache import get_or_build
from cgconvert.engines.eager import exact_float32
from cgconvert.engines.fuse import operate
from cgconvert.engines.graphs import record_graph
from cgconvert.engines.keys import engine_parts
from cgconvert.errors import CgconvertError, UnavailableError, first_line
from cgconvert.host.interrupts import Breakable
from cgconvert.models.loading import Model
from cgconvert.progress import Progress, Silent
from cgconvert.tensors.dtypes import DTYPES

MOST_SIZES = 4
"""Sizes that are built for: each takes up to minutes, which a folder of all sizes would never pay back."""

Runner = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int]
"""Batch, height, width."""


class HalfInside(nn.Module):
    """Float32 images in and out of a network that computes in another type, converted in the same graph."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.dtype)).float()


class ShapedEngine(Engine):
    """Built for the first few sizes that it meets; pictures of others go through layer by layer.

    On CUDA what is built is recorded as a CUDA graph. A kind says how to build into a folder and how to
    load from it; results are kept in the cache.
    """

    builds: ClassVar[bool] = True

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        super().__init__(model, device, precision)
        self.runners: dict[Shape, Runner] = {}
        self.refused: set[tuple[int, int]] = set()
        self.graphs = 0
        self.why_no_graph: str | None = None
        network = operate(model.generator).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: nn.Module | None = HalfInside(network, DTYPES[precision]).eval().requires_grad_(False)

    @abstractmethod
    def write(self, folder: Path, shape: Sequence[int]) -> None:
        """Build for inputs like `example(shape)` and write it into a folder; in a process of its own."""

    @abstractmethod
    def _load(self, folder: Path) -> Runner:
        """What `write` has written, ready to run."""

    def _build(self, folder: Path, shape: Shape) -> None:
        """Have the engine for a shape written."""
        build_apart(self, folder, shape=shape)

    def example(self, shape: Sequence[int]) -> Tensor:
        """Images of a shape (batch, height, width), as what is built takes them: float32, channels_last."""
        count, height, width = shape
        images = torch.zeros(count, self.model.card.network_channels, height, width, device=self.device)
        return images.contiguous(memory_format=torch.channels_last)

    def _parts(self) -> dict[str, Any]:
        """What belongs to the cache key besides model, device, precision, shape and torch."""
        return {}

    @property
    def full(self) -> bool:
        return len(self.runners) >= MOST_SIZES

    def prepare(self, height: int, width: int, batch: int, progress: Progress | None = None) -> None:
        """Build for this size, or load what was built before; seconds to minutes. Nothing once `full`.

        Raises `UnavailableError` if it cannot be built here, and as torch does where memory is short.
        """
        shape = self._shape(height, width, batch)
        if not (shape in self.runners or (height, width) in self.refused or self.full):
            self.runners[shape] = self._runner(shape, progress or Silent())

    def built_for(self, height: int, width: int) -> bool:
        return bool(self._ready(height, width))

    def forget(self, height: int, width: int, above: int = 0) -> None:
        self._wait()
        for shape in [(n, h, w) for n, h, w in self.runners if (h, w) == (height, width) and n > above]:
            del self.runners[shape]

    def refuse(self, height: int, width: int) -> None:
        self.refused.add((height, width))
        super().refuse(height, width)

    def __call__(self, images: Tensor) -> Tensor:
        assert self.network is not None, "the engine is closed"
        count, _, height, width = images.shape
        if not self._ready(height, width):
            self.prepare(height, width, count)
        ready = self._ready(height, width)
        if not ready:
            return self.layer_by_layer(images)
        with torch.inference_mode(), exact_float32(self.device):
            return self._in_parts(images.contiguous(memory_format=torch.channels_last), max(ready))

    def layer_by_layer(self, images: Tensor) -> Tensor:
        assert self.network is not None, "the engine is closed"
        with Breakable(), torch.inference_mode(), exact_float32(self.device):
            return self.network(images.contiguous(memory_format=torch.channels_last))

    def _ready(self, height: int, width: int) -> list[int]:
        """The batches that are built for a size."""
        return [n for n, h, w in self.runners if (h, w) == (height, width)]

    def _in_parts(self, images: Tensor, size: int) -> Tensor:
        """Batches of exactly `size`, the last one filled up with its own last picture."""
        run = self.runners[size, images.shape[2], images.shape[3]]
        if len(images) == size:
            return run(images)
        results = []
        for part in images.split(size):
            missing = size - len(part)
            if missing:
                part = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)])
            results.append(run(part.contiguous(memory_format=torch.channels_last))[: size - missing])
        return torch.cat(results)

    def _shape(self, height: int, width: int, batch: int) -> Shape:
        """What is built. On a CPU single pictures: a batch is no faster there, and any count is served."""
        return (batch if self.device.type == "cuda" else 1), height, width

    def _runner(self, shape: Shape, progress: Progress) -> Runner:
        count, height, width = shape
        about = f"{self.model.card.name}, {self.precision}, {width}x{height}, batch {count}"
        more = {"shape": list(shape), **self._parts()}
        parts = engine_parts(self.model, self.name, self.device, self.precision, **more)
        try:
            run = get_or_build(
                parts, lambda folder: self._build(folder, shape), self._load, about, progress.note
            )
            return self._recorded(run, shape, progress) if self.device.type == "cuda" else run
        except CgconvertError:
            raise
        except Exception as error:  # the compilers below fail in many ways
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise UnavailableError(
                f"{self.name} cannot build the network for {width}x{height} here ({first_line(error, 200)}): "
                'use `engine="eager"`'
            ) from error

    def _recorded(self, run: Runner, shape: Shape, progress: Progress) -> Runner:
        """What was built as a CUDA graph, or as it is where it cannot be recorded.

        A graph saves launches, which matters for small pictures only. Raises as `run` does by itself, and
        where memory is short.
        """
        example = self.example(shape)
        with torch.inference_mode(), exact_float32(self.device):
            run(example)
            try:
                recorded = record_graph(run, example)
            except Exception as error:  # whatever a driver or a library objects to
                if is_out_of_memory(error):
                    raise
                self.why_no_graph = first_line(error.__context__ or error, 200)
                progress.note(f"{self.name} runs without a CUDA graph: {self.why_no_graph}")
                return run
        self.graphs += 1
        return recorded

    def describe(self) -> dict[str, Any]:
        told = super().describe()
        told["built_for"] = [f"{n}x{w}x{h}" for n, h, w in self.runners]
        if self.graphs:
            told["cuda_graphs"] = self.graphs
        if self.why_no_graph is not None:
            told["without_graph"] = self.why_no_graph
        return told

    def close(self) -> None:
        with suppress(RuntimeError):  # a card that is lost runs nothing, and a job goes on with the others
            self._wait()
        self.network = None
        self.runners = {}

    def _wait(self) -> None:
        """Until nothing runs any more of what is about to be dropped, code and weights included."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
