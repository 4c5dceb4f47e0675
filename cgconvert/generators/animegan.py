"""The generator of AnimeGANv2 (Chen et al. 2020) as its PyTorch port has it, key-compatible with that."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def _layers(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Sequential:
    """A padded convolution, a normalisation over all values of a picture, and a leaky ReLU.

    A strided convolution is padded at the right and the bottom only, as in TensorFlow, where it is from.
    """
    pad = (0, 1, 0, 1) if stride == 2 else kernel // 2
    return nn.Sequential(
        nn.ReflectionPad2d(pad),
        nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=bias),
        nn.GroupNorm(1, outputs),
        nn.LeakyReLU(0.2, inplace=True),
    )


class InvertedResidual(nn.Module):
    """Twice the channels, a 3x3 convolution of each alone, back; added to the input if that fits."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = 2 * inputs
        self.is_residual = inputs == outputs
        self.layers = nn.Sequential(
            _layers(inputs, wide, kernel=1),
            _layers(wide, wide, groups=wide, bias=True),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.GroupNorm(1, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class AnimeGANGenerator(nn.Module):
    """Two strided convolutions down, inverted residuals, and bilinear resizing up; 32 is the published `ngf`.

    `align_corners` is the way of resizing, which no weight shows. The port's network has True as its default.

    Input and output: float NCHW in [-1, 1], height and width multiples of 4 and at least 16.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 3, ngf: int = 32, align_corners: bool = True
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        full, half, quarter, deep = ngf, 2 * ngf, 4 * ngf, 8 * ngf
        self.block_a = nn.Sequential(
            _layers(in_channels, full, kernel=7), _layers(full, half, stride=2), _layers(half, half)
        )
        self.block_b = nn.Sequential(_layers(half, quarter, stride=2), _layers(quarter, quarter))
        self.block_c = nn.Sequential(
            _layers(quarter, quarter),
            InvertedResidual(quarter, deep),
            *(InvertedResidual(deep, deep) for _ in range(3)),
            _layers(deep, quarter),
        )
        self.block_d = nn.Sequential(_layers(quarter, quarter), _layers(quarter, quarter))
        self.block_e = nn.Sequential(
            _layers(quarter, half), _layers(half, half), _layers(half, full, kernel=7)
        )
        self.out_layer = nn.Sequential(nn.Conv2d(full, out_channels, 1, bias=False), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        half = self.block_a(x)
        features = self.block_c(self.block_b(half))
        features = self.block_d(self._resized(features, half))
        return self.out_layer(self.block_e(self._resized(features, x)))

    def _resized(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=self.align_corners)
