"""Sliced Wasserstein distance of patches over a Laplacian pyramid (Karras et al. 2018, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgconvert.errors import UsageError
from cgconvert.media.picture.filters import laplacian_pyramid
from cgconvert.media.picture.resize import resized
from trainer.data.augment import Pixels

PATCH = 7
PATCHES = 128  # an image and level
DIRECTIONS = 512
REPEATS = 4
SMALLEST = 32  # edge of the last level; below, a patch would be the picture
Descriptors = NDArray[np.float32]


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distances times 1000 by level (edge of a square level in pixels, finest first), and their means.

    `normalised` compares sets that were each brought to zero mean and unit variance a channel and level, as
    published: the shapes of the distributions, blind to overall colour and contrast. `common` brings both by
    the reference's own mean and variance, so that these count as well.
    """

    levels: tuple[int, ...]
    normalised: tuple[float, ...]
    common: tuple[float, ...]

    @property
    def mean_normalised(self) -> float:
        return float(np.mean(self.normalised))

    @property
    def mean_common(self) -> float:
        return float(np.mean(self.common))


def square(pixels: Pixels, edge: int) -> Pixels:
    """The largest central square, resized to `edge`."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = pixels[top : top + side, left : left + side]
    return resized(crop, edge, edge)


def _descriptors(pictures: Sequence[Pixels], edge: int, seed: int) -> list[Descriptors]:
    """For each level the patches of all pictures: (pictures x PATCHES, PATCH, PATCH, 3)."""
    count = 1
    while edge >> count >= SMALLEST:
        count += 1
    random = np.random.default_rng(seed)
    levels: list[list[Descriptors]] = [[] for _ in range(count)]
    for pixels in pictures:
        for level, band in enumerate(laplacian_pyramid(square(pixels, edge), count)):
            tops = random.integers(0, band.shape[0] - PATCH + 1, PATCHES)
            lefts = random.integers(0, band.shape[1] - PATCH + 1, PATCHES)
            windows = np.lib.stride_tricks.sliding_window_view(band, (PATCH, PATCH), axis=(0, 1))
            levels[level].append(windows[tops, lefts].transpose(0, 2, 3, 1))
    return [np.concatenate(parts).astype(np.float32) for parts in levels]


def _standardised(patches: Descriptors, by: Descriptors) -> Descriptors:
    mean = by.mean(axis=(0, 1, 2), keepdims=True)
    spread = by.std(axis=(0, 1, 2), keepdims=True)
    # A level without any signal (flat pictures) has no shape: it stays zero.
    scaled = (patches - mean) / np.maximum(spread, 1e-6)
    return scaled.reshape(len(patches), -1).astype(np.float32)


def _distance(first: Descriptors, second: Descriptors, random: np.random.Generator) -> float:
    """Mean distance of sorted projections on random directions."""
    distances = []
    for _ in range(REPEATS):
        directions = random.standard_normal((first.shape[1], DIRECTIONS)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=0, keepdims=True)
        # A row for each direction: sorting along rows takes half the time of sorting along columns.
        one, two = (np.sort(directions.T @ patches.T, axis=1) for patches in (first, second))
        distances.append(float(np.abs(one - two).mean()))
    return float(np.mean(distances))


def sliced_wasserstein(
    pictures: Sequence[Pixels], reference: Sequence[Pixels], edge: int = 256, seed: int = 0
) -> SlicedWasserstein:
    """Distance of a set of pictures from a reference set, both as central squares of `edge` pixels.

    Deterministic for a seed. The larger set is thinned to the size of the smaller one, since the distance
    of finite samples depends on how many there are. Raises `UsageError` where a set is empty.
    """
    if not pictures or not reference:
        raise UsageError("the sliced Wasserstein distance needs pictures on both sides")
    ours, theirs = _descriptors(pictures, edge, seed), _descriptors(reference, edge, seed + 1)
    random = np.random.default_rng(seed + 2)
    normalised, common = [], []
    for first, second in zip(ours, theirs, strict=True):
        count = min(len(first), len(second))
        first = first[random.permutation(len(first))[:count]]
        second = second[random.permutation(len(second))[:count]]
        scaled = _standardised(second, second)
        normalised.append(1000 * _distance(_standardised(first, first), scaled, random))
        common.append(1000 * _distance(_standardised(first, second), scaled, random))
    return SlicedWasserstein(
        tuple(edge >> level for level in range(len(ours))), tuple(normalised), tuple(common)
    )
