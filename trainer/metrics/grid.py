"""Whether upsampling has left a grid: spectral power at periods of 2 and 4 pixels (Odena et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cgconvert.errors import UsageError
from cgconvert.tensors.images import LUMA_BT601
from trainer.data.augment import Pixels
from trainer.metrics.swd import square

RING = 3  # bins


def grid_power(pictures: Sequence[Pixels], edge: int = 256) -> float:
    """Power of luminance at the points of period 2 and 4 pixels, over that of the rings around them.

    About 1.2 to 1.5 for photographs and paintings, since a plain Fourier transform sees the borders as
    edges, which lie on the axes as most of these points do; a grid that can be seen gives 3 and more.
    Every point whose two frequencies are multiples of a quarter (in cycles a pixel) counts but the
    constant one; its ring are the bins up to 3 away. Spectra are averaged over the pictures first.
    `edge` is a multiple of 4. Raises `UsageError` without pictures.
    """
    if not pictures:
        raise UsageError("the grid figure needs pictures")
    weights = np.array(LUMA_BT601)
    power = np.zeros((edge, edge))
    for pixels in pictures:
        luminance = square(pixels, edge).astype(np.float64) @ weights
        power += np.abs(np.fft.fft2(luminance - luminance.mean())) ** 2
    quarters = [index * edge // 4 for index in range(4)]
    points = [(y, x) for y in quarters for x in quarters if (y, x) != (0, 0)]
    return float(np.mean([_ratio(power, y, x) for y, x in points]))


def _ratio(power: np.ndarray, y: int, x: int) -> float:
    """Power of one bin over the mean of those around it, across the spectrum's borders."""
    offsets = np.arange(-RING, RING + 1)
    patch = power[np.ix_((y + offsets) % len(power), (x + offsets) % len(power))]
    distance = np.hypot(offsets[:, None], offsets[None, :])
    ring = (distance > 0) & (distance <= RING)
    return float(patch[RING, RING] / max(patch[ring].mean(), 1e-12))
