"""Classical colour transfer (Reinhard et al. 2001): the baseline that a network must beat."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from cgconvert.errors import UsageError
from trainer.data.augment import Pixels


def _lab(pixels: Pixels) -> np.ndarray:
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


class ReinhardTransfer:
    """Gives a picture the mean and spread of each Lab channel of a target picture.

    Each picture gets one target of its own, in turn, since the mean of many paintings is the look of none.
    Raises `UsageError` without targets.
    """

    def __init__(self, targets: Sequence[Pixels]) -> None:
        if not targets:
            raise UsageError("colour transfer needs target pictures")
        self._statistics = [(lab.mean((0, 1)), lab.std((0, 1))) for lab in map(_lab, targets)]

    def convert(self, pixels: Pixels, index: int) -> Pixels:
        """uint8 (H, W, 3), coloured as target `index` (taken modulo their number)."""
        mean, spread = self._statistics[index % len(self._statistics)]
        lab = _lab(pixels)
        own_mean, own_spread = lab.mean((0, 1)), lab.std((0, 1))
        changed = (lab - own_mean) * (spread / np.maximum(own_spread, 1e-3)) + mean
        rgb = cv2.cvtColor(changed.astype(np.float32), cv2.COLOR_LAB2RGB)
        return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
