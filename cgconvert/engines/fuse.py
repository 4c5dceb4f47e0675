"""Changes to a network that leave its results the same, within rounding, and make it faster.

Each was measured before it was kept; `docs/engines.md` has the figures, and those of what was not kept.
"""

from __future__ import annotations

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cgconvert.generators.layers import InstanceNorm2d

FEW_CHANNELS = 4
"""A convolution with no more output channels than this leaves most of a vector register empty."""


def operate(generator: nn.Module) -> nn.Module:
    """A copy of a generator in eval mode with every change below; float32, the same function."""
    changed = copy.deepcopy(generator).eval()
    for module in list(changed.modules()):
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
            _drop_dead_biases(module)
            _drop_dropout(module)
            _widen_last_convolution(module)
    return changed


def _neighbours(layers: nn.Sequential) -> list[tuple[str, nn.Module, nn.Module]]:
    """Each layer with its name and the one after it."""
    children = list(layers.named_children())
    return [(name, first, second) for (name, first), (_, second) in itertools.pairwise(children)]


def _fold_batch_norms(layers: nn.Sequential) -> None:
    """In eval mode a batch norm is a scale and a shift: those of the convolution before it."""
    names = [name for name, _ in layers.named_children()]
    for name, convolution, norm in _neighbours(layers):
        if isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            setattr(layers, name, fuse_conv_bn_eval(convolution, norm, transpose=transposed))
            setattr(layers, names[names.index(name) + 1], nn.Identity())


def _drop_dead_biases(layers: nn.Sequential) -> None:
    """Instance norm subtracts each channel's mean, and with it whatever constant a bias has added."""
    for _, convolution, norm in _neighbours(layers):
        if isinstance(norm, nn.InstanceNorm2d) and isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
            convolution.bias = None


def _drop_dropout(layers: nn.Sequential) -> None:
    for name, layer in list(layers.named_children()):
        if isinstance(layer, nn.Dropout):
            setattr(layers, name, nn.Identity())


class WideConvolution(nn.Module):
    """A stride-1 convolution with few output channels, computed as one of stride 2 with four times as many.

    The four phases of the output become channels, with the kernel shifted in a window one larger, and a
    pixel shuffle puts them in place. More multiplications, but in full vectors. For even sizes of output.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        out, channels, rows, columns = convolution.weight.shape
        weight = torch.zeros(out, 2, 2, channels, rows + 1, columns + 1)
        for a in range(2):
            for b in range(2):
                weight[:, a, b, :, a : a + rows, b : b + columns] = convolution.weight.detach()
        self.weight = nn.Parameter(weight.flatten(0, 2), requires_grad=False)
        bias = convolution.bias.detach() if convolution.bias is not None else torch.zeros(out)
        self.bias = nn.Parameter(bias.repeat_interleave(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.conv2d(x, self.weight, self.bias, stride=2), 2)


def _widen_last_convolution(layers: nn.Sequential) -> None:
    """The 7x7 convolution to RGB after an explicit padding, as the ResNet generator ends with."""
    for name, convolution, after in _neighbours(layers):
        if (
            isinstance(convolution, nn.Conv2d)
            and isinstance(after, nn.Tanh)
            and convolution.out_channels <= FEW_CHANNELS
            and convolution.stride == (1, 1)
            and convolution.padding == (0, 0)
            and convolution.kernel_size == (7, 7)
        ):
            setattr(layers, name, WideConvolution(convolution))


class GroupNorm(nn.Module):
    """An instance norm as a group norm with one group a channel, computed in float32: one operation."""

    def __init__(self, norm: InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if term is None else term.float() for term in (self.weight, self.bias))
        return F.group_norm(x.float(), x.shape[1], weight, bias, self.eps).to(x.dtype)


def with_group_norms(network: nn.Module) -> nn.Module:
    """A copy whose instance norms are group norms, for TensorRT, which has one layer for those."""
    changed = copy.deepcopy(network)
    for module in list(changed.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, InstanceNorm2d):
                setattr(module, name, GroupNorm(layer))
    return changed


def with_plain_norms(generator: nn.Module) -> nn.Module:
    """A copy whose instance norms are torch's own, for exporters that know them as one operation."""
    changed = copy.deepcopy(generator).eval()
    for module in list(changed.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, InstanceNorm2d):
                plain = nn.InstanceNorm2d(layer.num_features, layer.eps, affine=layer.affine)
                plain.load_state_dict(layer.state_dict())
                setattr(module, name, plain.eval())
    return changed
