"""Pixels at another size."""

from __future__ import annotations

import cv2
import numpy as np


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels (H, W, C) of uint8 or uint16 at another size: averaged over areas if smaller, else bicubic.

    Bicubic interpolation has no filter against aliasing, so that it is only for enlarging. Any number of
    channels is taken, such as the six of a pair of pictures.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    smaller = width * height < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    # OpenCV resizes four channels at most.
    channels = np.array_split(pixels, -(-pixels.shape[2] // 4), axis=2)
    parts = [
        cv2.resize(part, (width, height), interpolation=method).reshape(height, width, -1)
        for part in channels
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
