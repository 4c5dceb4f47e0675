"""Models for programs: arrays and tensors through an engine that stays ready between calls."""

from __future__ import annotations

import base64
import html
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.card import ModelCard
from cgconvert.engines.job import EngineJob
from cgconvert.engines.ready import create_job, prepare_new_size
from cgconvert.engines.translator import STAGES, Translator
from cgconvert.finish import Finish
from cgconvert.host.channels import StageClock
from cgconvert.media.picture.codec import Picture, encode_picture
from cgconvert.media.picture.finish import finished
from cgconvert.media.picture.resize import resized
from cgconvert.models import loading
from cgconvert.models.catalog import is_path
from cgconvert.models.describe import describe_architecture, describe_domains
from cgconvert.models.files import expanded
from cgconvert.options import EngineOptions, check_engine_options
from cgconvert.progress import Silent
from cgconvert.sizes import check_work_size, network_size
from cgconvert.tensors.images import (
    Crop,
    images_to_rgb,
    images_to_tensor,
    padded_size,
    rgb_to_images,
    tensor_to_images,
)
from cgconvert.tensors.transfers import Arrival, Arrived, own_device

Pictures = TypeVar("Pictures", np.ndarray, Tensor)

INTEGERS = (torch.uint8, torch.uint16)
ARRAY_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
KEPT = 2
"""Engines that stay ready: one for single pictures, which takes all cores for each, and one for batches."""

THUMBNAIL = 192
"""Pixels of the longer side of a picture in a notebook."""


class TensorFrames:
    """Pictures for a `Translator`: tensors (3, H, W) of one size and type, anywhere; results likewise.

    uint8 and uint16 span their range, floating types 0 to 1.
    """

    def __init__(self, card: ModelCard, device: torch.device, home: torch.device, dtype: torch.dtype) -> None:
        """`home` is where results are wanted, in `dtype`."""
        self.card, self.device, self.home, self.dtype = card, device, home, dtype

    def network_size(self, frames: Sequence[Tensor]) -> tuple[int, int]:
        """Height and width of the padded images."""
        return padded_size(frames[0].shape[1], frames[0].shape[2], self.card)

    def stored_bytes(self, frame: Tensor) -> int:
        """Those of its values."""
        return frame.numel() * frame.element_size()

    def first_pixels(self, frames: Sequence[Tensor]) -> np.ndarray:
        """Pixels (N, H, W, 3) to make an engine ready with."""
        return np.stack([_pixels_of(frame) for frame in frames])

    def upload(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """One tensor (N, 3, H, W) on the network's device."""
        together = frames[0][None] if len(frames) == 1 else torch.stack(list(frames))
        return [together.to(self.device, non_blocking=True)]

    def to_images(self, stored: Sequence[Tensor], frames: Sequence[Tensor]) -> tuple[Tensor, Crop]:
        """Padded images; values beyond 0 and 1 count as these."""
        values = stored[0]
        if values.dtype in INTEGERS:
            return tensor_to_images(values.permute(0, 2, 3, 1), self.card)
        return rgb_to_images(values.float().clamp(0, 1).mul(2).sub(1), self.card)

    def to_stored(
        self, images: Tensor, crop: Crop, frames: Sequence[Tensor], sources: Sequence[Tensor]
    ) -> list[Tensor]:
        """Images as values of the results' type."""
        if self.dtype in INTEGERS:
            return [images_to_tensor(images, crop, self.dtype).permute(0, 3, 1, 2)]
        return [images_to_rgb(images, crop).add(1).div(2).clamp(0, 1).to(self.dtype)]

    def download(self, stored: Sequence[Tensor]) -> Arrival:
        """To where results are wanted, which for a result that stays on its card waits for nothing."""
        return Arrived([part.to(self.home) for part in stored])

    def result(self, stored: Sequence[Tensor], index: int, frame: Tensor) -> Tensor:
        """The result of one picture."""
        return stored[0][index]


def _pixels_of(frame: Tensor) -> np.ndarray:
    """A picture (3, H, W) as pixels (H, W, 3) of uint8 or uint16 in host memory."""
    values = frame.permute(1, 2, 0).cpu()
    if values.dtype not in INTEGERS:
        values = values.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(values.numpy())


@dataclass
class _Ready:
    """An engine that stays ready, and the padded sizes it is prepared for."""

    job: EngineJob
    sizes: set[tuple[int, int]] = field(default_factory=set)


class Model:
    """A model for arrays and tensors. Made by `load_model`.

    `card` describes it, and `generator` is its network (`torch.nn.Module`, eval mode, float32), which takes
    and returns images (N, C, H, W) in [-1, 1]. Pickled it is its name and options, so that it can be sent
    to another process; the engine is made there. Threads may share it: one at a time converts.
    """

    def __init__(self, source: str, options: EngineOptions) -> None:
        check_engine_options(options)
        self.source, self.options = source, options
        self._plain = loading.load_model(source)
        self._ready: OrderedDict[EngineOptions, _Ready] = OrderedDict()
        self._lock = threading.Lock()
        self._last: tuple[Tensor, Tensor] | None = None

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self._plain.card

    @property
    def generator(self) -> nn.Module:
        """The network by itself."""
        return self._plain.generator

    @property
    def path(self) -> Path | None:
        """The model's file."""
        return self._plain.path

    def convert(
        self,
        pictures: Pictures,
        *,
        device: str | None = None,
        engine: str | None = None,
        precision: str | None = None,
        strength: float = 1.0,
        keep_colours: bool = False,
        stroke: str | float | None = None,
        work_size: str | None = None,
    ) -> Pictures:
        """Convert one picture or a batch of one size; returns the same type, shape, dtype and device.

        Arrays have the shape (H, W, 3) or (N, H, W, 3), tensors (3, H, W) or (N, 3, H, W), of any size. uint8
        and uint16 span their range, floating types 0 to 1. All are RGB.

        `device`, `engine` and `precision` are those of `EngineOptions`; None: what `load_model` was given.
        A tensor on a CUDA device is converted there if `device` is left at "auto". The engine is made,
        and compared with the plain network, with the first picture; it stays ready for the next call. The
        other options are those of `ImageOptions`, for arrays of integers only; without `stroke` and
        `work_size` the network sees all of the picture.

        Raises `ValueError` for what is no such picture, `UsageError` for options that make no sense, and what
        `create_job` raises where the engine cannot be had.
        """
        finish = Finish(strength, keep_colours)
        check_work_size(work_size, stroke)
        is_plain = finish.is_plain and work_size is None and stroke is None
        if isinstance(pictures, np.ndarray):
            values = torch.from_numpy(_native(pictures))
            values = values.movedim(-1, -3) if values.ndim in (3, 4) else values
        elif isinstance(pictures, Tensor):
            values = pictures.detach()
        else:
            raise ValueError(f"expected an array or a tensor, got {type(pictures).__name__}")
        layout = "(H, W, 3)" if isinstance(pictures, np.ndarray) else "(3, H, W)"
        if values.ndim not in (3, 4) or values.shape[-3] != 3 or 0 in values.shape[-3:]:
            raise ValueError(
                f"expected RGB pictures of shape {layout}, or N of them, got shape {tuple(pictures.shape)}"
            )
        if values.dtype not in (*INTEGERS, *FLOATS):
            raise ValueError(f"expected uint8, uint16 or a floating type, got {pictures.dtype}")
        if not is_plain and (isinstance(pictures, Tensor) or values.dtype not in INTEGERS):
            raise ValueError("strength, keep_colours, stroke and work_size are for arrays of uint8 or uint16")
        batch = values if values.ndim == 4 else values[None]
        if len(batch) == 0:
            return pictures
        options = self._options(batch, device, engine, precision)
        if is_plain:
            results = self._translated(list(batch), options, batch.dtype, batch.device)
        else:
            results = self._finished(batch, options, finish, stroke, work_size)
        together = torch.stack(results) if values.ndim == 4 else results[0]
        step = max(1, max(batch.shape[-2:]) // THUMBNAIL)
        self._last = batch[0][:, ::step, ::step].clone(), results[0][:, ::step, ::step].clone()
        if isinstance(pictures, np.ndarray):
            return np.ascontiguousarray(together.movedim(-3, -1).numpy())
        return together

    def close(self) -> None:
        """Give the memory of all engines back; the next call makes one anew."""
        with self._lock:
            for ready in self._ready.values():
                ready.job.close()
            self._ready.clear()

    def _options(
        self, batch: Tensor, device: str | None, engine: str | None, precision: str | None
    ) -> EngineOptions:
        own = self.options
        where = device or own.device
        if where == "auto" and batch.is_cuda:
            where = str(batch.device)
        # A single picture takes all cores; in a batch pictures share them, which is faster for many.
        count = own.batch if own.batch is not None or len(batch) > 1 else 1
        options = EngineOptions(where, engine or own.engine, precision or own.precision, count, own.tile)
        check_engine_options(options)
        return options

    def _finished(
        self,
        batch: Tensor,
        options: EngineOptions,
        finish: Finish,
        stroke: str | float | None,
        work_size: str | None,
    ) -> list[Tensor]:
        """As the pipelines have it: seen at another size, in 16 bits until it is blended with the source."""
        sources = [_pixels_of(picture) for picture in batch]
        size = batch.shape[-1], batch.shape[-2]
        seen = sources
        if work_size is not None or stroke is not None:
            seen_size = network_size(work_size, stroke, self.card, size, size)
            seen = [resized(source, *seen_size) for source in sources]
        shown = [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in seen]
        results = self._translated(shown, options, torch.uint16, torch.device("cpu"))
        blended = (
            finished(source, np.ascontiguousarray(result.permute(1, 2, 0).numpy()), finish)
            for source, result in zip(sources, results, strict=True)
        )
        return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in blended]

    def _translated(
        self, pictures: list[Tensor], options: EngineOptions, dtype: torch.dtype, home: torch.device
    ) -> list[Tensor]:
        with self._lock:
            ready = self._ready_for(pictures[0], options)
            own_device(ready.job.engine.device)
            kind = TensorFrames(self.card, ready.job.engine.device, home, dtype)
            translator = Translator(ready.job, kind, StageClock(dict.fromkeys(STAGES, "translate")))
            return [*translator.translate(pictures), *translator.finish()]

    def _ready_for(self, picture: Tensor, options: EngineOptions) -> _Ready:
        """The engine for these options, prepared for the size of a picture (3, H, W)."""
        size = padded_size(picture.shape[1], picture.shape[2], self.card)
        ready = self._ready.get(options)
        if ready is None:
            job = create_job(self._plain, options, _pixels_of(picture)[None], Silent())
            ready = self._ready[options] = _Ready(job, {size})
            while len(self._ready) > KEPT:
                _, oldest = self._ready.popitem(last=False)
                oldest.job.close()
        elif size not in ready.sizes:
            if ready.job.engine.builds and not ready.job.is_tiled(*size):
                prepare_new_size(ready.job, _pixels_of(picture)[None], Silent())
            ready.sizes.add(size)
        self._ready.move_to_end(options)
        return ready

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.source, self.options)

    def __repr__(self) -> str:
        network = describe_architecture(self.card.architecture, self.card.arguments)
        engines = ", ".join(f"{r.job.engine.name} {r.job.engine.precision}" for r in self._ready.values())
        return (
            f"<Model {self.card.name}: {describe_domains(self.card)}, {network}"
            f"{f'; ready: {engines}' if engines else ''}>"
        )

    def _repr_html_(self) -> str:
        """For notebooks: what it is, and the last picture that it has converted, before and after."""
        text = f"<div>{html.escape(repr(self).strip('<>'))}</div>"
        if self._last is None:
            return text
        files = (encode_picture(Picture(_pixels_of(thumbnail)), "png")[0] for thumbnail in self._last)
        urls = (f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in files)
        both = "".join(f'<img src="{url}"> ' for url in urls)
        return f"{text}<div>{both}</div>"


def load_model(
    name_or_path: str | Path, *, device: str = "auto", engine: str = "auto", precision: str = "auto"
) -> Model:
    """Load a model by name (installed or shipped) or by path, for arrays and tensors.

    `device`, `engine` and `precision` are those of `EngineOptions`. Raises `ModelError`, and `UsageError` for
    options that make no sense.
    """
    source = str(name_or_path)
    if is_path(source):
        source = str(expanded(source).absolute())  # a process that unpickles it may be in another folder
    return Model(source, EngineOptions(device=device, engine=engine, precision=precision))


def _again(source: str, options: EngineOptions) -> Model:
    """What a pickled model is made of."""
    return Model(source, options)


def _native(array: np.ndarray) -> np.ndarray:
    """An array that torch can share memory with: in native byte order, writable, without negative strides."""
    if array.dtype.name not in ARRAY_TYPES:
        raise ValueError(f"expected uint8, uint16 or a floating type, got {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return array
