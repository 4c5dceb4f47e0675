"""Paintings without their strokes: sources whose painted truth is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compute.precision import widened

RADIUS = 5
"""Of the filter's windows, in pixels: wider than a stroke."""
CONTRAST = 0.25
"""Standard deviation in a window, on [-1, 1], from which an edge is kept: above that of strokes."""
GRAIN = 0.01
"""Deviation of the noise that is added, since no photograph is perfectly smooth."""


@torch.no_grad()
def unpainted(images: Tensor) -> Tensor:
    """Images NCHW in [-1, 1], smoothed where they are not cut by edges, of the same shape and type.

    The guided filter (He et al. 2013, "Guided Image Filtering") with the images' own light as the guide:
    strokes go, outlines stay. At least 16 pixels an edge.
    """
    pixels = widened(images)
    light = pixels.mean(dim=1, keepdim=True)
    mean, mean_light = _mean(pixels), _mean(light)
    covariance = _mean(pixels * light) - mean * mean_light
    variance = _mean(light.square()) - mean_light.square()
    slope = covariance / (variance + CONTRAST**2)
    smooth = _mean(slope) * light + _mean(mean - slope * mean_light)
    return (smooth + GRAIN * torch.randn_like(smooth)).clamp(-1, 1).to(images.dtype)


def _mean(images: Tensor) -> Tensor:
    """Means of windows of `RADIUS` pixels to each side."""
    padded = F.pad(images, (RADIUS,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * RADIUS + 1, 1)
