"""The colours of both domains, which the colour loss moves a source by before it is compared with the result.

An adversarial loss accepts any colours of the domain: after little training greens may become violet, as long
as the way back is found. DPED (Ignatov et al. 2017) prevents that by comparing blurred colours with those of
the source. Here the source first takes the target domain's mean and spread of each channel, since these do
differ between domains.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.compute.precision import widened

DECAY = 0.999
"""Decay of the running statistics at each step."""

DARK = 0.25
"""Light, from 0 to 1, below which colours are moved less, down to nothing at black."""


class DomainColours:
    """Running mean and spread of each channel of both domains' images, over some thousand steps."""

    def __init__(self) -> None:
        # By domain, (2, channels): means of the values and of their squares.
        self._moments: dict[str, Tensor] = {}
        self._weight: dict[str, float] = {}

    @torch.no_grad()
    def update(self, domain: str, images: Tensor, joined: bool = False) -> None:
        """Take in a batch, float NCHW. `joined` averages over all processes, so that they know the same."""
        planes = widened(images.detach())
        now = torch.stack([planes.mean(dim=(0, 2, 3)), planes.square().mean(dim=(0, 2, 3))])
        if joined:
            torch.distributed.all_reduce(now)
            now /= torch.distributed.get_world_size()
        before = self._moments.get(domain, torch.zeros_like(now))
        self._moments[domain] = before * DECAY + now * (1 - DECAY)
        self._weight[domain] = self._weight.get(domain, 0.0) * DECAY + (1 - DECAY)

    @torch.no_grad()
    def moved(self, images: Tensor, source: str, target: str) -> Tensor:
        """Images of one domain with the mean and spread of the other in each channel, within [-1, 1]."""
        (mean, spread), (new_mean, new_spread) = self._statistics(source), self._statistics(target)
        scale = (new_spread / spread.clamp_min(1e-3)).view(1, -1, 1, 1)
        moved = (widened(images) - mean.view(1, -1, 1, 1)) * scale + new_mean.view(1, -1, 1, 1)
        return moved.clamp(-1, 1)

    def moved_but_black(self, images: Tensor, source: str, target: str) -> Tensor:
        """`moved`, but black stays black: paper prints have no black, and a video's bars and fades need it.

        The light of a pixel is the mean of its channels. Below `DARK` of it the move shrinks in proportion.
        """
        images = widened(images)
        light = (images.mean(dim=1, keepdim=True) + 1) / 2
        return torch.lerp(images, self.moved(images, source, target), (light / DARK).clamp(0, 1))

    def _statistics(self, domain: str) -> tuple[Tensor, Tensor]:
        mean, square = self._moments[domain] / self._weight[domain]
        return mean, (square - mean.square()).clamp_min(0).sqrt()

    def state_dict(self) -> dict[str, Any]:
        return {"moments": dict(self._moments), "weight": dict(self._weight)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._moments = {domain: moments.to(device) for domain, moments in state["moments"].items()}
        self._weight = dict(state["weight"])
