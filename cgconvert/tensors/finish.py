"""Results of the network finished as samples of planes on any torch device: see `cgconvert.finish`.

The arithmetic is that of `cgconvert.media.picture.finish`, where OpenCV does it on the processor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cgconvert.finish import FLAT, WINDOW, Finish
from cgconvert.tensors.yuv import reduce_area


def luma_detail(light: Tensor, result: Tensor, level: float) -> Tensor:
    """What is to be added to the luma (N, 1, H, W) of an enlarged result; `level` units are one of 255.

    `light` (N, 1, H, W) is the luma of the source, and `result` (N, 1, h, w), which is smaller, that of what
    the network made of it.
    """
    height, width = light.shape[2:]
    smooth = reduce_area(light, *result.shape[2:])
    gain = _gain(smooth / level, result / level)
    large = functional.interpolate(torch.cat([gain, smooth], 1), (height, width), mode="bicubic")
    return large[:, :1] * (light - large[:, 1:])


def _gain(light: Tensor, result: Tensor) -> Tensor:
    """How far a result follows what the network saw, from 0 to 1, both (N, 1, h, w) in levels of 255."""
    mean_light, mean_result = _mean(light), _mean(result)
    variance = (_mean(light * light) - mean_light * mean_light).clamp_(min=0)
    covariance = _mean(light * result) - mean_light * mean_result
    return _mean(covariance / (variance + FLAT**2)).clamp_(0, 1)


def _mean(values: Tensor) -> Tensor:
    """The mean of the window around each place; what lies beyond an edge is reflected."""
    for dimension in (2, 3):
        reach = torch.arange(-(WINDOW // 2), values.shape[dimension] + WINDOW // 2, device=values.device)
        last = values.shape[dimension] - 1
        index = reach.abs() if last else reach * 0
        index = torch.where(index > last, 2 * last - index, index).clamp_(0, last)
        values = values.index_select(dimension, index)
    return functional.avg_pool2d(values, WINDOW, 1)


def blended(
    source: tuple[Tensor, Tensor], look: tuple[Tensor, Tensor], finish: Finish
) -> tuple[Tensor, Tensor]:
    """Luma and chroma of what is written, of those of a source and of its look, all of them samples."""
    light, chroma = look if not finish.keep_colours else (look[0], source[1])
    if finish.strength == 1:
        return light, chroma
    strength = float(np.float32(finish.strength))
    return source[0] + strength * (light - source[0]), source[1] + strength * (chroma - source[1])
