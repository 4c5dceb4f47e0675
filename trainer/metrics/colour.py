"""Classical colour transfer (Reinhard et al. 2001): the baseline that a network must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cgconvert.errors import UsageError
from cgconvert.media.picture.colours import lab_to_rgb, rgb_to_lab
from trainer.data.augment import Pixels


class ReinhardTransfer:
    """Gives a picture the mean and spread of each Lab channel of a target picture.

    Each picture gets one target of its own, in turn, since the mean of many paintings is the look of none.
    Raises `UsageError` without targets.
    """

    def __init__(self, targets: Sequence[Pixels]) -> None:
        if not targets:
            raise UsageError("colour transfer needs target pictures")
        self._statistics = [(lab.mean((0, 1)), lab.std((0, 1))) for lab in map(rgb_to_lab, targets)]

    def convert(self, pixels: Pixels, index: int) -> Pixels:
        """uint8 (H, W, 3), coloured as target `index` (taken modulo their number)."""
        mean, spread = self._statistics[index % len(self._statistics)]
        lab = rgb_to_lab(pixels)
        own_mean, own_spread = lab.mean((0, 1)), lab.std((0, 1))
        return lab_to_rgb((lab - own_mean) * (spread / np.maximum(own_spread, 1e-3)) + mean)
