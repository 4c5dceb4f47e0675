"""The projection of patch features in CUT (Park et al. 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.compute.precision import widened

WIDTH = 256


class PatchProjection(nn.Module):
    """A two-layer perceptron a layer of features, to unit vectors of 256 numbers."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for width in channels
        )

    def forward(self, layer: int, patches: Tensor) -> Tensor:
        """(N, P, C) to unit vectors (N, P, 256)."""
        return F.normalize(widened(self.heads[layer](patches)), dim=-1)
