"""Motion between two frames."""

from __future__ import annotations

import cv2
import numpy as np

from cgconvert.media.picture.colours import luminance


def optical_flow(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where each pixel of `frame` lies in `other`: float32 (H, W, 2), the way in pixels right and down.

    Frames are uint8 RGB (H, W, 3) of one size. The method is DIS (Kroeger et al. 2016).
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(luminance(frame), luminance(other), None)
