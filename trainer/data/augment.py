"""Pictures to training images: the original's preprocess modes, and random scale with crop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cgconvert.media.picture.resize import resized
from trainer.config import DataConfig

Pixels = NDArray[np.uint8]
MULTIPLE = 4  # what every generator accepts; the original rounds to it as well
SizeRule = tuple[int, int]  # what whole pictures are rounded to: the multiple and the least of their edges
WHOLE: SizeRule = (MULTIPLE, MULTIPLE)


def prepare(pixels: Pixels, config: DataConfig, rule: SizeRule = WHOLE) -> Pixels:
    """The part of the preprocessing that is the same every time, done once before pictures are cached."""
    return resized(pixels, *prepared_size(pixels.shape[1], pixels.shape[0], config, rule))


def prepared_size(width: int, height: int, config: DataConfig, rule: SizeRule = WHOLE) -> tuple[int, int]:
    """Width and height of a picture after `prepare`; `rule` is for pictures that are trained on whole."""
    if config.preprocess == "resize_and_crop":
        return config.load_size, config.load_size
    if config.preprocess in ("scale_width", "scale_width_and_crop"):
        scaled = max(round(height * config.load_size / width), 1)
        if config.preprocess == "scale_width_and_crop":
            scaled = max(scaled, config.crop_size)
            return config.load_size, scaled
        return _rounded(config.load_size, rule), _rounded(scaled, rule)
    if config.preprocess == "none":
        return _rounded(width, rule), _rounded(height, rule)
    return width, height


def _rounded(edge: int, rule: SizeRule) -> int:
    multiple, least = rule
    return max(round(edge / multiple), -(-least // multiple)) * multiple


def augment(pixels: Pixels, config: DataConfig, random: np.random.Generator) -> Pixels:
    """A training image from a prepared picture: uint8 (crop, crop, C), or the whole picture without crop."""
    if config.preprocess == "scale_and_crop":
        pixels = _scaled_crop(pixels, config, random)
    elif config.preprocess not in ("none", "scale_width"):
        pixels = _crop(pixels, config.crop_size, random)
    if config.flip and random.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _at_least(pixels: Pixels, edge: int) -> Pixels:
    height, width = pixels.shape[:2]
    factor = edge / min(height, width)
    if factor <= 1:
        return pixels
    return resized(pixels, max(round(width * factor), edge), max(round(height * factor), edge))


def _crop(pixels: Pixels, edge: int, random: np.random.Generator) -> Pixels:
    pixels = _at_least(pixels, edge)
    top = int(random.integers(pixels.shape[0] - edge + 1))
    left = int(random.integers(pixels.shape[1] - edge + 1))
    return pixels[top : top + edge, left : left + edge]


def _scaled_crop(pixels: Pixels, config: DataConfig, random: np.random.Generator) -> Pixels:
    """Crop, then resize only the crop: as resizing the whole and cropping, at less cost."""
    scale = config.scale_min * (config.scale_max / config.scale_min) ** random.random()
    wanted = max(round(config.crop_size / scale), 1)
    edge = min(wanted, *pixels.shape[:2])
    return resized(_crop(pixels, edge, random), config.crop_size, config.crop_size)
