"""The weights that networks start with."""

from __future__ import annotations

import torch
from torch import nn

from cgconvert.errors import UsageError

INITIALIZATIONS = ("normal", "xavier", "kaiming", "orthogonal")


def init_weights(network: nn.Module, kind: str = "normal", gain: float = 0.02) -> nn.Module:
    """Draw all convolution and linear weights anew, set biases to zero, and return the network.

    `normal` with 0.02 is CycleGAN's and pix2pix's. Scales of batch norms start at N(1, gain). Layers named in
    the network's `SUB_PIXEL` (convolution -> factor of the pixel shuffle after it) start equal over each
    group of sub-pixels (ICNR, Aitken et al. 2017), so that the first pictures have no grid.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            _init_tensor(module.weight, kind, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, gain)
            nn.init.zeros_(module.bias)
    for name, factor in getattr(network, "SUB_PIXEL", {}).items():
        weight = network.get_parameter(f"{name}.weight")
        with torch.no_grad():
            weight.copy_(weight[:: factor**2].repeat_interleave(factor**2, dim=0))
    return network


def _init_tensor(weight: torch.Tensor, kind: str, gain: float) -> None:
    if kind == "normal":
        nn.init.normal_(weight, 0.0, gain)
    elif kind == "xavier":
        nn.init.xavier_normal_(weight, gain=gain)
    elif kind == "kaiming":
        nn.init.kaiming_normal_(weight, a=0, mode="fan_in")
    elif kind == "orthogonal":
        nn.init.orthogonal_(weight, gain=gain)
    else:
        raise UsageError(f"unknown initialization {kind!r}; known: {', '.join(INITIALIZATIONS)}")
