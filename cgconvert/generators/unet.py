"""The U-Net generator of pix2pix (Isola et al. 2017), key-compatible with the original."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgconvert.generators.resnet import Norm, has_bias, norm_layers


class UnetBlock(nn.Module):
    """One level: down, the level below (`submodule`), up, and a skip connection around all of it."""

    def __init__(
        self,
        outer: int,
        inner: int,
        norm: Norm,
        in_channels: int | None = None,
        submodule: nn.Module | None = None,
        outermost: bool = False,
        dropout: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        use_bias = has_bias(norm) if bias is None else bias
        # Not in place: the skip connection still needs the input as it was.
        down = nn.Conv2d(outer if in_channels is None else in_channels, inner, 4, 2, padding=1, bias=use_bias)
        if outermost:
            assert submodule is not None
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, padding=1)
            layers = [down, submodule, nn.ReLU(), up, nn.Tanh()]
        elif submodule is None:
            up = nn.ConvTranspose2d(inner, outer, 4, 2, padding=1, bias=use_bias)
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, *norm_layers(norm, outer)]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, padding=1, bias=use_bias)
            layers = [nn.LeakyReLU(0.2), down, *norm_layers(norm, inner), submodule]
            layers += [nn.ReLU(), up, *norm_layers(norm, outer)]
            if dropout:
                layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class UnetGenerator(nn.Module):
    """`depth` levels of halving with skip connections (7 is the paper's 128 net, 8 its 256 net).

    Input and output: float NCHW in [-1, 1], height and width multiples of 2 ** depth; the innermost level,
    which may be a single pixel, is not normalised. `bias` None: as in the ResNet generator.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        depth: int = 8,
        norm: Norm = "batch",
        dropout: bool = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        if depth < 5:
            raise ValueError(f"depth is at least 5, got {depth}")
        block = UnetBlock(8 * ngf, 8 * ngf, norm, bias=bias)
        for _ in range(depth - 5):
            block = UnetBlock(8 * ngf, 8 * ngf, norm, submodule=block, dropout=dropout, bias=bias)
        for factor in (4, 2, 1):
            block = UnetBlock(factor * ngf, 2 * factor * ngf, norm, submodule=block, bias=bias)
        self.model = UnetBlock(
            out_channels, ngf, norm, in_channels=in_channels, submodule=block, outermost=True, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
