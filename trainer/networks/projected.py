"""Discriminators that judge pretrained features (Sauer et al. 2021, "Projected GANs Converge Faster")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trainer.networks.efficientnet import CHANNELS

WIDTH = 32  # channels of the mixed features at stride 4, doubled at each further level
MOST = 256  # channels of a head
DOWNS = (2, 1, 0, 0)  # halvings in each level's head: all but the deepest judge on a grid of stride 16
SMALLEST = 64  # pixels: edge of images below which the deepest features are too few


class BatchStatistics(nn.Module):
    """Batch norm over groups of `count` images, with those images' own statistics at all times.

    Real and fake images may go through in one pass: each group is normalised as if it came alone, as the
    published step has it (StyleGAN-XL's local batch norm). There are no running statistics.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        parts = [F.batch_norm(part, None, None, self.weight, self.bias, True) for part in x.split(self.count)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class FeatureMixing(nn.Module):
    """Random fixed mixing across the channels of each level, then across levels from deep to shallow.

    It keeps the discriminators from looking at a few prominent features only. The weights never learn: they
    are buffers, drawn from torch's global random numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.widths = [WIDTH * 2**level for level in range(len(CHANNELS))]
        for level, (channels, width) in enumerate(zip(CHANNELS, self.widths, strict=True)):
            out = self.widths[max(level - 1, 0)]
            self.register_buffer(
                f"across_{level}", nn.init.kaiming_normal_(torch.empty(width, channels, 1, 1))
            )
            self.register_buffer(f"down_{level}", nn.init.kaiming_normal_(torch.empty(out, width, 3, 3)))
        self.channels = [self.widths[max(level - 1, 0)] for level in range(len(CHANNELS))]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """A map for each level, at the features' own sizes, with `channels` channels."""
        mixed: list[Tensor] = []
        above: Tensor | None = None
        for level in reversed(range(len(features))):
            x = F.conv2d(features[level], self.get_buffer(f"across_{level}"))
            if above is not None:
                x = x + F.interpolate(above, size=x.shape[2:], mode="bilinear", align_corners=False)
            above = F.conv2d(F.relu(x), self.get_buffer(f"down_{level}"), padding=1)
            mixed.insert(0, above)
        return mixed


class ProjectedDiscriminator(nn.Module):
    """A small head with spectral norm on each level of the mixed features.

    Takes the features of `EfficientNetLite0.features` (not images, so that who has computed them for another
    loss need not do it again); returns a map of logits for each level. `count` is the number of images in a
    batch of one kind (see `BatchStatistics`).
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.mixing = FeatureMixing()
        heads = zip(self.mixing.channels, DOWNS, strict=True)
        self.heads = nn.ModuleList(_head(channels, downs, count) for channels, downs in heads)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [head(mixed) for head, mixed in zip(self.heads, self.mixing(features), strict=True)]


def _head(channels: int, downs: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(max(downs, 1)):
        wider = min(2 * channels, MOST) if downs else channels
        kernel, stride = (4, 2) if downs else (3, 1)
        convolution = nn.Conv2d(channels, wider, kernel, stride, 1, bias=False)
        layers += [spectral_norm(convolution), BatchStatistics(wider, count), nn.LeakyReLU(0.2)]
        channels = wider
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 3, 1, 1)))
