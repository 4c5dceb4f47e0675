"""Motion between two frames, by DIS optical flow (Kroeger et al. 2016)."""

from __future__ import annotations

import cv2
import numpy as np

from cgconvert.media.picture.colours import luminance

SMALLEST = 16
"""Edge of the smallest frame, in pixels, whose motion is looked for."""


class MotionEstimator:
    """Finds motion between frames of one size; with `fast` in a third of the time, less exact at edges.

    The fast way is OpenCV's medium preset with fewer patches and iterations. Its own faster presets stop at
    half the resolution, from which strokes come out moved by fractions of a pixel: with them the warp error
    of steadied videos was two to four times as large (`docs/steady.md`).
    """

    def __init__(self, fast: bool = False) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        if fast:
            self._dis.setPatchStride(4)
            self._dis.setGradientDescentIterations(16)
            self._dis.setVariationalRefinementIterations(2)

    def motion(self, luma: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Where each pixel of `luma` lies in `other`: float32 (H, W, 2), the way in pixels right and down.

        Both are uint8 (H, W). Frames smaller than `SMALLEST` stand still.
        """
        if min(luma.shape) < SMALLEST:
            return np.zeros((*luma.shape, 2), np.float32)
        return self._dis.calc(luma, other, None)


def optical_flow(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where each pixel of `frame` lies in `other`: float32 (H, W, 2), the way in pixels right and down.

    Frames are uint8 RGB (H, W, 3) of one size.
    """
    return MotionEstimator().motion(luminance(frame), luminance(other))
