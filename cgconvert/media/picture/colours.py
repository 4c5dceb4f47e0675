"""Pixels in other colour spaces."""

from __future__ import annotations

import cv2
import numpy as np


def luminance(pixels: np.ndarray) -> np.ndarray:
    """BT.601 luma of RGB pixels (H, W, 3), rounded to their type: (H, W)."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def rgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB pixels (H, W, 3) of uint8: float32, L* in [0, 100]."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """sRGB pixels (H, W, 3) of uint8 from CIE L*a*b* (D65), clipped to what sRGB can show."""
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
