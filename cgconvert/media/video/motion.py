"""Motion between two frames, by DIS optical flow (Kroeger et al. 2016)."""

from __future__ import annotations

import cv2
import numpy as np

from cgconvert.media.picture.colours import luminance

SMALLEST = 16
"""Edge of the smallest frame, in pixels, whose motion is looked for."""

FAST_SIZE = 0.75
"""Size at which the fast way looks for motion, over that of the frames."""


class MotionEstimator:
    """Finds motion between frames of one size; with `fast` in less than half the time, less exact at edges.

    The fast way is OpenCV's medium preset with fewer patches and iterations, on frames of `FAST_SIZE`. Its
    own faster presets stop at half the resolution, from which strokes come out moved by fractions of a pixel:
    with them the warp error of steadied videos was two to four times as large (`docs/steady.md`).
    """

    def __init__(self, fast: bool = False) -> None:
        self.fast = fast
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        if fast:
            self._dis.setPatchStride(4)
            self._dis.setGradientDescentIterations(6)
            self._dis.setVariationalRefinementIterations(2)

    def motion(self, luma: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Where each pixel of `luma` lies in `other`: float32 (H, W, 2), the way in pixels right and down.

        Both are uint8 (H, W). Frames smaller than `SMALLEST` stand still.
        """
        height, width = luma.shape
        seen = (round(width * FAST_SIZE), round(height * FAST_SIZE)) if self.fast else (width, height)
        if min(seen) < SMALLEST:
            return np.zeros((*luma.shape, 2), np.float32)
        if not self.fast:
            return self._dis.calc(luma, other, None)
        here, there = (cv2.resize(frame, seen, interpolation=cv2.INTER_AREA) for frame in (luma, other))
        flow = self._dis.calc(here, there, None)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.multiply(flow, (width / seen[0], height / seen[1], 0, 0), dst=flow)


def optical_flow(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where each pixel of `frame` lies in `other`: float32 (H, W, 2), the way in pixels right and down.

    Frames are uint8 RGB (H, W, 3) of one size.
    """
    return MotionEstimator().motion(luminance(frame), luminance(other))
