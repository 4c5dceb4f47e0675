"""Frames through the network: as pixels that the host converts, or as planes that the device converts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cgconvert.engines.base import Engine
from cgconvert.engines.batches import convert_resilient, halve, if_it_fits
from cgconvert.frames import Frame, FrameBatch, PlaneFrame, YuvFormat
from cgconvert.tensors.images import images_to_rgb, rgb_to_images, rgb_to_pixels
from cgconvert.tensors.transfers import Arrival, Transfers
from cgconvert.tensors.yuv import planes_to_rgb, rgb_to_planes

AnyFrame = Frame | PlaneFrame


class Translator(Protocol):
    """Takes batches and gives results in the same order, perhaps later ones with those of earlier batches."""

    def first_pixels(self, batch: Sequence[AnyFrame]) -> np.ndarray:
        """Frames as pixels (N, H, W, 3) of the size that the network sees, to make an engine ready with."""
        ...

    def translate(self, engine: Engine, batch: Sequence[AnyFrame]) -> Iterator[AnyFrame]:
        """Begin with a batch; yield the results that are there."""
        ...

    def finish(self) -> Iterator[AnyFrame]:
        """Yield the results that are still out."""
        ...


class PixelTranslator:
    """RGB pixels, converted one batch after the other."""

    def first_pixels(self, batch: Sequence[AnyFrame]) -> np.ndarray:
        """The pixels of the frames."""
        return FrameBatch([_pixel_frame(frame) for frame in batch]).stack()

    def translate(self, engine: Engine, batch: Sequence[AnyFrame]) -> Iterator[AnyFrame]:
        """The results of this batch."""
        frames = [_pixel_frame(frame) for frame in batch]
        results = convert_resilient(engine, FrameBatch(frames).stack())
        for frame, pixels in zip(frames, results, strict=True):
            yield Frame(pixels, frame.pts, frame.duration, frame.source)

    def finish(self) -> Iterator[AnyFrame]:
        """Nothing is ever out."""
        return iter(())


def _pixel_frame(frame: AnyFrame) -> Frame:
    assert isinstance(frame, Frame)
    return frame


@dataclass(frozen=True)
class PlaneTarget:
    """What becomes of planes: turned by `rotation` degrees clockwise, shown to the network at `work_size`,
    given back as `format` at `size` (width, height each), in the device's memory if `on_card`."""

    format: YuvFormat
    size: tuple[int, int]
    work_size: tuple[int, int]
    rotation: int = 0
    on_card: bool = False


@dataclass(frozen=True)
class Flight:
    """A batch that has been given to the device."""

    frames: Sequence[PlaneFrame]
    arrival: Arrival


class PlaneTranslator:
    """Planes, uploaded as decoded, converted on the device; one batch is always in flight.

    While the device works on a batch, the batch before it is downloaded and encoded and the one after it is
    decoded and uploaded: `translate` gives a batch to the device first, and only then waits for the one
    before. Frames come out in order and none is lost; where memory runs short, what is in flight lands first,
    then the batch is halved, and the same frames go again.
    """

    def __init__(self, transfers: Transfers, target: PlaneTarget) -> None:
        self.transfers, self.target = transfers, target
        self.flight: Flight | None = None
        self.engine: Engine | None = None

    def first_pixels(self, batch: Sequence[AnyFrame]) -> np.ndarray:
        """The frames as the network will see them, rounded to 8 bits, or 16 where they have more than 8."""
        frames = [_plane_frame(frame) for frame in batch]
        with torch.inference_mode():
            rgb = self._to_rgb(self._uploaded(frames), frames[0].format)
            return rgb_to_pixels(rgb, np.uint8 if frames[0].format.depth <= 8 else np.uint16)

    def translate(self, engine: Engine, batch: Sequence[AnyFrame]) -> Iterator[AnyFrame]:
        """Give a batch to the device; yield the results of the batch before it."""
        self.engine = engine
        start = 0
        while start < len(batch):
            part = [_plane_frame(frame) for frame in batch[start : start + max(1, engine.batch)]]
            flight = if_it_fits(partial(self._begin, engine, part))
            if flight is not None:
                earlier, self.flight = self.flight, flight
                start += len(part)
                yield from self._land(earlier)
                continue
            crowded = self.flight is not None
            yield from self.finish()
            if len(part) > 1 or not crowded:
                width, height = self.target.work_size
                halve(engine, len(part), height, width, "frame")

    def finish(self) -> Iterator[AnyFrame]:
        """Yield the results of the batch in flight."""
        earlier, self.flight = self.flight, None
        yield from self._land(earlier)

    def _begin(self, engine: Engine, frames: Sequence[PlaneFrame]) -> Flight:
        """Upload, convert, translate, convert, download: on CUDA all of it only begins here."""
        target = self.target
        started = time.perf_counter()
        with torch.inference_mode():
            rgb = self._to_rgb(self._uploaded(frames), frames[0].format)
            images, crop = rgb_to_images(rgb, engine.model.card)
            prepared = time.perf_counter()
            results = engine(images)
            translated = time.perf_counter()
            width, height = target.size
            planes = rgb_to_planes(images_to_rgb(results, crop), target.format, height, width)
            if target.on_card:
                planes = _joined(planes)
            arrival = self.transfers.download(planes, stay=target.on_card)
        engine.stage_seconds["preprocess"] += prepared - started
        engine.stage_seconds["translate"] += translated - prepared
        engine.stage_seconds["postprocess"] += time.perf_counter() - translated
        return Flight(frames, arrival)

    def _uploaded(self, frames: Sequence[PlaneFrame]) -> list[Tensor]:
        """The planes of all frames on the device, each with a first dimension of N."""
        kinds = {frame.kind for frame in frames}
        if len(kinds) != 1:
            raise ValueError(f"a batch needs one or more frames of one kind, got {sorted(map(str, kinds))}")
        if frames[0].on_card:
            return [_stacked(same) for same in zip(*(frame.planes for frame in frames), strict=True)]
        rooms = []
        for number, first in enumerate(frames[0].planes):
            dtype = torch.uint8 if first.dtype == np.uint8 else torch.uint16
            room = self.transfers.room((len(frames), *first.shape), dtype)
            view = room.numpy()
            for index, frame in enumerate(frames):
                np.copyto(view[index], frame.planes[number])
            rooms.append(room)
        return self.transfers.upload(rooms)

    def _to_rgb(self, planes: Sequence[Tensor], form: YuvFormat) -> Tensor:
        """Planes to upright RGB images of the size that the network sees."""
        width, height = self.target.work_size
        if self.target.rotation in (90, 270):
            width, height = height, width
        rgb = planes_to_rgb(planes, form, height, width)
        return torch.rot90(rgb, -self.target.rotation // 90, (2, 3)) if self.target.rotation else rgb

    def _land(self, flight: Flight | None) -> Iterator[PlaneFrame]:
        """Wait for a batch and yield its frames."""
        if flight is None:
            return
        started = time.perf_counter()
        planes = flight.arrival.wait()
        if self.engine is not None:
            self.engine.stage_seconds["postprocess"] += time.perf_counter() - started
        target = self.target
        for index, frame in enumerate(flight.frames):
            own = [plane[index] if target.on_card else plane[index].numpy() for plane in planes]
            yield PlaneFrame(own, target.format, *target.size, frame.pts, frame.duration, target.on_card)


def _plane_frame(frame: AnyFrame) -> PlaneFrame:
    assert isinstance(frame, PlaneFrame)
    return frame


def _stacked(planes: Sequence[Tensor]) -> Tensor:
    """Planes of several frames as one tensor; 16 bits as signed ones meanwhile, which every device knows."""
    if planes[0].dtype == torch.uint8:
        return torch.stack(list(planes))
    return torch.stack([plane.view(torch.int16) for plane in planes]).view(torch.uint16)


def _joined(planes: Sequence[Tensor]) -> list[Tensor]:
    """Luma (N, H, W) and chroma (N, h, w, 2) in one memory, as NVENC finds chroma: right below the luma.

    Rows begin at multiples of 256 bytes.
    """
    luma, chroma = planes
    count, height, width = luma.shape
    step = 256 // luma.element_size()
    pitch = -(-width // step) * step
    whole = torch.empty(count, height + chroma.shape[1], pitch, dtype=luma.dtype, device=luma.device)
    rows = whole[:, :height, :width]
    pairs = whole[:, height:, : 2 * chroma.shape[2]].unflatten(2, (chroma.shape[2], 2))
    return [rows.copy_(luma), pairs.copy_(chroma)]


def blank_planes(form: YuvFormat, height: int, width: int, device: torch.device) -> list[Tensor]:
    """The planes of one picture in a device's memory as results lie there; `form` is an interleaved one."""
    dtype = torch.uint8 if form.depth <= 8 else torch.uint16
    planes = [torch.zeros((1, *shape), dtype=dtype, device=device) for shape in form.shapes(height, width)]
    return [plane[0] for plane in _joined(planes)]
