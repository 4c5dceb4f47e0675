"""Pictures to training images: the preprocess modes of the original CycleGAN, and random scale with crop.

What is the same every time is done once and cached (`prepare`), what is random for each image (`augment`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cgconvert.media.picture.resize import resized
from trainer.config import DataConfig

Pixels = NDArray[np.uint8]
"""RGB (H, W, 3), or a pair joined over its channels (H, W, 6)."""

MULTIPLE = 4
"""The original rounds whole pictures to a multiple of 4 pixels; every generator accepts that at least."""


class SizeRule(NamedTuple):
    """What edges of pictures that are trained on whole are rounded to: a multiple, and a least length."""

    multiple: int = MULTIPLE
    least: int = MULTIPLE

    def rounded(self, edge: int) -> int:
        """The nearest length that fits."""
        return max(round(edge / self.multiple), -(-self.least // self.multiple)) * self.multiple


WHOLE = SizeRule()


def prepare(pixels: Pixels, config: DataConfig, rule: SizeRule = WHOLE) -> Pixels:
    """The part of the preprocessing that is the same every time."""
    return resized(pixels, *prepared_size(pixels.shape[1], pixels.shape[0], config, rule))


def prepared_size(width: int, height: int, config: DataConfig, rule: SizeRule = WHOLE) -> tuple[int, int]:
    """Width and height of a picture after `prepare`; `rule` applies to the modes that do not crop."""
    if config.preprocess == "resize_and_crop":
        return config.load_size, config.load_size
    if config.preprocess in ("scale_width", "scale_width_and_crop"):
        scaled = max(round(height * config.load_size / width), 1)
        if config.preprocess == "scale_width_and_crop":
            return config.load_size, max(scaled, config.crop_size)
        return rule.rounded(config.load_size), rule.rounded(scaled)
    if config.preprocess == "none":
        return rule.rounded(width), rule.rounded(height)
    if config.preprocess == "scale_and_crop":
        # As large as the largest scale shows it, but no smaller than a crop: more would be kept for nothing.
        factor = min(1.0, max(config.scale_max, config.crop_size / min(width, height)))
        return max(round(width * factor), 1), max(round(height * factor), 1)
    return width, height


def augment(pixels: Pixels, config: DataConfig, random: np.random.Generator) -> Pixels:
    """A training image from a prepared picture: uint8 (crop_size, crop_size, C), whole in modes without crop.

    Both pictures of a pair get the same crop and flip, since they are channels of one.
    """
    if config.preprocess == "scale_and_crop":
        pixels = _scaled_crop(pixels, config, random)
    elif config.preprocess not in ("none", "scale_width"):
        pixels = _crop(pixels, config.crop_size, random)
    if config.flip and random.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _at_least(pixels: Pixels, edge: int) -> Pixels:
    """Enlarged where an edge is shorter than `edge`."""
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
    """A crop at a random scale; only the crop is resized, which costs less than resizing the picture."""
    # The logarithm of the scale is uniform, so that halving is as likely as doubling.
    scale = config.scale_min * (config.scale_max / config.scale_min) ** random.random()
    scale /= min(config.scale_max, 1.0)  # the picture was reduced by that when it was prepared
    wanted = max(round(config.crop_size / scale), 1)
    edge = min(wanted, *pixels.shape[:2])
    return resized(_crop(pixels, edge, random), config.crop_size, config.crop_size)
