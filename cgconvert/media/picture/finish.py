"""Results of the network finished at full size: see `cgconvert.finish`. Pictures, and what videos share."""

from __future__ import annotations

import cv2
import numpy as np

from cgconvert.dither import DITHER_OFFSETS
from cgconvert.finish import FLAT, LUMA_BT709, WINDOW, Finish, lacks_detail

STRIP_PIXELS = 1 << 20
"""Pixels that are finished at once, so that a large picture needs little memory beside itself."""


def detail_gain(light: np.ndarray, result: np.ndarray, level: float) -> np.ndarray:
    """Return how far a result follows what the network saw, from 0 to 1: float32 (h, w).

    `light` and `result` are the luma (h, w) of both, float32, in units of which `level` are one of 255.
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (WINDOW, WINDOW))

    light, result = light / level, result / level
    mean_light, mean_result = mean(light), mean(result)
    variance = mean(light * light) - mean_light * mean_light
    covariance = mean(light * result) - mean_light * mean_result
    return np.clip(mean(covariance / (np.maximum(variance, 0) + FLAT**2)), 0, 1)


def enlarged_rows(picture: np.ndarray, height: int, width: int, first: int, last: int) -> np.ndarray:
    """Return the rows from `first` to before `last` of a float32 picture (h, w, C) made larger: (n, W, C).

    Bicubic, as `cv2.resize` with `INTER_CUBIC` gives them for the whole picture.
    """
    rows, sharp = picture.shape[0], -0.75
    place = (np.arange(first, last) + 0.5) * rows / height - 0.5
    begin = np.floor(place)
    total = np.zeros((last - first, *picture.shape[1:]), np.float32)
    for tap in range(-1, 3):
        x = np.abs(place - begin - tap)
        near = ((sharp + 2) * x - (sharp + 3)) * x * x + 1
        far = ((sharp * x - 5 * sharp) * x + 8 * sharp) * x - 4 * sharp
        weight = np.where(x <= 1, near, far).astype(np.float32)
        index = np.clip(begin + tap, 0, rows - 1).astype(int)
        total += weight[:, None, None] * picture[index]
    return cv2.resize(total, (width, last - first), interpolation=cv2.INTER_CUBIC).reshape(
        last - first, width, -1
    )


def rounded(values: np.ndarray, peak: float, first: int = 0) -> np.ndarray:
    """Return float32 values (H, W) or (H, W, C) from 0 to `peak`, dithered and rounded, as float32.

    `first` is the number of their first row in the picture.
    """
    height, width = values.shape[:2]
    offsets = np.roll(DITHER_OFFSETS, -(first % 8), axis=0)
    pattern = np.tile(offsets, (-(-height // 8), -(-width // 8)))[:height, :width]
    values = values + (pattern if values.ndim == 2 else pattern[..., None])
    return np.clip(np.rint(values, out=values), 0, peak, out=values)


def finished(source: np.ndarray, result: np.ndarray, finish: Finish) -> np.ndarray:
    """Return a finished picture of the size and type of its source, dithered for that type.

    `source` and `result` are uint8 or uint16 RGB, (H, W, 3) and (h, w, 3). They may differ in type too.
    """
    height, width = source.shape[:2]
    peak = float(np.iinfo(source.dtype).max)
    small = result.astype(np.float32)
    small *= peak / np.iinfo(result.dtype).max
    weights = np.array([LUMA_BT709], np.float32)
    light = np.empty((height, width), np.float32)
    step = max(8, STRIP_PIXELS // width)
    for first in range(0, height, step):
        light[first : first + step] = cv2.transform(source[first : first + step].astype(np.float32), weights)
    detail: np.ndarray | None = None
    if lacks_detail(small.shape[:2], (height, width)):
        smooth = cv2.resize(light, small.shape[1::-1], interpolation=cv2.INTER_AREA)
        gain = detail_gain(smooth, cv2.transform(small, weights), peak / 255)
        detail = np.dstack([gain, smooth])
    elif small.shape != source.shape:
        small = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    out = np.empty_like(source)
    for first in range(0, height, step):
        last = min(height, first + step)
        here = source[first:last].astype(np.float32)
        look = small[first:last]
        if small.shape != source.shape:
            look = enlarged_rows(small, height, width, first, last)
        if detail is not None:
            gain, smooth = np.moveaxis(enlarged_rows(detail, height, width, first, last), 2, 0)
            look = look + (gain * (light[first:last] - smooth))[..., None]
        if finish.keep_colours:
            look = here + (cv2.transform(look, weights) - light[first:last])[..., None]
        if finish.strength < 1:
            look = here + np.float32(finish.strength) * (look - here)
        out[first:last] = rounded(look, peak, first)
    return out
