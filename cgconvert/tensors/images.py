"""Pixels to images and back: two inverses around the network, run on the network's device.

pixels: uint8 or uint16 RGB, NHWC. images: float in [-1, 1], NCHW, padded to what the network accepts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cgconvert.card import ModelCard
from cgconvert.dither import DITHER_OFFSETS
from cgconvert.tensors.noise import with_noise

LUMA_BT601 = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Crop:
    """The part of padded images that is the picture: its height and width, from the top left corner."""

    height: int
    width: int


def padded_size(height: int, width: int, card: ModelCard) -> tuple[int, int]:
    """The smallest size the generator accepts that holds (height, width)."""

    def up(value: int) -> int:
        value = max(value, card.size_minimum)
        return -(-value // card.size_multiple) * card.size_multiple

    return up(height), up(width)


def reflect_index(size: int, padded: int) -> np.ndarray:
    """Indices that extend `size` pixels to `padded` by reflection at the far edge, as often as need be."""
    if size == 1:
        return np.zeros(padded, np.int64)
    period = 2 * (size - 1)
    index = np.arange(padded) % period
    return np.where(index < size, index, period - index)


def pad_pixels(pixels: Tensor, height: int, width: int) -> Tensor:
    """Reflect (N, H, W, C) at the bottom and the right to (N, height, width, C); any size from 1 pixel."""
    if pixels.shape[1] != height:
        pixels = pixels[:, torch.from_numpy(reflect_index(pixels.shape[1], height)).to(pixels.device)]
    if pixels.shape[2] != width:
        pixels = pixels[:, :, torch.from_numpy(reflect_index(pixels.shape[2], width)).to(pixels.device)]
    return pixels


def psnr(values: Tensor, reference: Tensor, peak: float = 2.0) -> float:
    """Peak signal-to-noise ratio in decibels; infinite for equal tensors, NaN where a value is NaN.

    `peak` is the span of the values: 2 for images in [-1, 1], 255 for pixels of 8 bits.
    """
    error = (values.double() - reference.double()).square().mean().item()
    if math.isnan(error):
        return math.nan
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def pixels_to_images(
    pixels: np.ndarray, card: ModelCard, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Crop]:
    """Pixels (N, H, W, 3) in host memory to padded images on a device, as `tensor_to_images`."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device, non_blocking=True)
    return tensor_to_images(tensor, card, dtype)


def tensor_to_images(
    pixels: Tensor, card: ModelCard, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Crop]:
    """Pixels (N, H, W, 3) of uint8 or uint16 to padded images (N, C, H', W') and the crop that undoes it.

    Images are channels_last: pixels have that memory already, so nothing is transposed. A generator with one
    input channel gets BT.601 luma.
    """
    crop = Crop(pixels.shape[1], pixels.shape[2])
    padded = padded_size(crop.height, crop.width, card)
    wide = torch.promote_types(dtype, torch.float32)  # half precision would round before the last step
    if pixels.dtype == torch.uint8:
        peak, pixels = 255.0, pad_pixels(pixels, *padded)
    else:  # padded as signed integers: not every device can index unsigned ones of 16 bits
        peak, pixels = 65535.0, pad_pixels(pixels.view(torch.int16), *padded).view(torch.uint16)
    images = scaled_to_images(pixels.permute(0, 3, 1, 2), peak, wide)
    return _channels_in(images, card).to(dtype), crop


def scaled_to_images(samples: Tensor, peak: float, dtype: torch.dtype) -> Tensor:
    """Integer samples from 0 to `peak`, of any shape, as values from -1 to 1 of a floating type."""
    return samples.to(dtype).mul_(2 / peak).sub_(1)


def tile_to_images(pixels: Tensor, card: ModelCard, top: int, left: int) -> Tensor:
    """Pixels (N, h, w, 3) that lie at (top, left) in their padded picture to that part of its images."""
    peak = 255.0 if pixels.dtype == torch.uint8 else 65535.0
    images = scaled_to_images(pixels.permute(0, 3, 1, 2), peak, torch.float32)
    return _channels_in(images, card, top, left)


def rgb_to_images(rgb: Tensor, card: ModelCard) -> tuple[Tensor, Crop]:
    """RGB images (N, 3, H, W) in [-1, 1] to padded images (N, C, H', W'), and the crop that undoes it."""
    crop = Crop(rgb.shape[2], rgb.shape[3])
    padded = pad_pixels(rgb.permute(0, 2, 3, 1), *padded_size(crop.height, crop.width, card))
    return _channels_in(padded.permute(0, 3, 1, 2), card), crop


def images_to_rgb(images: Tensor, crop: Crop) -> Tensor:
    """Images (N, C, H', W') to RGB images (N, 3, H, W): cropped; one channel becomes gray."""
    return images[:, :, : crop.height, : crop.width].float().expand(-1, 3, -1, -1)


def rgb_to_pixels(rgb: Tensor, dtype: np.dtype | type) -> np.ndarray:
    """RGB images (N, 3, H, W) in [-1, 1] to pixels (N, H, W, 3) of uint8 or uint16."""
    return images_to_pixels(rgb, Crop(rgb.shape[2], rgb.shape[3]), dtype)


def _channels_in(images: Tensor, card: ModelCard, top: int = 0, left: int = 0) -> Tensor:
    """As many channels as the generator takes: RGB or its BT.601 luma, and the noise of its card.

    The images begin at (top, left) in their picture.
    """
    if card.in_channels == 1:
        weights = torch.tensor(LUMA_BT601, device=images.device).view(1, 3, 1, 1)
        images = (images * weights).sum(1, keepdim=True)
    return with_noise(images, card.noise_channels, card.noise_seed, top, left)


def dither_pattern(height: int, width: int, device: torch.device) -> Tensor:
    """The offsets of `DITHER_OFFSETS` for a whole picture, (H, W)."""
    offsets = torch.from_numpy(DITHER_OFFSETS).to(device)
    return offsets.repeat(-(-height // 8), -(-width // 8))[:height, :width]


def images_to_pixels(images: Tensor, crop: Crop, dtype: np.dtype | type) -> np.ndarray:
    """Images (N, C, H', W') to pixels (N, H, W, 3) of uint8 or uint16 in host memory."""
    stored = torch.uint8 if np.dtype(dtype) == np.uint8 else torch.uint16
    return images_to_tensor(images, crop, stored).cpu().numpy()


def images_to_tensor(images: Tensor, crop: Crop, dtype: torch.dtype, depth: int | None = None) -> Tensor:
    """Images (N, C, H', W') to pixels (N, H, W, 3) of uint8 or uint16: cropped, clamped and rounded.

    One output channel becomes gray RGB. `depth`: dithered for samples of so many bits, to which these pixels
    are about to be rounded if they have more. All channels get the same offset, so that gray stays gray.
    """
    peak = 255.0 if dtype == torch.uint8 else 65535.0
    images = images[:, :, : crop.height, : crop.width].float()
    scaled = images.mul(peak / 2).add_(peak / 2)
    if depth is not None and 2**depth - 1 <= peak:
        scaled.add_(dither_pattern(crop.height, crop.width, images.device), alpha=peak / (2**depth - 1))
    scaled = scaled.round_().clamp_(0, peak)
    return scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).to(dtype).contiguous()
