"""Structural similarity (Wang et al. 2004), differentiable."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compute.precision import widened

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim_map(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """SSIM at every place where the 11x11 Gaussian window fits: NCHW to N C H-10 W-10; differentiable.

    It is computed in float32 at least, under autocast too: a variance is a small difference of large means,
    and where a picture is smooth half precision makes it negative and the quotient infinite.
    """
    with torch.autocast(first.device.type, enabled=False):
        return _ssim_map(widened(first), widened(second), data_range)


def _ssim_map(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    channels = first.shape[1]
    line = torch.arange(WINDOW, dtype=first.dtype, device=first.device) - WINDOW // 2
    line = torch.exp(-(line**2) / (2 * SIGMA**2))
    line = line / line.sum()
    row, column = (
        line.view(shape).expand(channels, 1, *shape[2:]) for shape in ((1, 1, 1, -1), (1, 1, -1, 1))
    )

    def mean(images: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(images, row, groups=channels), column, groups=channels)

    mean_1, mean_2 = mean(first), mean(second)
    var_1 = mean(first * first) - mean_1**2
    var_2 = mean(second * second) - mean_2**2
    both = mean(first * second) - mean_1 * mean_2
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    top = (2 * mean_1 * mean_2 + c1) * (2 * both + c2)
    return top / ((mean_1**2 + mean_2**2 + c1) * (var_1 + var_2 + c2))
