"""The network of a run over pictures: made ready with the first one, then given batches."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from cgconvert.engines.batches import (
    LIMIT,
    OutOfMemoryError,
    busy_pixels,
    if_it_fits,
    pixels_that_fit,
    scaled_batch,
    tile_from_now_on,
)
from cgconvert.engines.choose import choose_device, choose_devices
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import PixelFrames
from cgconvert.engines.ready import create_job, prepare_new_size
from cgconvert.engines.tiles.files import PixelSink, PixelSource
from cgconvert.engines.tiles.tiling import Kept
from cgconvert.engines.translator import Translator
from cgconvert.errors import InputError, UsageError
from cgconvert.finish import Finish
from cgconvert.frames import Frame
from cgconvert.host.channels import StageClock
from cgconvert.host.packages import package_version
from cgconvert.host.parts import source_identity
from cgconvert.host.rectangles import RectangleFile
from cgconvert.media.picture.resize import resized
from cgconvert.media.picture.sequences import read_first
from cgconvert.models.loading import load_model
from cgconvert.pictures.plan import ImagePlan
from cgconvert.progress import Progress, shown_stage
from cgconvert.tensors.images import padded_size
from cgconvert.tensors.transfers import own_device, transfers_for

FIRST_EDGE = 1024
"""Of the first picture no more than this square is compared with the reference, which is slow; an engine that
is built for the picture's size is compared on all of it."""


WIDE = 16
"""Bits of results that are to be finished: they are rounded to those of their picture only then."""


class HasPixels(Protocol):
    """A picture on its way."""

    @property
    def pixels(self) -> np.ndarray:
        """What the network sees: uint8 or uint16 RGB (H, W, 3)."""
        ...

    @property
    def finish(self) -> Finish | None:
        """What will be done with the result; None if it is what is written."""
        ...


Item = TypeVar("Item", bound=HasPixels)


class Network(Generic[Item]):
    """The engine of a run on a device, and the pictures that it has been given.

    Making it loads the model and builds and verifies the engine, which raises as `create_job` does.
    """

    def __init__(
        self, plan: ImagePlan, first: np.ndarray, progress: Progress, clock: StageClock, device: str
    ) -> None:
        started = time.perf_counter()
        self.device = device
        self.plan, self.progress, self.clock = plan, progress, clock
        self.given: deque[Item] = deque()
        self.prepared: set[tuple[int, int]] = set()
        self.known_to_fit = 1 << 62
        own_device(choose_device(device))
        self.job = self._make_ready(first)
        transfers = transfers_for(self.job.engine.device)
        self.plain = PixelFrames(plan.card, transfers)
        self.wide = PixelFrames(plan.card, transfers, WIDE)
        self.translator = Translator(self.job, self.plain, clock)
        # Chosen once: the free memory no longer shows the batch that the first size has been built for.
        ((height, width),) = self.prepared
        self.fixed = plan.engine.batch
        has_fit = 0 if self.job.is_tiled(height, width) else self.job.batch * height * width
        self.fits = 0 if self.fixed else max(has_fit, pixels_that_fit(self.job))
        clock.add("prepare", time.perf_counter() - started - self.job.build_seconds)
        clock.add("build", self.job.build_seconds)

    @property
    def in_flight(self) -> bool:
        """Whether the device still works on pictures that it has been given."""
        return self.translator.flight is not None

    def padded_size(self, pixels: np.ndarray) -> tuple[int, int]:
        """Height and width that a picture (H, W, 3) is padded to."""
        return padded_size(pixels.shape[0], pixels.shape[1], self.plan.card)

    def batch_for(self, height: int, width: int) -> int:
        """How many pictures of a padded size keep the device busy and fit; fewer where memory was short."""
        if self.job.is_tiled(height, width):
            return 1
        wanted = self.fixed
        if wanted is None:
            busy = busy_pixels(self.job.engine, height, width)
            wanted = scaled_batch(height, width, busy, self.fits, LIMIT)
        return scaled_batch(height, width, self.known_to_fit, self.known_to_fit, wanted)

    def translate(self, items: Sequence[Item]) -> Iterator[tuple[Item, np.ndarray | InputError]]:
        """Give pictures of one padded size and type to the device; yield results, perhaps of earlier ones.

        Either all of them are to be finished or none. Results that are have 16 bits, and the others those of
        their pictures. A result is the picture's pixels, or why there are none: it did not fit into memory.
        """
        size = self.padded_size(items[0].pixels)
        self.job.batch = asked = self.batch_for(*size)
        if self.job.engine.builds and size not in self.prepared and not self.job.is_tiled(*size):
            yield from self.finish()  # what is in flight takes memory
            try:
                self._prepare(items[0].pixels)
            except OutOfMemoryError as error:
                yield from ((item, self._too_large(error)) for item in items)
                return
        kind = self.wide if items[0].finish is not None else self.plain
        if kind is not self.translator.kind:
            yield from self.finish()  # results in flight are of the other kind
            self.translator.kind = kind
        self.given.extend(items)
        while self.given:
            try:
                for result in self.translator.translate([Frame(item.pixels, 0) for item in items]):
                    yield self.given.popleft(), result.pixels
                break
            except OutOfMemoryError as error:
                # All results before it are out, so the first that is left is the one that does not fit.
                yield self.given.popleft(), self._too_large(error)
                items = list(self.given)
        if self.job.batch < asked:  # memory was short on the way
            self.known_to_fit = self.job.batch * size[0] * size[1]

    def translate_file(
        self,
        source: RectangleFile,
        result: RectangleFile,
        size: tuple[int, int],
        dtype: type[np.generic],
        check: Callable[[], None],
        tell: Callable[[int, int], None] | None,
        kept: tuple[Path, Path] | None = None,
    ) -> None:
        """Put a picture through in tiles, from a file of pixels (H, W, 3) to another; `size` is (H, W).

        `check` is called for each tile, and what it raises ends the work. `tell` is as for
        `Tiling.translate`. `kept` are the picture's file, and a folder in which the file of the result lies
        and from which a run that was broken off goes on. Nothing else may be in flight. Raises `InputError`
        if even tiles do not fit into memory, and `OutputError` for a disk that is full.
        """
        height, width = size
        padded = padded_size(height, width, self.plan.card)
        tiling = self.job.tiling
        assert tiling is not None, "tiles are switched off"
        started = time.perf_counter()
        pixels = PixelSource(source, height, width, np.dtype(dtype), self.plan.card)
        sink = PixelSink(result, height, width, np.dtype(dtype), check)
        going_on = None if kept is None else Kept(kept[1], self._identity(kept[0]))
        if going_on is not None:
            tiling.go_on(*padded, going_on)

        def translate() -> bool:
            tiling.translate(pixels, sink, *padded, tell=tell, kept=going_on)
            return True

        while not self.job.is_tiled(*padded) or not if_it_fits(translate):
            if not tile_from_now_on(self.job, *padded):
                raise self._too_large(OutOfMemoryError(f"{width}x{height} pixels do not fit, even in tiles"))
        self.clock.add("translate", time.perf_counter() - started)

    def _identity(self, source: Path) -> str:
        """All that the pixels of a picture's result depend on. Raises `InputError`."""
        card, engine = self.plan.card, self.job.engine
        try:
            file = source_identity(source)
        except OSError as error:
            raise InputError(f"cannot be read any more: {error.strerror or error}") from error
        told = {
            "source": file,
            "model": [card.name, card.weights_sha256],
            "engine": [engine.name, engine.precision, engine.device.type],
            "versions": {name: package_version(name) for name in ("cgconvert", "torch")},
        }
        return json.dumps(told, sort_keys=True)

    def finish(self) -> Iterator[tuple[Item, np.ndarray | InputError]]:
        """Wait for the pictures in flight and yield their results."""
        for result in self.translator.finish():
            yield self.given.popleft(), result.pixels

    def close(self) -> None:
        """Give the engine's memory back."""
        self.job.close()

    def _make_ready(self, first: np.ndarray) -> EngineJob:
        """The engine for the first picture; for its corner if all of it does not fit.

        That picture will be told as one that is too large when its turn comes, and the others go on.
        """
        model = load_model(self.plan.model)
        asked = replace(self.plan.engine, device=self.device)
        if asked.batch is None and self.plan.total == 1 and not self.plan.options.watch:
            asked = replace(asked, batch=1)  # all cores for the one picture

        def ready(pixels: np.ndarray) -> EngineJob:
            work = self.plan.total * pixels.shape[0] * pixels.shape[1]
            job = create_job(
                model, asked, pixels[None], self.progress, self._samples, FIRST_EDGE, pixels=work
            )
            self.prepared.add(self.padded_size(pixels))
            return job

        corner = first[:FIRST_EDGE, :FIRST_EDGE]
        if corner.shape != first.shape:
            with suppress(OutOfMemoryError):
                return ready(first)
        return ready(corner)

    def _samples(self, count: int) -> list[np.ndarray]:
        """Up to `count` pictures spread over all shards of the job, for engines that learn value ranges."""
        step = max(1, (self.plan.found or self.plan.total) // count)
        samples: list[np.ndarray] = []
        for job in islice(self.plan.jobs(whole=True), 0, step * count, step):
            with suppress(InputError, UsageError):  # it will be told when its turn comes
                pixels = read_first(job.source).pixels
                samples.append(
                    resized(pixels, *self.plan.seen_size(pixels.shape[1], pixels.shape[0], job.options))
                )
        return samples

    def _prepare(self, first: np.ndarray) -> None:
        """Build and verify what the engine builds for the size of a picture. Raises `OutOfMemoryError`."""
        height, width = self.padded_size(first)
        started = time.perf_counter()
        with shown_stage(self.progress, f"building {self.job.engine.name} for {width}x{height}"):
            prepare_new_size(self.job, first[None], self.progress)
        seconds = time.perf_counter() - started
        self.clock.add("build", seconds)
        self.job.build_seconds += seconds
        self.prepared.add((height, width))

    def _too_large(self, error: OutOfMemoryError) -> InputError:
        tiles = '`tile="auto"`, ' if self.plan.engine.tile == "off" else ""
        return InputError(
            f"{error.problem}; try {tiles}another `device` or `precision`, or a smaller picture"
        )


def device_of(plan: ImagePlan, number: int) -> str:
    """The name of a device of a run on several. Raises `UsageError`, `UnavailableError`."""
    return str(choose_devices(plan.engine.device)[number])
