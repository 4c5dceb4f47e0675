"""Temporal consistency learned from single images under synthetic motion (Wang et al. 2022, URecycle-GAN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compute.precision import widened

FLOW_SIGMA = 8.0
"""Standard deviation in pixels of the smooth part of the flow."""

FLOW_CELLS = 8
"""Grid points of the smooth part along an edge."""

SHIFT = 10
"""Largest shift of a whole image, in pixels along each axis."""

NOISE = 2e-3
"""Largest standard deviation of the noise, on images in [-1, 1]; at least half of it is given."""

SPOTS = (1, 2, 4)
"""Edges in pixels of the spots that the noise is mixed from."""

GAIN = 0.04
"""Largest relative change of brightness and of gamma."""


def synthetic_flow(images: Tensor) -> Tensor:
    """A random flow for each image, NHW2 in pixels: one whole shift, in half of them with a smooth field.

    Between pixels the moved result is interpolated, which hides a grid that stays where it is. Whole shifts
    alone show such a grid in full.
    """
    count, _, height, width = images.shape
    coarse = torch.randn(count, 2, FLOW_CELLS, FLOW_CELLS, device=images.device) * FLOW_SIGMA
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    shift = torch.randint(-SHIFT, SHIFT + 1, (count, 2, 1, 1), device=images.device)
    bent = torch.rand(count, 1, 1, 1, device=images.device) < 0.5
    return (smooth * bent + shift).permute(0, 2, 3, 1)


def warp(images: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Images NCHW moved by a flow NHW2 in pixels, and a mask N1HW of where the source is in the frame."""
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

    Videos do not carry white noise, since what a codec leaves of it moves in spots of a few pixels.
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


def next_frame(images: Tensor, results: Tensor, noise: float = NOISE) -> tuple[Tensor, Tensor, Tensor]:
    """A synthetic next frame of `images`, the result that is wanted of it, and the mask where that is known.

    `results` are a generator's of `images`; both NCHW in [-1, 1]. The wanted result is the moved one. It
    passes no gradient, so that a generator cannot agree with itself by getting blurred.
    """
    flow = synthetic_flow(images)
    moved, mask = warp(images, flow)
    wanted, _ = warp(results.detach(), flow)
    return flicker(moved, noise), wanted, mask


def masked_l1(results: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of NCHW images where the mask N1HW is 1; computed in float32 at least."""
    differences = mask * (widened(results) - widened(wanted)).abs()
    return differences.sum() / (mask.sum() * results.shape[1]).clamp_min(1)


@dataclass(frozen=True)
class Change:
    """What happens between two frames: for each image motion, only grain, or other light.

    `flow` is NHW2 in pixels; `gain` and `flash` are N1HW or N111: light is multiplied by the one and goes
    towards white by the other.
    """

    flow: Tensor
    gain: Tensor
    flash: Tensor

    def next_frame(self, images: Tensor, noise: Tensor, grain: float) -> tuple[Tensor, Tensor]:
        """What a generator sees next, and the mask N1HW of what was in the frame before.

        The images NCHW are moved, in the new light and with grain of up to the given deviation. The noise
        N?HW that goes in beside them moves along.
        """
        moved, mask = warp(torch.cat([images, noise.to(images.dtype)], dim=1), self.flow)
        channels = images.shape[1]
        seen = flicker(self._lit(moved[:, :channels]), grain)
        return torch.cat([seen, moved[:, channels:]], dim=1).to(images.dtype), mask

    def wanted(self, results: Tensor) -> Tensor:
        """What a generator should make of the next frame, if it has made `results` of the images.

        It passes no gradient, so that a generator cannot agree with itself by getting blurred.
        """
        return self._lit(warp(results.detach(), self.flow)[0])

    def _lit(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] in the new light: black stays black under a gain, white under a flash."""
        faded = (images + 1) * self.gain - 1
        return faded + (1 - faded) * self.flash


def draw_change(images: Tensor) -> Change:
    """A random change for each image: motion for half of them, other light for a quarter, else nothing.

    Other light is a fade, often to black, for half of those, a black bar at one edge, or a flash.
    """
    count, _, height, width = images.shape
    device = images.device

    def draw() -> Tensor:
        return torch.rand(count, 1, 1, 1, device=device)

    kind, light = draw(), draw()
    lit = kind < 0.25
    flow = synthetic_flow(images) * (kind >= 0.5)
    fade = draw() * (draw() > 0.3)
    # A bar at one of the four edges: rows or columns counted from there, as a share of the edge.
    down = torch.linspace(0, 1, height, device=device).view(1, 1, height, 1)
    right = torch.linspace(0, 1, width, device=device).view(1, 1, 1, width)
    edge, depth = (4 * draw()).floor(), 0.05 + 0.4 * draw()
    place = torch.where(edge < 2, down, right)
    bar = torch.where(edge % 2 == 0, place, 1 - place) < depth
    gain = torch.where(light < 0.5, fade, torch.where(light < 0.8, 1.0 - bar.float(), 1.0))
    flash = torch.where(light >= 0.8, draw(), 0.0)
    return Change(flow, torch.where(lit, gain, 1.0), torch.where(lit, flash, 0.0))
