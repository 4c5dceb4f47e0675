"""The networks of DCGAN (Radford, Metz, Chintala 2016), for pictures from noise, with or without labels."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError

SMALLEST, LARGEST = 16, 256  # edges of pictures, powers of two
MOST_WIDENING = 8  # channels at the smallest size, in units of ngf


def _steps(size: int) -> int:
    """How often 4 is doubled to become `size`. Raises `UsageError` where that leads nowhere."""
    if not SMALLEST <= size <= LARGEST or size & (size - 1):
        raise UsageError(
            f"data.crop_size of a gan must be a power of two from {SMALLEST} to {LARGEST}, got {size}"
        )
    return int(math.log2(size)) - 2


class DcganGenerator(nn.Module):
    """Noise (N, latent), and labels (N,) if there are `classes`, to images (N, 3, size, size) in [-1, 1].

    Transposed convolutions from 4x4 on, each doubling the size, with batch norms and ReLUs, and tanh at the
    end. A label is an embedding that is joined to the noise (Mirza and Osindero 2014).
    """

    def __init__(self, size: int = 64, latent: int = 100, ngf: int = 64, classes: int = 0) -> None:
        super().__init__()
        steps = _steps(size)
        self.latent, self.classes = latent, classes
        self.embedding = nn.Embedding(classes, latent) if classes else None
        widths = [ngf * min(2 ** (steps - 1 - step), MOST_WIDENING) for step in range(steps)]
        joined = latent * (2 if classes else 1)
        layers: list[nn.Module] = [nn.ConvTranspose2d(joined, widths[0], 4, 1, 0, bias=False)]
        for wider, width in pairwise(widths):
            layers += [nn.BatchNorm2d(wider), nn.ReLU(True)]
            layers += [nn.ConvTranspose2d(wider, width, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(True), nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            noise = torch.cat([noise, self.embedding(labels)], dim=1)
        return self.layers(noise[:, :, None, None])


class DcganDiscriminator(nn.Module):
    """Images (N, 3, size, size), and their labels (N,) if there are `classes`, to logits (N,).

    Strided convolutions down to 4x4 with batch norms but in the first, and leaky ReLUs. What a label adds is
    the product of its embedding with the last features (Miyato and Koyama 2018).
    """

    def __init__(self, size: int = 64, ndf: int = 64, classes: int = 0) -> None:
        super().__init__()
        widths = [ndf * min(2**step, MOST_WIDENING) for step in range(_steps(size))]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for width, wider in pairwise(widths):
            layers += [nn.Conv2d(width, wider, 4, 2, 1, bias=False), nn.BatchNorm2d(wider)]
            layers += [nn.LeakyReLU(0.2, True)]
        self.layers = nn.Sequential(*layers)
        self.judge = nn.Conv2d(widths[-1], 1, 4)
        self.embedding = nn.Embedding(classes, widths[-1]) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.layers(images)
        logits = self.judge(features).flatten()
        if self.embedding is not None:
            logits = logits + (self.embedding(labels) * features.mean(dim=(2, 3))).sum(dim=1)
        return logits
