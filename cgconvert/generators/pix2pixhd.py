"""The coarse-to-fine generator of pix2pixHD (Wang et al. 2018): a global network and local enhancers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.generators.resnet import (
    Norm,
    Padding,
    ResnetBlock,
    Upsampling,
    has_bias,
    norm_layers,
    upsampling_layers,
)


class Pix2PixHDGenerator(nn.Module):
    """A global network at reduced size, whose last features each enhancer refines at twice its size.

    The global network halves `downs` times, has `blocks` residual blocks and comes back; with `enhancers` 0
    it is all there is. Enhancer k sees the image at its own size, halves it once, adds the features of the
    level below, and has `local_blocks` residual blocks. `ngf` are the channels at full size; each level
    below has twice as many. `bias` None: only convolutions before an instance norm have one; the published
    network has one everywhere.

    Input and output: float NCHW in [-1, 1], height and width multiples of 2 ** (downs + enhancers), at least
    twice that.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 32,
        downs: int = 3,
        blocks: int = 6,
        enhancers: int = 1,
        local_blocks: int = 3,
        norm: Norm = "instance",
        padding: Padding = "reflect",
        upsampling: Upsampling = "transposed",
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        if bias is None:
            bias = has_bias(norm)

        def entrance(channels: int) -> list[nn.Module]:
            conv = nn.Conv2d(in_channels, channels, 7, bias=bias)
            return [nn.ReflectionPad2d(3), conv, *norm_layers(norm, channels), nn.ReLU(True)]

        def halving(channels: int) -> list[nn.Module]:
            conv = nn.Conv2d(channels, 2 * channels, 3, 2, padding=1, bias=bias)
            return [conv, *norm_layers(norm, 2 * channels), nn.ReLU(True)]

        def residual(channels: int, count: int) -> list[nn.Module]:
            return [ResnetBlock(channels, norm, padding, False, bias) for _ in range(count)]

        base = ngf * 2**enhancers
        layers = entrance(base)
        for level in range(downs):
            layers += halving(base * 2**level)
        layers += residual(base * 2**downs, blocks)
        for level in range(downs, 0, -1):
            layers += upsampling_layers(base * 2**level, norm, bias, upsampling)
        self.base = nn.Sequential(*layers)
        widths = [ngf * 2**level for level in range(enhancers - 1, -1, -1)]
        self.entrances = nn.ModuleList(nn.Sequential(*entrance(width), *halving(width)) for width in widths)
        self.refinements = nn.ModuleList(
            nn.Sequential(
                *residual(2 * width, local_blocks), *upsampling_layers(2 * width, norm, bias, upsampling)
            )
            for width in widths
        )
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        sizes = [x]
        for _ in self.entrances:
            sizes.append(F.avg_pool2d(sizes[-1], 3, 2, padding=1, count_include_pad=False))
        features = self.base(sizes.pop())
        for entrance, refinement in zip(self.entrances, self.refinements, strict=True):
            features = refinement(entrance(sizes.pop()) + features)
        return self.head(features)
