"""Grids of hold-out pictures: what goes in, what comes out, what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from cgconvert.host.files import write_atomically
from trainer.data.augment import Pixels
from trainer.methods.base import Method


def to_images(pixels: Pixels, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (H, W, 3) to images (1, 3, H, W) in [-1, 1] of the given floating type."""
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].to(dtype).mul_(2 / 255).sub_(1)


def to_pixels(images: Tensor) -> Pixels:
    """float (1, 3, H, W) in [-1, 1] to uint8 (H, W, 3), rounded."""
    scaled = images[0].float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.byte().permute(1, 2, 0).cpu().numpy()


@torch.no_grad()
def sample_rows(
    method: Method, name: str, pictures: Sequence[Pixels], truths: Sequence[Pixels] = ()
) -> list[Pixels]:
    """A row for each picture: source, averaged generator's result; then the way back, the teacher's result
    or the truth, where there is one."""
    rows = []
    for index, pixels in enumerate(pictures):
        images = to_images(pixels, method.device, method.precision.dtype)
        result = method.ema.generators[name](images)
        cells = [pixels, to_pixels(result)]
        back = method.back(name)
        if back is not None:
            cells.append(to_pixels(back(result)))
        teacher = method.teacher_of(name)
        if teacher is not None:
            cells.append(to_pixels(teacher(images)))
        if truths:
            cells.append(truths[index])
        rows.append(np.concatenate(cells, axis=1))
    return rows


def grid(rows: Sequence[Pixels]) -> Pixels:
    """Rows of pictures under each other on white, padded to one width."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 2), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded, axis=0)


def encode(pixels: Pixels, suffix: str = ".png", quality: int = 90) -> bytes:
    """uint8 RGB as the bytes of an image file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    _, data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write uint8 RGB as an image file, whole or not at all."""
    write_atomically(path, encode(pixels, path.suffix.lower()))
