"""Structural similarity (Wang et al. 2004) and PSNR."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from cgconvert.tensors import images
from trainer.data.augment import Pixels
from trainer.losses.ssim import ssim_map

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def luminance(pixels: Pixels) -> Tensor:
    """uint8 (H, W, 3) to BT.601 luminance, float (1, 1, H, W) in [0, 255]."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return torch.from_numpy(grey.astype(np.float32))[None, None]


def ssim_luminance(first: Pixels, second: Pixels) -> float:
    """Mean SSIM of the luminance of two pictures of one size (at least 11 pixels a side)."""
    return float(ssim_map(luminance(first), luminance(second), 255.0).mean())


def psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal pictures."""
    return images.psnr(torch.from_numpy(first), torch.from_numpy(second), peak=255.0)
