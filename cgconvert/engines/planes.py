"""Frames of YUV planes for a `Translator`: uploaded as decoded, converted on the device, also to planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cgconvert.card import ModelCard
from cgconvert.finish import Finish, lacks_detail
from cgconvert.frames import PlaneFrame, YuvFormat
from cgconvert.media.video.tone import Lookup, ToneMapping
from cgconvert.tensors.finish import blended, luma_detail
from cgconvert.tensors.images import Crop, images_to_rgb, padded_size, rgb_to_images, rgb_to_pixels
from cgconvert.tensors.transfers import Arrival, Transfers
from cgconvert.tensors.yuv import (
    luma_samples,
    planes_to_rgb,
    read_samples,
    rgb_to_planes,
    rgb_to_samples,
    store_samples,
)


@dataclass(frozen=True)
class PlaneTarget:
    """What becomes of planes: turned by `rotation` degrees clockwise, shown to the network at `work_size`,
    given back as `format` at `size` (width, height each), in the device's memory if `on_card`. `from_hdr` and
    `to_hdr`: of sources and results that are HDR, since the network sees and gives SDR. `finish` says how
    results are finished with their sources, None that they are not."""

    format: YuvFormat
    size: tuple[int, int]
    work_size: tuple[int, int]
    rotation: int = 0
    on_card: bool = False
    from_hdr: ToneMapping | None = None
    to_hdr: ToneMapping | None = None
    finish: Finish | None = None


class PlaneFrames:
    """Frames whose planes are of one `kind`, in host memory or on the card."""

    def __init__(self, target: PlaneTarget, card: ModelCard, transfers: Transfers) -> None:
        self.target, self.card, self.transfers = target, card, transfers
        self.tables: dict[tuple[str, torch.device], Tensor] = {}
        """Tables of tone mapping in the device's memory. Source and result have the same."""

    def network_size(self, frames: Sequence[PlaneFrame]) -> tuple[int, int]:
        """Height and width of the padded images. Raises `ValueError` if the frames are no batch."""
        kinds = {frame.kind for frame in frames}
        if len(kinds) != 1:
            raise ValueError(f"a batch needs one or more frames of one kind, got {sorted(map(str, kinds))}")
        width, height = self.target.work_size
        return padded_size(height, width, self.card)

    def stored_bytes(self, frame: PlaneFrame) -> int:
        """Those of its planes or of its result's."""
        width, height = self.target.size
        return max(frame.nbytes, self.target.format.nbytes(height, width))

    def upload(self, frames: Sequence[PlaneFrame]) -> list[Tensor]:
        """The planes of all frames on the device, each with a first dimension of N."""
        planes = list(zip(*(frame.planes for frame in frames), strict=True))
        if frames[0].on_card:
            return [_stacked(same) for same in planes]
        return self.transfers.upload([self.transfers.gather(same) for same in planes])

    def to_images(self, stored: Sequence[Tensor], frames: Sequence[PlaneFrame]) -> tuple[Tensor, Crop]:
        """Planes to padded images of the size that the network sees."""
        return self.images_of(stored, frames[0].format)

    def images_of(self, planes: Sequence[Tensor], form: YuvFormat) -> tuple[Tensor, Crop]:
        """Planes of one format to padded images of the size that the network sees."""
        return rgb_to_images(self._upright_rgb(planes, form, self.target.work_size), self.card)

    def _upright_rgb(self, planes: Sequence[Tensor], form: YuvFormat, size: tuple[int, int]) -> Tensor:
        """Planes to upright RGB images of a size (width, height)."""
        turned = self.target.rotation
        width, height = size if turned in (0, 180) else size[::-1]
        rgb = planes_to_rgb(planes, form, height, width)
        if self.target.from_hdr is not None:
            rgb = _as_images(self.target.from_hdr.to_sdr(_as_signals(rgb), self._look(self.target.from_hdr)))
        return torch.rot90(rgb, -turned // 90, (2, 3)) if turned else rgb

    def _stored_rgb(self, rgb: Tensor) -> Tensor:
        """RGB images as the result's planes are made of them: expanded if the result is HDR."""
        tone = self.target.to_hdr
        return rgb if tone is None else _as_images(tone.to_hdr(_as_signals(rgb), self._look(tone)))

    def _look(self, tone: ToneMapping) -> Lookup:
        """Looks values up in the tables of a tone mapping, on the values' device."""

        def look(name: str, values: Tensor) -> Tensor:
            key = name, values.device
            if key not in self.tables:
                self.tables[key] = torch.from_numpy(tone.tables[name]).to(values.device)
            table = self.tables[key]
            return table[(values * (len(table) - 1) + 0.5).long()]

        return look

    def first_pixels(self, frames: Sequence[PlaneFrame]) -> np.ndarray:
        """The frames as the network will see them, as pixels (N, H, W, 3) to make an engine ready with;
        rounded to 8 bits, or 16 where they have more than 8."""
        with torch.inference_mode():
            rgb = self._upright_rgb(self.upload(frames), frames[0].format, self.target.work_size)
            return rgb_to_pixels(rgb, np.uint8 if frames[0].format.depth <= 8 else np.uint16)

    def to_stored(
        self, images: Tensor, crop: Crop, frames: Sequence[PlaneFrame], sources: Sequence[Tensor]
    ) -> list[Tensor]:
        """Images to planes as the encoder takes them, finished with their sources."""
        if self.target.finish is None:
            return self.as_stored(self.planes_of(images, crop, sources, frames[0].format))
        # One after the other: at full size and in float32 a batch would take much memory.
        parts = [
            self.planes_of(images[i : i + 1], crop, [plane[i : i + 1] for plane in sources], frames[i].format)
            for i in range(len(frames))
        ]
        return self.as_stored([_stacked([part[0] for part in same]) for same in zip(*parts, strict=True)])

    def planes_of(
        self, images: Tensor, crop: Crop, sources: Sequence[Tensor], form: YuvFormat
    ) -> list[Tensor]:
        """Images to planes of the target, finished with the planes of their sources, which `form` is of."""
        rgb = self._stored_rgb(images_to_rgb(images, crop))
        if self.target.finish is not None:
            return self._finished(rgb, sources, form)
        width, height = self.target.size
        return rgb_to_planes(rgb, self.target.format, height, width)

    def as_stored(self, planes: list[Tensor]) -> list[Tensor]:
        """Planes as results are kept: where NVENC takes them from the card's memory as it finds them."""
        return _joined(planes) if self.target.on_card else planes

    def _finished(self, rgb: Tensor, source: Sequence[Tensor], stored: YuvFormat) -> list[Tensor]:
        """Planes of the network's RGB images and of the planes of their sources."""
        (width, height), form, finish = self.target.size, self.target.format, self.target.finish
        assert finish is not None
        light, chroma = self._source_samples(source, stored)
        look = rgb_to_samples(rgb, form, height, width)
        if lacks_detail((rgb.shape[2], rgb.shape[3]), (height, width)):
            look = look[0] + luma_detail(light, luma_samples(rgb, form), 2.0 ** (form.depth - 8)), look[1]
        return store_samples(*blended((light, chroma), look, finish), form)

    def _source_samples(self, planes: Sequence[Tensor], stored: YuvFormat) -> tuple[Tensor, Tensor]:
        """The source's luma and chroma as samples of the target's format and size.

        Where it is stored like that they are its very samples, and otherwise they come by way of RGB.
        """
        (width, height), form, turned = self.target.size, self.target.format, self.target.rotation
        rows, columns = planes[0].shape[1:]
        alike = replace(stored, interleaved=form.interleaved, high_bits=form.high_bits) == form
        alike = alike and (self.target.from_hdr is None) == (self.target.to_hdr is None)
        if alike and not turned and (rows, columns) == (height, width):
            return read_samples(planes, stored)
        rgb = self._stored_rgb(self._upright_rgb(planes, stored, self.target.size))
        return rgb_to_samples(rgb, form, height, width)

    def download(self, stored: Sequence[Tensor]) -> Arrival:
        """To host memory, or to where NVENC takes them."""
        return self.transfers.download(stored, stay=self.target.on_card)

    def result(self, stored: Sequence[Tensor], index: int, frame: PlaneFrame) -> PlaneFrame:
        """One frame of the planes that have arrived, with the times of its source."""
        target = self.target
        planes = [plane[index] if target.on_card else plane[index].numpy() for plane in stored]
        return PlaneFrame(planes, target.format, *target.size, frame.pts, frame.duration, target.on_card)


def _as_signals(rgb: Tensor) -> list[Tensor]:
    """RGB images (N, 3, H, W) in [-1, 1] as three channels (N, H, W) from 0 to 1."""
    return list(rgb.float().add(1).div_(2).clamp_(0, 1).unbind(1))


def _as_images(channels: Sequence[Tensor]) -> Tensor:
    """The inverse of `_as_signals`."""
    return torch.stack(list(channels), 1).mul_(2).sub_(1)


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
    # By way of uint8: not every device can fill memory with unsigned numbers of 16 bits.
    zeros = [
        torch.zeros((1, *shape), dtype=torch.uint8, device=device) for shape in form.shapes(height, width)
    ]
    planes = [plane.to(dtype) for plane in zeros]
    return [plane[0] for plane in _joined(planes)]
