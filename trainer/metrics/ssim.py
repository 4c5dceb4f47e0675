"""How near two pictures are: structural similarity (Wang et al. 2004) and PSNR."""

from __future__ import annotations

import torch
from torch import Tensor

from cgconvert.media.picture.colours import luminance
from cgconvert.tensors import images
from trainer.data.augment import Pixels
from trainer.losses.ssim import ssim_map


def ssim_luminance(first: Pixels, second: Pixels) -> float:
    """Mean SSIM of the luminance of two pictures of one size (at least 11 pixels a side)."""
    return float(ssim_map(_light(first), _light(second), 255.0).mean())


def _light(pixels: Pixels) -> Tensor:
    """Luminance as float (1, 1, H, W) in [0, 255]."""
    return torch.from_numpy(luminance(pixels))[None, None].float()


def psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal pictures."""
    return images.psnr(torch.from_numpy(first), torch.from_numpy(second), peak=255.0)
