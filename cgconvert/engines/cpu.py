"""Replaces a generator's layers in bf16 on a CPU by equal ones that take less time.

For networks that run layer by layer in channels_last memory; compilers and runtimes have their own ways.
Each was measured before it was kept; `docs/engines.md` has the figures.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.generators.h2 import H2Block, H2Generator
from cgconvert.generators.layers import GridFilter, InstanceNorm2d, NarrowGridFilter

GROUP_NORM_STEP = 16
"""Channels in multiples of which torch's group norm is vectorised; with others it takes twice as long."""
PADDING_STEP = 32
"""The same for its reflection padding."""


def for_cpu(generator: nn.Module) -> nn.Module:
    """The generator, changed in place, in bf16; the results are those of bf16 within its rounding.

    Takes bf16 or float32 images in channels_last memory. What `fuse.py` does comes first.
    """
    generator = generator.to(torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(generator, H2Generator):
        return H2OnCpu(generator)
    for module in list(generator.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.ReLU):
                setattr(module, name, BitReLU(layer.inplace))
            elif isinstance(layer, nn.Tanh):
                setattr(module, name, FloatTanh())
            elif isinstance(layer, InstanceNorm2d) and not layer.affine:
                setattr(module, name, CpuNorm(layer.eps))
    return generator


def relu_(x: Tensor) -> Tensor:
    """ReLU in place on bf16: what is negative has its sign bit set, as integers of 16 bits have.

    Six times as fast as torch's. A NaN with the sign bit becomes 0; those of the network itself are found
    where its float32 form runs.
    """
    x.view(torch.int16).clamp_min_(0)
    return x


def reflect_pad(x: Tensor, reach: int) -> Tensor:
    """`F.pad(x, (reach,) * 4, mode="reflect")` of a channels_last tensor with any number of channels."""
    if x.shape[1] % PADDING_STEP == 0:
        return F.pad(x, (reach,) * 4, mode="reflect")
    count, channels, height, width = x.shape
    shape = (count, channels, height + 2 * reach, width + 2 * reach)
    padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    padded[:, :, reach:-reach, reach:-reach] = x
    for step in range(reach):
        padded[:, :, step, reach:-reach] = x[:, :, reach - step]
        padded[:, :, -1 - step, reach:-reach] = x[:, :, step - reach - 1]
    for step in range(reach):
        padded[..., step] = padded[..., 2 * reach - step]
        padded[..., -1 - step] = padded[..., step - 2 * reach - 1]
    return padded


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """Instance norm without affine terms; sums are taken in float32."""
    if x.shape[1] % GROUP_NORM_STEP == 0:
        return F.group_norm(x, x.shape[1], eps=eps)
    # A batch norm of one picture has the same statistics and is fast for any number of channels; it keeps
    # them in float32 only if it is given a float32 scale and shift.
    scale, shift = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
    return torch.cat([F.batch_norm(one, None, None, scale, shift, True, eps=eps) for one in x.split(1)])


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent of bf16 in float32, which nothing rounds again: 2 sigmoid(2 x) - 1 is vectorised."""
    return x.float().mul_(2).sigmoid_().mul_(2).sub_(1)


class BitReLU(nn.Module):
    """`relu_` as a layer."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return relu_(x if self.inplace else x.clone(memory_format=torch.preserve_format))


class FloatTanh(nn.Module):
    """`tanh` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


class CpuNorm(nn.Module):
    """`instance_norm` as a layer."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.eps)


def _filtered(layer: GridFilter, x: Tensor) -> Tensor:
    return F.conv2d(reflect_pad(x, 1), layer.kernel, groups=x.shape[1])


def _narrowly_filtered(layer: NarrowGridFilter, x: Tensor) -> Tensor:
    """In the type of `x`, bf16 or float32."""
    along, across = layer.along.to(x.dtype), layer.across.to(x.dtype)
    padded = reflect_pad(x, along.shape[-1] // 2)
    return F.conv2d(F.conv2d(padded, along, groups=x.shape[1]), across, groups=x.shape[1])


def _convolved(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(reflect_pad(x, 1), layer.weight, layer.bias, layer.stride)


def _normed(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's norm; an identity, in a generator without norms, gives `x` itself back."""
    if isinstance(layer, InstanceNorm2d) and not layer.affine:
        return instance_norm(x, layer.eps)
    result: Tensor = layer(x)
    return result


class H2OnCpu(nn.Module):
    """`H2Generator` with its steps between the resolutions as few copies of long runs.

    The channels of the unshuffled picture and of the tail stand phase by phase instead of colour by colour,
    so that whole pixels move; the weights before and after are in that order.
    """

    def __init__(self, generator: H2Generator) -> None:
        super().__init__()
        self.own = generator
        self.out = generator.tail.out_channels // 4
        channels = generator.head.in_channels // 4
        order = torch.arange(4 * channels).view(channels, 4).t().flatten()
        generator.head.weight = _parameter(generator.head.weight[:, order])
        order = torch.arange(4 * self.out).view(self.out, 4).t().flatten()
        generator.tail.weight = _parameter(generator.tail.weight[order])
        assert generator.tail.bias is not None
        generator.tail.bias = nn.Parameter(generator.tail.bias.detach()[order], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        own = self.own
        phases = torch.cat([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1)
        skip = relu_(_normed(own.head_norm, _convolved(own.head, phases)))
        y = relu_(_normed(own.down_norm, _convolved(own.down, skip)))
        for block in own.blocks:
            assert isinstance(block, H2Block)
            inner = relu_(_normed(block.norm1, _convolved(block.conv1, y)))
            y = _normed(block.norm2, _convolved(block.conv2, inner)).add_(y)
        y = F.interpolate(own.up(y), scale_factor=2.0, mode="bilinear", align_corners=False)
        y = relu_(_normed(own.up_norm, _filtered(own.up_blur, y))).add_(skip)
        y = relu_(_normed(own.fuse_norm, _convolved(own.fuse, y)))
        y = tanh(_narrowly_filtered(own.blur, self._shuffled(_convolved(own.tail, y))))
        # A picture of its own: beside noise, or in another type than `y`, every step on it takes several
        # times as long.
        source = x[:, : self.out].contiguous(memory_format=torch.channels_last).to(y.dtype)
        return own.finished(source, y, partial(_narrowly_filtered, own.blur))

    def _shuffled(self, x: Tensor) -> Tensor:
        """(N, 4 out, H, W), phase by phase, as (N, out, 2H, 2W); two neighbours move as 32-bit integers."""
        count, _, height, width = x.shape
        pairs = x.permute(0, 2, 3, 1).contiguous().view(torch.int32).view(count, height, width, 2, self.out)
        rows = pairs.permute(0, 1, 3, 2, 4).contiguous().view(torch.bfloat16)
        return rows.view(count, 2 * height, 2 * width, self.out).permute(0, 3, 1, 2)


def _parameter(weight: Tensor) -> nn.Parameter:
    weight = weight.detach().contiguous(memory_format=torch.channels_last)
    return nn.Parameter(weight, requires_grad=False)
