"""Engines that are built for one shape at a time: what the compile and the TensorRT engine share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.export import Dim

from cgconvert.engines.base import Engine
from cgconvert.engines.batches import LIMIT, is_out_of_memory
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

MOST_SIZES = 2
"""Sizes that are built for one by one, such as a folder's upright and its lying pictures. Each takes up to
minutes. For all further sizes together one thing more is built, which is not quite as fast."""

Runner = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int]
"""Batch, height, width."""

LONGEST = 1 << 16
"""Pixels: the longest side that what is built for any size is told of."""

LEAST_VARIED = 2
"""Of a dimension whose size is left open, in its own steps: what is traced with one is for one alone."""


class HalfInside(nn.Module):
    """Float32 images in and out of a network that computes in another type, converted in the same graph."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.dtype)).float()


class ShapedEngine(Engine):
    """Built for the first few sizes that it meets, each by itself, and then once for all other sizes.

    On CUDA what is built for a size is recorded as a CUDA graph. A kind says how to build into a folder and
    how to load from it; results are kept in the cache. Where it cannot be built for all sizes, pictures of
    further ones go through layer by layer.
    """

    builds: ClassVar[bool] = True

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        super().__init__(model, device, precision)
        self.runners: dict[Shape, Runner] = {}
        self.refused: set[tuple[int, int]] = set()
        self.any_size: Runner | None = None
        self.why_no_any_size: str | None = None
        self.graphs = 0
        self.why_no_graph: str | None = None
        network = operate(model.generator).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: nn.Module | None = HalfInside(network, DTYPES[precision]).eval().requires_grad_(False)

    @abstractmethod
    def write(self, folder: Path, shape: Sequence[int], any_size: bool = False) -> None:
        """Build for inputs like `example(shape)` and write it into a folder; in a process of its own.

        With `any_size` for all batches and all sizes that the card allows, of which that shape is an example.
        """

    @abstractmethod
    def _load(self, folder: Path) -> Runner:
        """What `write` has written, ready to run."""

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
        return len({(height, width) for _, height, width in self.runners}) >= MOST_SIZES

    @property
    def takes_any_size(self) -> bool:
        return self.any_size is not None

    def prepare(self, height: int, width: int, batch: int, progress: Progress | None = None) -> None:
        """Build for this size, or load what was built before; seconds to minutes. Once `full`, for any size.

        Raises `UnavailableError` if it cannot be built for this size here, and as torch does where memory is
        short. What cannot be built for any size is given up, and `describe` says why.
        """
        shape = self._shape(height, width, batch)
        if shape in self.runners or (height, width) in self.refused:
            return
        if not self.full or self._ready(height, width):
            self.runners[shape] = self._runner(shape, progress or Silent())
        elif self.any_size is None and self.why_no_any_size is None:
            self._prepare_any_size(shape, progress or Silent())

    def _prepare_any_size(self, shape: Shape, progress: Progress) -> None:
        """Build for all sizes, of which this shape is an example, or say why it does not go."""
        count, height, width = shape
        multiple = self.model.card.size_multiple
        # Equal sides would be taken for one number, and a size of one step for a size that never varies.
        height = max(height, LEAST_VARIED * multiple)
        width = max(width, LEAST_VARIED * multiple)
        width += multiple if width == height else 0
        try:
            self.any_size = self._runner((max(count, LEAST_VARIED), height, width), progress, any_size=True)
        except (UnavailableError, torch.OutOfMemoryError) as error:
            self.refuse_any_size(first_line(error, 200))
            progress.note(f"{self.name} is not built for any size: {self.why_no_any_size}")

    def refuse_any_size(self, why: str) -> None:
        self._wait()
        self.any_size, self.why_no_any_size = None, why

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
        if not ready and not self._any_size_takes(height, width):
            return self.layer_by_layer(images)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), exact_float32(self.device):
            if ready:
                return self._in_parts(images, max(ready))
            assert self.any_size is not None
            results = [self.any_size(part) for part in images.split(self.largest_batch())]
            return results[0] if len(results) == 1 else torch.cat(results)

    def layer_by_layer(self, images: Tensor) -> Tensor:
        assert self.network is not None, "the engine is closed"
        with Breakable(), torch.inference_mode(), exact_float32(self.device):
            return self.network(images.contiguous(memory_format=torch.channels_last))

    def _ready(self, height: int, width: int) -> list[int]:
        """The batches that are built for a size."""
        return [n for n, h, w in self.runners if (h, w) == (height, width)]

    def _any_size_takes(self, height: int, width: int) -> bool:
        """Whether pictures of this padded size go through what is built for any."""
        least, most = self.edges()
        fits = least <= min(height, width) and max(height, width) <= most
        return self.any_size is not None and fits and (height, width) not in self.refused

    def edges(self) -> tuple[int, int]:
        """The shortest and the longest side in pixels that what is built for any size takes."""
        multiple = self.model.card.size_multiple
        least = -(-self.model.card.size_minimum // multiple) * multiple
        return max(least, LEAST_VARIED * multiple), LONGEST // multiple * multiple

    def largest_batch(self) -> int:
        """The most pictures that what is built for any size takes at once."""
        return LIMIT

    def varied(self) -> tuple[dict[int, Any]]:
        """What `torch.export` is told of the one input if its batch and its size are left open."""
        multiple = self.model.card.size_multiple
        least, most = (edge // multiple for edge in self.edges())
        rows, columns = Dim("rows", min=least, max=most), Dim("columns", min=least, max=most)
        batch = Dim("batch", min=1, max=self.largest_batch())
        return ({0: batch, 2: multiple * rows, 3: multiple * columns},)

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

    def together(self, batch: int) -> int:
        """How many of a batch are built for. On a CPU one: more are no faster, and any count is served."""
        return batch if self.device.type == "cuda" else 1

    def _shape(self, height: int, width: int, batch: int) -> Shape:
        """What is built."""
        return self.together(batch), height, width

    def _runner(self, shape: Shape, progress: Progress, any_size: bool = False) -> Runner:
        count, height, width = shape
        what = "any size" if any_size else f"{width}x{height}, batch {count}"
        key = {"shape": "any" if any_size else list(shape)}
        order = {"shape": shape, "any_size": any_size}
        # A graph is for one size.
        return self.made(what, key, order, progress, None if any_size else lambda: [self.example(shape)])

    def made(
        self,
        what: str,
        key: Mapping[str, Any],
        order: Mapping[str, Any],
        progress: Progress,
        examples: Callable[[], Sequence[Tensor]] | None,
    ) -> Any:
        """What `write(folder, **order)` writes, loaded, from the cache if it is there under `key`.

        On a card it is recorded for inputs like `examples()`, unless that is None. `what` says what it is
        for. Raises `UnavailableError` if it cannot be built, and as torch does where memory is short.
        """
        about = f"{self.model.card.name}, {self.precision}, {what}"
        parts = engine_parts(self.model, self.name, self.device, self.precision, **key, **self._parts())
        try:
            run = get_or_build(
                parts, lambda folder: build_apart(self, folder, **order), self._load, about, progress.note
            )
            if examples is None or self.device.type != "cuda":
                return run
            return self._recorded(run, examples(), progress)
        except CgconvertError:
            raise
        except Exception as error:  # the compilers below fail in many ways
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise UnavailableError(
                f"{self.name} cannot build the network for {what} here ({first_line(error, 200)}): "
                'use `engine="eager"`'
            ) from error

    def _recorded(self, run: Callable[..., Any], examples: Sequence[Tensor], progress: Progress) -> Any:
        """What was built as a CUDA graph, or as it is where it cannot be recorded.

        A graph saves launches, which matters for small pictures only. Raises as `run` does by itself, and
        where memory is short.
        """
        with torch.inference_mode(), exact_float32(self.device):
            run(*examples)
            try:
                recorded = record_graph(run, *examples)
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
        if self.any_size is not None:
            told["built_for"].append("any size")
        if self.why_no_any_size is not None:
            told["not_for_any_size"] = self.why_no_any_size
        if self.graphs:
            told["cuda_graphs"] = self.graphs
        if self.why_no_graph is not None:
            told["without_graph"] = self.why_no_graph
        return told

    def close(self) -> None:
        with suppress(RuntimeError):  # a card that is lost runs nothing, and a job goes on with the others
            self._wait()
        self.network = self.any_size = None
        self.runners = {}

    def _wait(self) -> None:
        """Until nothing runs any more of what is about to be dropped, code and weights included."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
