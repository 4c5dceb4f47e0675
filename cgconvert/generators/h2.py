"""A small dense generator that works at half and quarter resolution only."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.generators.layers import GridFilter, NarrowGridFilter, black_share
from cgconvert.generators.resnet import Norm, norm_layers


class H2Block(nn.Module):
    """Residual block of two 3x3 convolutions at quarter resolution."""

    def __init__(self, channels: int, norm: Norm = "instance") -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias)
        (self.norm1,) = norm_layers(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias)
        (self.norm2,) = norm_layers(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))


class H2Generator(nn.Module):
    """Pixel unshuffle in, `blocks` residual blocks at H/4, a skip connection at H/2, pixel shuffle out.

    Layers at full resolution cost memory traffic, not arithmetic, so there are none but fixed filters.
    What keeps the grid out: the step from H/4 to H/2 is bilinear (resize-convolution, Odena et al. 2016),
    and a binomial filter with a zero at period two follows it; the bilinear step alone let a grid of period
    four through that training made stronger. The final pixel shuffle is followed by a filter with the same
    zero before and after the tanh, which bends what is left of a grid back into one. That filter is a narrow
    one: with a binomial one results had half the fine detail that paintings have.

    Input and output: float NCHW in [-1, 1], height and width multiples of 4 and at least 16.
    `half_channels` are the channels at H/2, `channels` those at H/4; named `H2 half-channels-blocks`.
    With `norm` "none" every convolution has a bias: what training with "batch" is exported as.
    With `keep_black` black places of the input stay black (`layers.black_share`): a video's bars and fades.
    With `keep_detail` the last filter is of the change, not of the picture: what it takes out at periods of
    two and three pixels, and a network so small has nothing of its own to put there, stays the input's. It
    has the fine grain that paintings have, too, at no cost.
    """

    SUB_PIXEL: ClassVar[dict[str, int]] = {"tail": 2}  # for a start without a grid (ICNR)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        half_channels: int = 24,
        channels: int = 64,
        blocks: int = 6,
        norm: Norm = "instance",
        keep_black: bool = False,
        keep_detail: bool = False,
    ) -> None:
        super().__init__()
        for name, kept in (("keep_black", keep_black), ("keep_detail", keep_detail)):
            if kept and in_channels < out_channels:
                raise ValueError(
                    f"{name} needs as many channels in as out ({out_channels}), not {in_channels}"
                )
        self.keeps_black, self.keeps_detail = keep_black, keep_detail
        half, bias = half_channels, norm == "none"
        self.head = nn.Conv2d(4 * in_channels, half, 3, padding=1, padding_mode="reflect", bias=bias)
        (self.head_norm,) = norm_layers(norm, half)
        self.down = nn.Conv2d(half, channels, 3, 2, padding=1, padding_mode="reflect", bias=bias)
        (self.down_norm,) = norm_layers(norm, channels)
        self.blocks = nn.Sequential(*[H2Block(channels, norm) for _ in range(blocks)])
        self.up = nn.Conv2d(channels, half, 1, bias=bias)
        self.up_blur = GridFilter(half)
        (self.up_norm,) = norm_layers(norm, half)
        self.fuse = nn.Conv2d(half, half, 3, padding=1, padding_mode="reflect", bias=bias)
        (self.fuse_norm,) = norm_layers(norm, half)
        self.tail = nn.Conv2d(half, 4 * out_channels, 3, padding=1, padding_mode="reflect")
        self.blur = NarrowGridFilter(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.head_norm(self.head(F.pixel_unshuffle(x, 2))))
        y = self.blocks(F.relu(self.down_norm(self.down(skip))))
        y = F.interpolate(self.up(y), scale_factor=2.0, mode="bilinear", align_corners=False)
        y = F.relu(self.up_norm(self.up_blur(y))) + skip
        y = F.relu(self.fuse_norm(self.fuse(y)))
        y = self.blur(F.pixel_shuffle(self.tail(y), 2)).tanh()
        return self.finished(x, y, self.blur)

    def finished(self, x: Tensor, y: Tensor, blur: Callable[[Tensor], Tensor]) -> Tensor:
        """The result for input `x` and the network's values `y`, with the last filter as an engine has it."""
        if not (self.keeps_black or self.keeps_detail):
            return blur(y).clamp(-1, 1)
        source = x[:, : y.shape[1]]
        # Away from the result, since OpenVINO computes a - b as a + (-b): it negates `y` as it is made, but
        # `source` in a pass of its own.
        away = blur(source - y) if self.keeps_detail else source - blur(y)
        if self.keeps_black:
            return torch.addcmul(source, black_share(source), away, value=-1).clamp(-1, 1)
        return (source - away).clamp(-1, 1)
