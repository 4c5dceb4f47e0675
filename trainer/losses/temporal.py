"""Temporal consistency learned from single images under synthetic motion (Wang et al. 2022, URecycle-GAN)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compute.precision import widened

FLOW_SIGMA = 8.0  # pixels, of the smooth part
FLOW_CELLS = 8  # its grid points along an edge
SHIFT = 10  # pixels, of the common part
NOISE = 2e-3  # largest standard deviation, on images in [-1, 1]; at least half of it is given
SPOTS = (1, 2, 4)  # pixels, the sizes of its grains
GAIN = 0.04  # exposure flicker: relative gain and gamma up to this


def synthetic_flow(images: Tensor) -> Tensor:
    """A random flow for each image: NHW2 in pixels, one whole shift, for every other image on a smooth field.

    Between pixels the moved result is interpolated, which hides a grid that stays where it is; whole shifts
    alone show it in full.
    """
    count, _, height, width = images.shape
    coarse = torch.randn(count, 2, FLOW_CELLS, FLOW_CELLS, device=images.device) * FLOW_SIGMA
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    shift = torch.randint(-SHIFT, SHIFT + 1, (count, 2, 1, 1), device=images.device)
    bent = torch.rand(count, 1, 1, 1, device=images.device) < 0.5
    return (smooth * bent + shift).permute(0, 2, 3, 1)


def warp(images: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Images moved by a flow in pixels, and a mask N1HW of the pixels whose source lies in the frame."""
    images = widened(images)
    _, _, height, width = images.shape
    flow = flow.to(images.dtype)
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device, dtype=images.dtype),
        torch.arange(width, device=images.device, dtype=images.dtype),
        indexing="ij",
    )
    place_x = (x + flow[..., 0]) / max(width - 1, 1) * 2 - 1
    place_y = (y + flow[..., 1]) / max(height - 1, 1) * 2 - 1
    grid = torch.stack([place_x, place_y], dim=-1)
    mask = (grid.abs() <= 1).all(dim=-1)[:, None].to(images.dtype)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=True)
    return moved, mask


def grain(images: Tensor, noise: float = NOISE) -> Tensor:
    """Noise of the images' shape, its deviation random up to `noise`: a mix of fine noise and larger spots.

    Videos do not carry white noise: what a codec leaves moves in spots of a few pixels.
    """
    count, channels, height, width = images.shape
    shares = torch.rand(len(SPOTS), count, 1, 1, 1, device=images.device) + 1e-3
    shares = shares / shares.square().sum(dim=0).sqrt()
    mixed = torch.zeros_like(widened(images))
    for share, spot in zip(shares, SPOTS, strict=True):
        size = (-(-height // spot), -(-width // spot))
        spots = torch.randn(count, channels, *size, device=images.device)
        mixed = mixed + share * F.interpolate(spots, scale_factor=spot)[..., :height, :width]
    deviation = torch.empty(count, 1, 1, 1, device=images.device).uniform_(noise / 2, noise)
    return deviation * mixed


def flicker(images: Tensor, noise: float = NOISE) -> Tensor:
    """Small random gain, gamma and noise, as a camera gives the same scene from frame to frame."""
    count = images.shape[0]
    gain = 1 + GAIN * (2 * torch.rand(count, 1, 1, 1, device=images.device) - 1)
    gamma = 1 + GAIN * (2 * torch.rand(count, 1, 1, 1, device=images.device) - 1)
    light = ((widened(images) + 1) / 2).clamp(1e-4, 1)
    changed = (gain * light**gamma).clamp(0, 1) * 2 - 1
    return changed + grain(changed, noise)


def temporal_loss(
    generator: Callable[[Tensor], Tensor], images: Tensor, output: Tensor, noise: float = NOISE
) -> Tensor:
    """L1 between the result of a moved image and the moved result, where both are in the frame.

    `output` is generator(images), computed already; this costs one more forward pass. The moved result is
    a target and passes no gradient, so that the generator cannot agree with itself by getting blurred.
    """
    flow = synthetic_flow(images)
    moved, mask = warp(images, flow)
    target, _ = warp(output.detach(), flow)
    result = widened(generator(flicker(moved, noise)))
    return (mask * (result - target).abs()).sum() / (mask.sum() * result.shape[1]).clamp_min(1)
