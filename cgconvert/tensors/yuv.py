"""YUV planes to RGB images and back on any torch device: matrix, range, chroma siting, sizes.

The arithmetic is that of `cgconvert.media.video.colour`, where swscale does it in whole numbers on the
processor: bicubic filters with the same coefficients, chroma taken from where it sits, straight from its own
grid to that of the images, and back. Here it is float32, so the RGB between is not rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cgconvert.frames import YuvFormat
from cgconvert.tensors.images import dither_pattern

CUBIC = 0.6
"""The parameter of swscale's bicubic filter: how far it overshoots beside an edge."""


@lru_cache(maxsize=64)
def _taps(
    count: int, wanted: int, step: float, first: float, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """For each tap of the filter the sample that each output takes, and its weight.

    Output number i lies at `first + i * step` on the grid of the `count` samples. Where the outputs lie
    farther apart than the samples the filter is widened, so that it averages.
    """
    positions = first + step * np.arange(wanted)
    stretch = max(1.0, step)
    begin = np.floor(positions - 2 * stretch).astype(np.int64) + 1
    index = begin + np.arange(int(np.ceil(4 * stretch)) + 1)[:, None]
    distance = np.abs(index - positions) / stretch
    near = (2 - CUBIC) * distance**3 - (3 - CUBIC) * distance**2 + 1
    far = -CUBIC * distance**3 + 5 * CUBIC * distance**2 - 8 * CUBIC * distance + 4 * CUBIC
    weight = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    weight /= weight.sum(0)
    index = index.clip(0, count - 1)  # beyond the edge the last sample goes on
    return [
        (torch.from_numpy(rows).to(device), torch.from_numpy(values.astype(np.float32)).to(device))
        for rows, values in zip(index, weight, strict=True)
        if np.abs(values).max() > 1e-7
    ]


def resample(samples: Tensor, dimension: int, wanted: int, step: float, first: float) -> Tensor:
    """`wanted` values along a dimension, at `first + i * step` on its grid; bicubic, edges continued."""
    count = samples.shape[dimension]
    if wanted == count and step == 1 and first == 0:
        return samples
    return _weighted(samples, dimension, _taps(count, wanted, step, first, samples.device))


def _weighted(samples: Tensor, dimension: int, taps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """What taps make of values along a dimension."""
    shape = [1] * samples.ndim
    shape[dimension] = len(taps[0][0])
    total: Tensor | None = None
    for index, weight in taps:
        taken = samples.index_select(dimension, index)
        if total is None:
            total = taken.mul_(weight.view(shape))
        else:
            total.addcmul_(taken, weight.view(shape))
    assert total is not None
    return total


@lru_cache(maxsize=64)
def _area_taps(count: int, wanted: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """For each tap the sample that each of `wanted` <= `count` outputs takes, and its share."""
    edges = np.arange(wanted + 1) * (count / wanted)
    begin = np.floor(edges[:-1] + 1e-9).astype(np.int64)
    taps = []
    for tap in range(int(np.ceil(count / wanted)) + 1):
        index = begin + tap
        covered = np.minimum(edges[1:], index + 1) - np.maximum(edges[:-1], index)
        weight = covered.clip(0).astype(np.float32) * np.float32(wanted / count)
        if weight.max() > 1e-7:
            index = index.clip(0, count - 1)
            taps.append((torch.from_numpy(index).to(device), torch.from_numpy(weight).to(device)))
    return taps


def reduce_area(samples: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) averaged over areas to a smaller height and width, as OpenCV's `INTER_AREA` does."""
    for dimension, wanted in ((2, height), (3, width)):
        count = samples.shape[dimension]
        if wanted != count:
            samples = _weighted(samples, dimension, _area_taps(count, wanted, samples.device))
    return samples


def _scaled(planes: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) at another height and width."""
    steps = planes.shape[2] / height, planes.shape[3] / width
    planes = resample(planes, 2, height, steps[0], (steps[0] - 1) / 2)
    return resample(planes, 3, width, steps[1], (steps[1] - 1) / 2)


def _levels(form: YuvFormat) -> tuple[float, float, float, float]:
    """Of samples as stored: black and the span to white; the middle of chroma and its span."""
    unit = 2.0 ** (form.depth - 8)
    shift = 2.0 ** (16 - form.depth) if form.high_bits else 1.0
    if form.full_range:
        peak = 2.0**form.depth - 1
        return 0.0, peak * shift, 128 * unit * shift, peak * shift
    return 16 * unit * shift, 219 * unit * shift, 128 * unit * shift, 224 * unit * shift


def planes_to_rgb(planes: Sequence[Tensor], form: YuvFormat, height: int, width: int) -> Tensor:
    """Planes of N pictures to RGB images (N, 3, height, width), float32 in [-1, 1].

    `planes` have a first dimension of N before the shapes that `form` says; their size may be another than
    that of the images. Values beyond black and white are clamped, as in every RGB picture.
    """
    black, luma_span, middle, chroma_span = _levels(form)
    luma = planes[0].unsqueeze(1).float().sub_(black).div_(luma_span)
    rows, columns = luma.shape[2:]
    if form.interleaved:
        chroma = planes[1].permute(0, 3, 1, 2).float()
    else:
        chroma = torch.stack([planes[1].float(), planes[2].float()], 1)
    chroma = chroma.sub_(middle).div_(chroma_span)
    down, right = rows / height, columns / width  # one output pixel, in pixels of the luma plane
    left, top = form.siting if form.sub_x > 1 else (0.0, form.siting[1])
    top = top if form.sub_y > 1 else 0.0
    chroma = resample(chroma, 2, height, down / form.sub_y, ((down - 1) / 2 - top) / form.sub_y)
    chroma = resample(chroma, 3, width, right / form.sub_x, ((right - 1) / 2 - left) / form.sub_x)
    luma = _scaled(luma, height, width)
    blue, red = chroma[:, :1], chroma[:, 1:]
    kg = 1 - form.kr - form.kb
    to_green_blue = -2 * form.kb * (1 - form.kb) / kg
    to_green_red = -2 * form.kr * (1 - form.kr) / kg
    rgb = torch.cat(
        [
            luma + 2 * (1 - form.kr) * red,
            luma + to_green_blue * blue + to_green_red * red,
            luma + 2 * (1 - form.kb) * blue,
        ],
        1,
    )
    return rgb.clamp_(0, 1).mul_(2).sub_(1)


def rgb_to_planes(images: Tensor, form: YuvFormat, height: int, width: int) -> list[Tensor]:
    """RGB images (N, 3, H, W) in [-1, 1] to the planes of N pictures of height x width, dithered.

    uint8, or uint16 where `form` has more than 8 bits; clamped to what the images can be.
    """
    return store_samples(*rgb_to_samples(images, form, height, width), form)


def _luma(rgb: Tensor, form: YuvFormat) -> Tensor:
    """The luma (N, 1, H, W) of RGB (N, 3, H, W), from 0 to 1."""
    red, green, blue = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    return form.kr * red + (1 - form.kr - form.kb) * green + form.kb * blue


def luma_samples(images: Tensor, form: YuvFormat) -> Tensor:
    """RGB images (N, 3, H, W) in [-1, 1] to their luma (N, 1, H, W), as `rgb_to_samples` has it."""
    black, span, _, _ = _levels(replace(form, high_bits=False))
    return _luma(images.float().add(1).div_(2).clamp_(0, 1), form).mul_(span).add_(black)


def rgb_to_samples(images: Tensor, form: YuvFormat, height: int, width: int) -> tuple[Tensor, Tensor]:
    """RGB images (N, 3, H, W) in [-1, 1] to luma (N, 1, height, width) and chroma (N, 2, h, w).

    Samples are float32 and count from 0 to what `form.depth` bits hold; they are not rounded.
    """
    rgb = images.float().add(1).div_(2).clamp_(0, 1)
    red, blue, luma = rgb[:, :1], rgb[:, 2:], _luma(rgb, form)
    chroma = torch.cat([(blue - luma) / (2 - 2 * form.kb), (red - luma) / (2 - 2 * form.kr)], 1)
    rows, columns = luma.shape[2:]
    down, right = rows / height, columns / width
    left, top = form.siting if form.sub_x > 1 else (0.0, form.siting[1])
    top = top if form.sub_y > 1 else 0.0
    chroma_height, chroma_width = form.chroma_size(height, width)
    chroma = resample(chroma, 3, chroma_width, right * form.sub_x, (left + 0.5) * right - 0.5)
    chroma = resample(chroma, 2, chroma_height, down * form.sub_y, (top + 0.5) * down - 0.5)
    luma = _scaled(luma, height, width)
    black, luma_span, middle, chroma_span = _levels(replace(form, high_bits=False))
    return luma.mul(luma_span).add_(black), chroma.mul(chroma_span).add_(middle)


def read_samples(planes: Sequence[Tensor], form: YuvFormat) -> tuple[Tensor, Tensor]:
    """The planes of N pictures as luma (N, 1, H, W) and chroma (N, 2, h, w), as `rgb_to_samples` has them."""
    unit = 2.0 ** (16 - form.depth) if form.high_bits else 1.0
    luma = planes[0].unsqueeze(1).float()
    chroma = (
        planes[1].permute(0, 3, 1, 2) if form.interleaved else torch.stack([p.float() for p in planes[1:]], 1)
    )
    return luma / unit, chroma.float() / unit


def store_samples(luma: Tensor, chroma: Tensor, form: YuvFormat) -> list[Tensor]:
    """What `rgb_to_samples` gives as planes, dithered and rounded: uint8, or uint16 above 8 bits."""
    stored_luma = _stored(luma, form)[:, 0]
    stored_chroma = _stored(chroma, form)
    if form.interleaved:
        return [stored_luma, stored_chroma.permute(0, 2, 3, 1).contiguous()]
    return [stored_luma, stored_chroma[:, 0], stored_chroma[:, 1]]


def _stored(values: Tensor, form: YuvFormat) -> Tensor:
    """Values dithered and rounded to whole samples within their bits."""
    peak = 2.0**form.depth - 1
    offsets = dither_pattern(values.shape[2], values.shape[3], values.device)
    values = values.add(offsets).round_().clamp_(0, peak)
    if form.high_bits:
        values = values.mul_(2.0 ** (16 - form.depth))
    # By way of int32: conversions from floating point straight to uint16 are missing on some devices.
    return values.to(torch.uint8) if form.depth <= 8 else values.to(torch.int32).to(torch.uint16)
