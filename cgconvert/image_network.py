"""The thread in which the network runs: it loads the model, makes the engine, and translates batches.

It is a thread of its own so that the coordinator stays free to hand on results and to hear Ctrl-C, which a
thread inside a long network call does not.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cgconvert.errors import InputError
from cgconvert.image_batching import available_memory, choose_batch, memory_per_pixel
from cgconvert.image_plan import ImagePlan

if TYPE_CHECKING:
    from cgconvert.engines.base import Engine

THREAD_NAME = "cgconvert-image-network"


@dataclass(frozen=True)
class Ready:
    """The engine is there; `padded_size` and `batch_for` take a picture's height and width."""

    description: Mapping[str, Any]
    padded_size: Callable[[int, int], tuple[int, int]]
    batch_for: Callable[[int, int], int]
    seconds: float


@dataclass(frozen=True)
class Translated:
    """A batch is through: one result for each picture given, pixels or why there are none."""

    results: Sequence[np.ndarray | InputError]
    seconds: float


@dataclass(frozen=True)
class NetworkFailed:
    """The network cannot go on, for a reason that concerns every picture."""

    error: BaseException


class Network:
    """Runs the engine of a plan in its own thread; what happens arrives through `tell`."""

    def __init__(self, plan: ImagePlan, tell: Callable[[Ready | Translated | NetworkFailed], None]) -> None:
        self.plan = plan
        self.tell = tell
        self.batches: queue.SimpleQueue[Sequence[np.ndarray] | None] = queue.SimpleQueue()
        # A daemon: a call into the network cannot be broken off, and must not keep a program alive.
        self.thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Begin to load; `Ready` or `NetworkFailed` will be told."""
        self.thread.start()

    def translate(self, pixels: Sequence[np.ndarray]) -> None:
        """Give it a batch, uint8 or uint16 RGB (H, W, 3) of one type and one padded size."""
        self.batches.put(pixels)

    def close(self, timeout: float | None = None) -> None:
        """Let it end after what it has been given, and wait for that at most `timeout` seconds."""
        if self.thread.is_alive():
            self.batches.put(None)
            self.thread.join(timeout)

    def _run(self) -> None:
        engine: Engine | None = None
        try:
            engine = self._start_engine()
            while (batch := self.batches.get()) is not None:
                started = time.perf_counter()
                results = self._translate(engine, batch)
                self.tell(Translated(results, time.perf_counter() - started))
        except BaseException as error:  # it must arrive, whatever it is
            self.tell(NetworkFailed(error))
        finally:
            if engine is not None:
                engine.close()

    def _start_engine(self) -> Engine:
        started = time.perf_counter()
        from cgconvert.engines.choose import create_engine
        from cgconvert.models.loading import load_model
        from cgconvert.transforms import padded_size

        asked, card = self.plan.engine, self.plan.card
        engine = create_engine(load_model(self.plan.model), asked.device, asked.engine, asked.precision)
        self.prepared: set[tuple[int, int]] = set()

        def batch_for(height: int, width: int) -> int:
            return asked.batch or choose_batch(card, str(engine.device), height, width, free_memory(engine))

        self.padded_size = lambda height, width: padded_size(height, width, card)
        self.batch_for = batch_for
        self.tell(Ready(engine.describe(), self.padded_size, batch_for, time.perf_counter() - started))
        return engine

    def _translate(self, engine: Engine, batch: Sequence[np.ndarray]) -> list[np.ndarray | InputError]:
        """The results of a batch; short of memory, those of its halves, down to single pictures."""
        height, width = self.padded_size(*batch[0].shape[:2])
        problem = self._too_large(engine, height, width, len(batch))
        if problem is None:
            try:
                self._prepare(engine, height, width)
                return list(_convert(engine, batch, height, width))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = f"{width}x{height} pixels are more than memory holds ({_first_line(error)})"
        if len(batch) == 1:
            return [InputError(f"{problem}; try another --device or --precision, or a smaller picture")]
        half = len(batch) // 2
        return self._translate(engine, batch[:half]) + self._translate(engine, batch[half:])

    def _prepare(self, engine: Engine, height: int, width: int) -> None:
        """Build what the engine builds for a size; eager builds nothing, its warm-up would cost a run."""
        if engine.name != "eager" and (height, width) not in self.prepared:
            engine.prepare(height, width, self.batch_for(height, width))
        self.prepared.add((height, width))

    def _too_large(self, engine: Engine, height: int, width: int, count: int) -> str | None:
        """Why a batch cannot go through main memory; a system without any left would end the program."""
        free = available_memory() if engine.device.type == "cpu" else None
        need = memory_per_pixel(self.plan.card, engine.precision) * height * width * count
        if free is None or need <= free:
            return None
        gib = 2**30
        return f"{width}x{height} pixels need about {need / gib:.1f} GiB of memory, {free / gib:.1f} are free"


def _convert(engine: Engine, batch: Sequence[np.ndarray], height: int, width: int) -> Sequence[np.ndarray]:
    """Pictures of one padded size through the engine; if their own sizes differ, padded before."""
    from cgconvert.transforms import reflect_index

    if len({pixels.shape for pixels in batch}) == 1:
        return list(engine.convert(batch[0][None] if len(batch) == 1 else np.stack(batch)))
    padded = np.stack(
        [p[reflect_index(p.shape[0], height)][:, reflect_index(p.shape[1], width)] for p in batch]
    )
    results = engine.convert(padded)
    return [result[: p.shape[0], : p.shape[1]] for result, p in zip(results, batch, strict=True)]


def free_memory(engine: Engine) -> int | None:
    """Bytes at hand on the engine's device."""
    if engine.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(engine.device)[0])
    return available_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, numpy or a backend says that memory is used up."""
    text = str(error).lower()
    known = (
        "out of memory",
        "can't allocate memory",
        "bad_alloc",
        "failed to allocate",
        "cannot allocate memory",
    )
    return isinstance(error, MemoryError) or any(part in text for part in known)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def still_running() -> bool:
    """Whether a thread of a broken-off run is inside a long call; Python cannot end in order then."""
    return any(thread.name.startswith("cgconvert-image-") for thread in threading.enumerate())
