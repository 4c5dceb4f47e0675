"""The offsets with which results are dithered, the same for pixels, planes and tensors."""

from __future__ import annotations

import numpy as np


def _ranks() -> np.ndarray:
    """The order in which an 8x8 Bayer matrix fills up, from 0 to 63."""
    ranks = np.zeros((1, 1), np.float32)
    for _ in range(3):
        ranks = np.block([[4 * ranks, 4 * ranks + 2], [4 * ranks + 3, 4 * ranks + 1]])
    return ranks


DITHER = 0.9
"""Of a whole step: the rest is what a value may be off and still be rounded to where it was."""

DITHER_OFFSETS = ((_ranks() + 0.5) / 64 - 0.5) * np.float32(DITHER)
"""Offsets (8, 8) between -0.45 and 0.45 that turn the steps of a gradient into a fine pattern.

Added to values before they are rounded to whole numbers: the mean of any 8x8 pixels then keeps what rounding
would take from it, and a value that is whole stays as it is, also with a small error of the arithmetic
before. Ordered dithering (Bayer 1973), the same in every frame, which costs a video's encoder least.
"""
