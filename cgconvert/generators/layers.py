"""Layers that more than one generator uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation (Ulyanov et al. 2016); without affine terms, as CycleGAN uses it, unless asked.

    On the CPU it is computed as a group norm with one group a channel: the same arithmetic, but unlike
    `torch.instance_norm` it keeps channels_last memory, which is what makes convolutions fast there.
    On other devices the statistics are taken in float32 whatever the input's type, since a sum over a
    large half-precision plane loses the mean.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        if x.dtype == torch.float32:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        variance, mean = torch.var_mean(x.float(), dim=(2, 3), keepdim=True, correction=0)
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            weight, bias = (term.float().view(1, -1, 1, 1) for term in (self.weight, self.bias))
            scale, shift = scale * weight, shift * weight + bias
        return torch.addcmul(shift, x.float(), scale).to(x.dtype)


BINOMIAL = (1.0, 2.0, 1.0)
# 1 - ((1 - cos w) / 2)^2: as flat at zero frequency as five taps allow, half the binomial's loss of detail.
MAXIMALLY_FLAT = (-1.0, 4.0, 10.0, 4.0, -1.0)


class GridFilter(nn.Module):
    """Fixed depthwise filter with reflected borders, whose response is exactly zero at period 2.

    After a pixel shuffle it removes the grid of period two that sub-pixel convolution leaves
    (Sugawara et al. 2018, "Super-resolution using convolutional neural networks without any
    checkerboard artifacts"). `taps`, an odd number of them, are those along each axis, scaled to sum to 1.
    """

    kernel: Tensor

    def __init__(self, channels: int, taps: tuple[float, ...] = BINOMIAL) -> None:
        super().__init__()
        # In plain numbers: torch's arithmetic on its meta device, where models are looked at before they are
        # loaded, brings in all of its compiler, which takes a second.
        row = [tap / sum(taps) for tap in taps]
        kernel = torch.tensor([[a * b for b in row] for a in row]).expand(channels, 1, -1, -1)
        self.register_buffer("kernel", kernel.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        reach = self.kernel.shape[-1] // 2
        return F.conv2d(F.pad(x, (reach,) * 4, mode="reflect"), self.kernel, groups=x.shape[1])
