"""Batches of frames through an engine: converted on its device, one batch always in flight."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from cgconvert.engines.batches import OutOfMemoryError, halve, if_it_fits, tile_from_now_on, why_it_cannot_fit
from cgconvert.engines.flat import FlatFrames
from cgconvert.engines.job import EngineJob
from cgconvert.host.channels import StageClock
from cgconvert.tensors.images import Crop
from cgconvert.tensors.transfers import Arrival

if TYPE_CHECKING:
    from cgconvert.engines.whole import WholePass

AnyFrame = TypeVar("AnyFrame")

STAGES = ("preprocess", "translate", "postprocess")
"""What a `Translator` counts the seconds of."""


class FrameKind(Protocol[AnyFrame]):
    """How one kind of frames becomes images on the network's device, and results become frames again.

    A batch holds frames of one kind and size as far as `PixelFrames` and `PlaneFrames` say.
    """

    def first_pixels(self, frames: Sequence[AnyFrame]) -> np.ndarray:
        """Frames as pixels (N, H, W, 3) of the size that the network sees, to make an engine ready with."""
        ...

    def upload(self, frames: Sequence[AnyFrame]) -> list[Tensor]:
        """Begin to bring what the frames store to the device, with a first dimension of N."""
        ...

    def to_images(self, stored: Sequence[Tensor], frames: Sequence[AnyFrame]) -> tuple[Tensor, Crop]:
        """Padded images for the network, and the crop that undoes the padding."""
        ...

    def download(self, stored: Sequence[Tensor]) -> Arrival:
        """Begin to bring results to where their consumer takes them."""
        ...

    def to_stored(
        self, images: Tensor, crop: Crop, frames: Sequence[AnyFrame], sources: Sequence[Tensor]
    ) -> list[Tensor]:
        """The network's images as results are stored, still on the device, with a first dimension of N.

        `sources` are what `upload` has given for these frames.
        """
        ...

    def result(self, stored: Sequence[Tensor], index: int, frame: AnyFrame) -> AnyFrame:
        """The result of one frame, number `index` of its batch, from what has arrived."""
        ...

    def network_size(self, frames: Sequence[AnyFrame]) -> tuple[int, int]:
        """Height and width of the padded images."""
        ...

    def stored_bytes(self, frame: AnyFrame) -> int:
        """Bytes of a frame as stored on the device, before or after the network, whichever is more."""
        ...


@dataclass(frozen=True)
class Flight(Generic[AnyFrame]):
    """A batch that has been given to the device."""

    frames: Sequence[AnyFrame]
    arrival: Arrival


class Translator(Generic[AnyFrame]):
    """Puts batches through the engine of a job.

    `translate` gives a batch to the device first, and only then waits for the one before: while the device
    works on a batch, the one before it is downloaded and encoded and the one after it is decoded and
    uploaded. Results come in the order of the frames, and none is lost: where memory runs short, what
    is in flight lands first, then the batch is halved, and the same frames go again. On a processor a batch
    is finished when it has been given. `flat` mends the results of flat frames, where the network needs it;
    it converts them untiled, so that frames that go through in tiles stay as they are. `whole` takes frames
    that it was built for from planes to planes in one. Flat frames go in steps, and all frames do from when
    memory runs short.
    """

    def __init__(
        self,
        job: EngineJob,
        kind: FrameKind[AnyFrame],
        clock: StageClock,
        flat: FlatFrames | None = None,
        whole: WholePass | None = None,
    ) -> None:
        self.job, self.kind, self.clock, self.flat, self.whole = job, kind, clock, flat, whole
        self.flight: Flight[AnyFrame] | None = None

    def translate(self, batch: Sequence[AnyFrame]) -> Iterator[AnyFrame]:
        """Give a batch to the device; yield the results of the batch before it.

        Raises `OutOfMemoryError` for a frame that does not fit alone, when all results before it are out.
        """
        start = 0
        while start < len(batch):
            part = batch[start : start + max(1, self.job.batch)]
            height, width = self.kind.network_size(part)
            reason = why_it_cannot_fit(self.job, len(part), height, width)
            flight = if_it_fits(partial(self._begin, part)) if reason is None else None
            if flight is not None:
                if not self.job.is_tiled(height, width):
                    self.job.proven_pixels = max(self.job.proven_pixels, len(part) * height * width)
                earlier, self.flight = self.flight, flight
                start += len(part)
                yield from self._land(earlier)
                if flight.arrival.is_here:
                    yield from self.finish()
                continue
            # The batch in flight takes memory too; only when it has landed is a single frame refused.
            crowded = self.flight is not None
            yield from self.finish()
            if self.whole is not None:
                self.whole.close()
                self.whole = None
                self.job.note("out of memory from planes to planes in one: in steps from then on")
                continue
            if len(part) == 1 and crowded:
                continue
            if len(part) == 1 and reason is not None:
                if tile_from_now_on(self.job, height, width):
                    continue
                raise OutOfMemoryError(reason)
            if len(part) == 1 and self.job.engine.built_for(height, width):
                engine = self.job.engine
                engine.refuse(height, width)  # by itself a layer needs less than all that is built
                self.job.note(
                    f"out of memory with {engine.name} for {width}x{height}: layer by layer from then on"
                )
                continue
            halve(self.job, len(part), height, width)
            self._give_up_what_is_built(height, width)

    def _give_up_what_is_built(self, height: int, width: int) -> None:
        """In mid-run nothing is built for the half: memory is short for it, and others are at work."""
        engine = self.job.engine
        if engine.builds and not (engine.built_for(height, width) or engine.takes_any_size):
            engine.refuse(height, width)

    def finish(self) -> Iterator[AnyFrame]:
        """Yield the results of the batch in flight."""
        earlier, self.flight = self.flight, None
        yield from self._land(earlier)

    def _begin(self, frames: Sequence[AnyFrame]) -> Flight[AnyFrame]:
        """Upload, convert, translate, convert, download; on CUDA all of it only begins here."""
        started = time.perf_counter()
        with torch.inference_mode():
            sources = self.kind.upload(frames)
            if self.whole is not None and self.whole.takes(frames):
                prepared = time.perf_counter()
                stored = self._in_one(self.whole, sources)
                self.clock.add("preprocess", prepared - started)
                self.clock.add("translate", time.perf_counter() - prepared)
                if stored is not None:
                    return Flight(frames, self.kind.download(stored))
                started = time.perf_counter()
            images, crop = self.kind.to_images(sources, frames)
            prepared = time.perf_counter()
            looked = None
            if self.flat is not None and not self.job.is_tiled(*images.shape[2:]):
                looked = self.flat.look_at(images)
            results = self.job(images)
            if self.flat is not None and looked is not None:
                results = self.flat.mend(images, results, looked)
            translated = time.perf_counter()
            arrival = self.kind.download(self.kind.to_stored(results, crop, frames, sources))
        self.clock.add("preprocess", prepared - started)
        self.clock.add("translate", translated - prepared)
        self.clock.add("postprocess", time.perf_counter() - translated)
        return Flight(frames, arrival)

    def _in_one(self, whole: WholePass, sources: Sequence[Tensor]) -> list[Tensor] | None:
        """The results as they are stored; None if some frames are flat."""
        stored, contrasts = whole(sources)
        if self.flat is not None and min(self.flat.own_shares(self.flat.transfers.download([contrasts]))) < 1:
            return None
        return stored

    def _land(self, flight: Flight[AnyFrame] | None) -> Iterator[AnyFrame]:
        """Wait for a batch and yield its results."""
        if flight is None:
            return
        with self.clock.busy("postprocess"):
            stored = flight.arrival.wait()
        for index, frame in enumerate(flight.frames):
            yield self.kind.result(stored, index, frame)
