"""The projection of patch features in CUT (Park et al. 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.compute.precision import widened

WIDTH = 256


class PatchProjection(nn.Module):
    """A perceptron of two layers for each layer of features, which gives unit vectors of 256 numbers."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for width in channels
        )

    def forward(self, layer: int, patches: Tensor) -> Tensor:
        """Unit vectors (N, P, 256) of the patches (N, P, C) of a layer of features."""
        return F.normalize(widened(self.heads[layer](patches)), dim=-1)
