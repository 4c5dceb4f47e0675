"""The thread in which the network runs: it loads the model, makes the engine, and translates batches.

It is a thread of its own so that the coordinator stays free to hand on results and to hear Ctrl-C, which a
thread inside a long network call does not.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from cgconvert.errors import InputError
from cgconvert.host.memory import available_memory
from cgconvert.media.picture.codec import read_picture
from cgconvert.pictures.batching import memory_per_pixel
from cgconvert.pictures.plan import ImagePlan
from cgconvert.progress import Silent, shown_stage

if TYPE_CHECKING:
    from cgconvert.engines.base import Engine
    from cgconvert.models.loading import Model
    from cgconvert.options import EngineOptions

THREAD_NAME = "cgconvert-image-network"
FIRST_EDGE = 1024
"""Of the first picture no more than this square is compared with the reference, which is slow; an engine that
is built for the picture's size is compared on all of it."""


@dataclass(frozen=True)
class Ready:
    """The engine is there; `padded_size` and `batch_for` take a picture's height and width.

    `building` of the `seconds` went into building the engine.
    """

    padded_size: Callable[[int, int], tuple[int, int]]
    batch_for: Callable[[int, int], int]
    seconds: float
    building: float


@dataclass(frozen=True)
class Translated:
    """A batch is through: one result for each picture given, pixels or why there are none.

    `building` of the `seconds` went into making the engine ready for a new size.
    """

    results: Sequence[np.ndarray | InputError]
    seconds: float
    building: float


@dataclass(frozen=True)
class Note:
    """Something that a person should know now."""

    line: str


@dataclass(frozen=True)
class Stage:
    """Something begins that may take minutes, or is over (None)."""

    what: str | None


@dataclass(frozen=True)
class NetworkFailed:
    """The network cannot go on, for a reason that concerns every picture."""

    error: BaseException


class Telling(Silent):
    """Progress of a thread that is not the coordinator's: its notes become events."""

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self.tell = tell

    def note(self, line: str) -> None:
        self.tell(Note(line))

    def stage(self, what: str | None) -> None:
        self.tell(Stage(what))


class Network:
    """Runs the engine of a plan in its own thread; what happens arrives through `tell`.

    `description` is what the engine says of itself, up to date after each batch.
    """

    def __init__(self, plan: ImagePlan, tell: Callable[[Any], None]) -> None:
        self.plan = plan
        self.tell = tell
        self.description: Mapping[str, Any] = {}
        self.known_to_fit = 1 << 62
        self.prepared: set[tuple[int, int]] = set()
        self.building = 0.0
        self.batches: queue.SimpleQueue[Sequence[np.ndarray] | None] = queue.SimpleQueue()
        # A daemon: a call into the network cannot be broken off, and must not keep a program alive.
        self.thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self, first: np.ndarray) -> None:
        """Make the engine ready for pictures like `first`; `Ready` or `NetworkFailed` will be told."""
        self.first: np.ndarray | None = first
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
                started, self.building = time.perf_counter(), 0.0
                results = self._translate(engine, batch)
                self.description = engine.describe()
                self.tell(Translated(results, time.perf_counter() - started, self.building))
        except BaseException as error:  # it must arrive, whatever it is
            self.tell(NetworkFailed(error))
        finally:
            if engine is not None:
                engine.close()

    def _start_engine(self) -> Engine:
        started = time.perf_counter()
        from cgconvert.engines.batches import LIMIT, busy_pixels, pixels_that_fit, scaled_batch
        from cgconvert.models.loading import load_model
        from cgconvert.tensors.images import padded_size

        asked, card = self.plan.engine, self.plan.card
        if asked.batch is None and self.plan.total == 1 and not self.plan.options.watch:
            asked = replace(asked, batch=1)  # all cores for the one picture
        first, self.first = self.first, None
        assert first is not None
        self.padded_size = lambda height, width: padded_size(height, width, card)
        engine = self._engine_for(load_model(self.plan.model), asked, first)
        ((height, width),) = self.prepared
        fixed = asked.batch or engine.best_batch
        # The free memory no longer shows the batch that the first size has been built for.
        fits = 0 if fixed else max(engine.batch * height * width, pixels_that_fit(engine))

        def batch_for(height: int, width: int) -> int:
            """What keeps the device busy and fits, less where memory has proved short."""
            wanted = fixed or scaled_batch(height, width, busy_pixels(engine, height, width), fits, LIMIT)
            return scaled_batch(height, width, self.known_to_fit, self.known_to_fit, wanted)

        self.batch_for = batch_for
        self.description = engine.describe()
        seconds = time.perf_counter() - started
        self.tell(Ready(self.padded_size, self.batch_for, seconds, engine.build_seconds))
        return engine

    def _engine_for(self, model: Model, asked: EngineOptions, first: np.ndarray) -> Engine:
        """The engine, prepared and verified for the first picture; for its corner if all of it does not fit.

        That picture will be told as one that is too large when its turn comes; the others go on.
        """
        from cgconvert.engines.batches import OutOfMemoryError
        from cgconvert.engines.ready import create_verified_engine

        def ready(pixels: np.ndarray) -> Engine:
            engine = create_verified_engine(
                model, asked, pixels[None], Telling(self.tell), self._samples, FIRST_EDGE
            )
            self.prepared.add(self.padded_size(*pixels.shape[:2]))
            return engine

        corner = first[:FIRST_EDGE, :FIRST_EDGE]
        if corner.shape != first.shape and self._memory_lacks(*self.padded_size(*first.shape[:2])) is None:
            with suppress(OutOfMemoryError):
                return ready(first)
        return ready(corner)

    def _samples(self, count: int) -> list[np.ndarray]:
        """Up to `count` pictures spread over the job, for engines that learn value ranges."""
        step = max(1, self.plan.total // count)
        samples: list[np.ndarray] = []
        for job in islice(self.plan.jobs(), 0, step * count, step):
            with suppress(InputError):  # it will be told when its turn comes
                samples.append(read_picture(job.source).pixels)
        return samples

    def _translate(self, engine: Engine, batch: Sequence[np.ndarray]) -> list[np.ndarray | InputError]:
        """The results of a batch; short of memory, those of its parts, down to single pictures."""
        from cgconvert.engines.batches import OutOfMemoryError, convert_resilient

        height, width = self.padded_size(*batch[0].shape[:2])
        problem = self._too_large(engine, height, width, len(batch))
        if problem is None:
            try:
                engine.batch = asked = self.batch_for(height, width)
                self._prepare(engine, batch[0])
                pixels = convert_resilient(engine, _stacked(batch, height, width))
            except OutOfMemoryError:
                problem = f"{width}x{height} pixels are more than the memory of {engine.device} holds"
            else:
                if engine.batch < asked:  # it was short of memory on the way
                    self.known_to_fit = engine.batch * height * width
                return [p[: own.shape[0], : own.shape[1]] for p, own in zip(pixels, batch, strict=True)]
        if len(batch) == 1:
            return [InputError(f"{problem}; try another `device` or `precision`, or a smaller picture")]
        half = len(batch) // 2
        return self._translate(engine, batch[:half]) + self._translate(engine, batch[half:])

    def _prepare(self, engine: Engine, first: np.ndarray) -> None:
        """Build and verify what the engine builds for a size that it has not seen; the others build nothing.

        `first` is a picture of that size. Raises `OutOfMemoryError`.
        """
        from cgconvert.engines.ready import prepare_new_size

        height, width = self.padded_size(*first.shape[:2])
        if engine.builds and (height, width) not in self.prepared:
            started = time.perf_counter()
            with shown_stage(Telling(self.tell), f"building {engine.name} for {width}x{height}"):
                prepare_new_size(engine, first[None], Telling(self.tell))
            self.building += time.perf_counter() - started
            engine.build_seconds += time.perf_counter() - started
        self.prepared.add((height, width))

    def _too_large(self, engine: Engine, height: int, width: int, count: int) -> str | None:
        """Why a batch cannot go through main memory; a system without any left would end the program."""
        if engine.device.type != "cpu":
            return None
        return self._memory_lacks(height, width, count, engine.precision)

    def _memory_lacks(self, height: int, width: int, count: int = 1, precision: str = "fp32") -> str | None:
        """What a batch needs of main memory and what is free, in words; None if that is enough."""
        free = available_memory()
        need = memory_per_pixel(self.plan.card, precision) * height * width * count
        if free is None or need <= free:
            return None
        gib = 2**30
        return f"{width}x{height} pixels need about {need / gib:.1f} GiB of memory, {free / gib:.1f} are free"


def _stacked(batch: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Pictures of one padded size as one array; those of different sizes are padded before they join."""
    from cgconvert.tensors.images import reflect_index

    if len(batch) == 1:
        return batch[0][None]
    if len({pixels.shape for pixels in batch}) == 1:
        return np.stack(batch)
    return np.stack(
        [p[reflect_index(p.shape[0], height)][:, reflect_index(p.shape[1], width)] for p in batch]
    )


def still_running() -> bool:
    """Whether a thread of a broken-off run is inside a long call; Python cannot end in order then."""
    return any(thread.name.startswith("cgconvert-image-") for thread in threading.enumerate())
