"""Layers that more than one generator uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation (Ulyanov et al. 2016); without affine terms, as CycleGAN uses it, unless asked.

    On the CPU it is computed as a group norm with one group a channel: the same arithmetic, but unlike
    `torch.instance_norm` it keeps channels_last memory, which is what makes convolutions fast there.
    On other devices the statistics are taken in float32 at least, since a sum over a large half-precision
    plane loses the mean.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        if x.dtype in (torch.float32, torch.float64):
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        variance, mean = torch.var_mean(x.float(), dim=(2, 3), keepdim=True, correction=0)
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            weight, bias = (term.float().view(1, -1, 1, 1) for term in (self.weight, self.bias))
            scale, shift = scale * weight, shift * weight + bias
        return torch.addcmul(shift, x.float(), scale).to(x.dtype)


# Light of [0, 255] up to which a pixel is black, for a video's bars are not without noise, and from which on
# nothing is held.
BLACK, NOT_BLACK = 4, 32


def black_share(images: Tensor) -> Tensor:
    """The share (N, 1, H, W) of a change that pictures keep so that black stays black; float NCHW in [-1, 1].

    The light of a pixel is that of its brightest channel, as a mean over three pixels of its row or of its
    column, whichever is darker. So a bar ends exactly where it ends, and single dark pixels are not held,
    which would cut a grid of period two into the result. The share is 0 up to a light of `BLACK` and 1 from
    `NOT_BLACK` on. It rises evenly between them, so that a fade to black has no step.
    """
    light = F.pad(images.amax(dim=1, keepdim=True), (1, 1, 1, 1), mode="reflect")
    rows, columns = light[:, :, 1:-1], light[..., 1:-1]
    across = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    down = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]
    # From sums over three pixels in [-1, 1] to levels of 255, and to shares, in one step.
    rise = 127.5 / (NOT_BLACK - BLACK)
    return (torch.minimum(across, down) * (rise / 3) + (rise - BLACK / (NOT_BLACK - BLACK))).clamp(0, 1)


class GridFilter(nn.Module):
    """Fixed depthwise 3x3 binomial filter with reflected borders; its response is exactly zero at period 2.

    It removes the grid that upsampling leaves (Sugawara et al. 2018, "Super-resolution using convolutional
    neural networks without any checkerboard artifacts"), and half of what is at period 4.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Plain numbers: arithmetic on tensors without a device, as shapes are read with, imports a compiler.
        kernel = torch.tensor([[[[a * b / 16 for a in (1, 2, 1)] for b in (1, 2, 1)]]] * channels)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, groups=x.shape[1])


# The response is 1 - s^4 with s = sin(w / 2)^2: zero at period 2, 15/16 at period 4, and as flat at zero
# frequency as nine taps can be.
NARROW = tuple(tap / 256 for tap in (-1, 8, -28, 56, 186, 56, -28, 8, -1))


class NarrowGridFilter(nn.Module):
    """As `GridFilter`, but it leaves more detail: nine taps along each axis, one axis after the other."""

    along: Tensor
    across: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("along", torch.tensor([[[NARROW]]] * channels), persistent=False)
        across = torch.tensor([[[[tap] for tap in NARROW]]] * channels)
        self.register_buffer("across", across, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (len(NARROW) // 2,) * 4, mode="reflect")
        return F.conv2d(F.conv2d(padded, self.along, groups=x.shape[1]), self.across, groups=x.shape[1])


class BlurDownsample(nn.Module):
    """Half the size: every second value after a binomial 3x3 filter with reflected borders (Zhang 2019).

    The filter is stored with the weights, as CUT's files have it.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial((1, 2, 1), 16, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class BlurUpsample(nn.Module):
    """Twice the size: zeros between the values, and a binomial 4x4 filter with replicated borders.

    The filter is stored with the weights, as CUT's files have it.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", _binomial((1, 3, 3, 1), 16, channels))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        doubled = F.conv_transpose2d(padded, self.filt, stride=2, padding=2, groups=x.shape[1])
        return doubled[:, :, 1:-1, 1:-1]


def _binomial(taps: tuple[int, ...], divisor: int, channels: int) -> Tensor:
    """A filter (channels, 1, taps, taps) for each channel alone; plain numbers, as in `GridFilter`."""
    return torch.tensor([[[[a * b / divisor for a in taps] for b in taps]]] * channels)
