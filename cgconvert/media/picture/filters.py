"""Filters whose results are measured: a Laplacian pyramid, and gradients."""

from __future__ import annotations

import cv2
import numpy as np

from cgconvert.media.picture.colours import luminance


def laplacian_pyramid(pixels: np.ndarray, levels: int) -> list[np.ndarray]:
    """The band-pass levels of pixels (H, W, 3), finest first, and last the low-pass rest.

    Each is float32 (H, W, 3); they add up to the picture (Burt and Adelson 1983, 5x5 binomial filter).
    """
    current = pixels.astype(np.float32)
    pyramid = []
    for _ in range(levels - 1):
        smaller = cv2.pyrDown(current, borderType=cv2.BORDER_REFLECT_101)
        larger = cv2.pyrUp(smaller, dstsize=(current.shape[1], current.shape[0]))
        pyramid.append(current - larger)
        current = smaller
    return [*pyramid, current]


def mean_gradient(pixels: np.ndarray) -> float:
    """Mean absolute Sobel gradient of the luminance, along both axes together: how sharp a picture is."""
    light = luminance(pixels).astype(np.float32)
    across, down = (cv2.Sobel(light, cv2.CV_32F, x, 1 - x) for x in (1, 0))
    return float(np.abs(across).mean() + np.abs(down).mean())
