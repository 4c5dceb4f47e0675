"""Frames of RGB pixels for a `Translator`: uploaded as uint8 or uint16, converted on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from cgconvert.card import ModelCard
from cgconvert.engines.job import EngineJob
from cgconvert.engines.translator import STAGES, Translator
from cgconvert.frames import Frame
from cgconvert.host.channels import StageClock
from cgconvert.tensors.images import (
    Crop,
    images_to_tensor,
    padded_size,
    reflect_index,
    tensor_to_images,
)
from cgconvert.tensors.transfers import Arrival, Transfers, transfers_for


class PixelFrames:
    """Frames whose `pixels` (H, W, 3) are of one type, and of sizes that are padded to the same one.

    Results are of that type too. With `depth` they are made for an encoder's samples of so many bits instead:
    uint8 up to 8 bits, else uint16, dithered. `keep_seen`: results carry what the network saw.
    """

    def __init__(
        self, card: ModelCard, transfers: Transfers, depth: int | None = None, keep_seen: bool = False
    ) -> None:
        self.card, self.transfers, self.depth, self.keep_seen = card, transfers, depth, keep_seen

    def network_size(self, frames: Sequence[Frame]) -> tuple[int, int]:
        """Height and width of the padded images. Raises `ValueError` if the frames are no batch."""
        kinds = {
            (padded_size(f.pixels.shape[0], f.pixels.shape[1], self.card), f.pixels.dtype.name)
            for f in frames
        }
        if len(kinds) != 1:
            raise ValueError(f"a batch needs one or more frames of one kind, got {sorted(map(str, kinds))}")
        return kinds.pop()[0]

    def stored_bytes(self, frame: Frame) -> int:
        """Those of its pixels."""
        return frame.pixels.nbytes

    def first_pixels(self, frames: Sequence[Frame]) -> np.ndarray:
        """The pixels (N, H, W, 3) of frames of one size, to make an engine ready with."""
        return np.stack([frame.pixels for frame in frames])

    def upload(self, frames: Sequence[Frame]) -> list[Tensor]:
        """The pixels as one tensor (N, H, W, 3); those of different sizes are padded before they join."""
        arrays = [frame.pixels for frame in frames]
        if len({array.shape for array in arrays}) > 1:
            height, width = self.network_size(frames)
            arrays = [
                a[reflect_index(a.shape[0], height)][:, reflect_index(a.shape[1], width)] for a in arrays
            ]
        return self.transfers.upload([self.transfers.gather(arrays)])

    def to_images(self, stored: Sequence[Tensor], frames: Sequence[Frame]) -> tuple[Tensor, Crop]:
        """Pixels to padded images."""
        return tensor_to_images(stored[0], self.card)

    def to_stored(
        self, images: Tensor, crop: Crop, frames: Sequence[Frame], sources: Sequence[Tensor]
    ) -> list[Tensor]:
        """Images to pixels."""
        is_small = frames[0].pixels.dtype == np.uint8 if self.depth is None else self.depth <= 8
        return [images_to_tensor(images, crop, torch.uint8 if is_small else torch.uint16, self.depth)]

    def download(self, stored: Sequence[Tensor]) -> Arrival:
        """To host memory."""
        return self.transfers.download(stored)

    def result(self, stored: Sequence[Tensor], index: int, frame: Frame) -> Frame:
        """The pixels of one picture, without what was padded, with the times of its frame."""
        height, width = frame.pixels.shape[:2]
        pixels = stored[0][index].numpy()[:height, :width]
        seen = frame.pixels if self.keep_seen else None
        return replace(frame, pixels=pixels, seen=seen)


def convert_pixels(job: EngineJob, pixels: np.ndarray, clock: StageClock | None = None) -> np.ndarray:
    """Pixels (N, H, W, 3), uint8 or uint16, to pixels of the same shape and type, a batch at a time.

    Raises `OutOfMemoryError` if a single picture does not fit.
    """
    kind = PixelFrames(job.engine.model.card, transfers_for(job.engine.device))
    translator = Translator(job, kind, clock or StageClock(dict.fromkeys(STAGES, "translate")))
    frames = [Frame(picture, number) for number, picture in enumerate(pixels)]
    return np.stack([result.pixels for result in (*translator.translate(frames), *translator.finish())])
