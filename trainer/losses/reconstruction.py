"""Distances of images from images: L1, blurred colours, tints, total variation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainer.compute.precision import widened

BLUR = 16
"""Edge in pixels of the squares whose mean colours are compared."""
TINT = 4
"""Edge in pixels of the squares whose mean tints are compared."""


def l1(images: Tensor, others: Tensor) -> Tensor:
    """Mean absolute difference, computed in float32 at least."""
    return F.l1_loss(widened(images), widened(others))


def colour_loss(result: Tensor, wanted: Tensor) -> Tensor:
    """L1 between the mean colours of overlapping squares of 16 pixels, or fewer in smaller images; NCHW."""
    edge = min(BLUR, *result.shape[2:])
    step = max(edge // 2, 1)
    return F.l1_loss(F.avg_pool2d(widened(result), edge, step), F.avg_pool2d(widened(wanted), edge, step))


def tint_loss(result: Tensor, wanted: Tensor) -> Tensor:
    """L1 between the mean tints of squares of 4 pixels, NCHW: colours less the mean of their channels.

    A stroke may be lighter or darker than what it paints. A small square of another tint looks like a speck.
    """
    edge = min(TINT, *result.shape[2:])
    tints = [F.avg_pool2d(widened(images), edge) for images in (result, wanted)]
    first, second = (means - means.mean(dim=1, keepdim=True) for means in tints)
    return F.l1_loss(first, second)


def total_variation(images: Tensor) -> Tensor:
    """The sum over an image of absolute differences of neighbours, mean over the batch; NCHW."""
    images = widened(images)
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().sum((1, 2, 3))
    right = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().sum((1, 2, 3))
    return (down + right).mean()
