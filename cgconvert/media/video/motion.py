"""Motion between two frames, and frames moved along it."""

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


def warped(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """float32 `values` (H, W, C) at the places that `flow` leads to, interpolated; the edge goes on."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        values, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
