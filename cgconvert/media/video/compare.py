"""Source and result in one picture."""

from __future__ import annotations

import cv2
import numpy as np


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels (H, W, 3) at another size: averaged when smaller, bicubic when larger."""
    if pixels.shape[:2] == (height, width):
        return pixels
    smaller = height < pixels.shape[0]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def compare(source: np.ndarray, result: np.ndarray, mode: str) -> np.ndarray:
    """Source on the left and result on the right: whole pictures ("side"), or halves of one ("split").

    The result is brought to the source's size. Between halves stands a white line.
    """
    height, width, _ = source.shape
    result = resized(result, width, height)
    if mode == "side":
        return np.concatenate([source, result], axis=1)
    middle = width // 2
    line = max(1, width // 480)
    joined = np.concatenate([source[:, :middle], result[:, middle:]], axis=1)
    joined[:, middle - line : middle + line] = np.iinfo(joined.dtype).max
    return joined
