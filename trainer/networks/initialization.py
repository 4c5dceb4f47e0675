"""The weights that networks start with."""

from __future__ import annotations

import torch
from torch import nn

from cgconvert.errors import UsageError
from cgconvert.generators.h2 import H2Generator

INITIALIZATIONS = ("normal", "xavier", "kaiming", "orthogonal", "identity")
CONTRAST = 0.3
"""From normalised pixels to what the tanh turns into the contrast of ordinary pictures."""


def init_weights(network: nn.Module, kind: str = "normal", gain: float = 0.02) -> nn.Module:
    """Draw all convolution and linear weights anew, set biases to zero, and return the network.

    `normal` with 0.02 is CycleGAN's and pix2pix's. Scales of batch norms start at N(1, gain). Layers named in
    the network's `SUB_PIXEL` (convolution -> factor of the pixel shuffle after it) start equal over each
    group of sub-pixels (ICNR, Aitken et al. 2017), so that the first pictures have no grid. `identity` is
    `normal`, and H2 generators with batch norms then start near the picture (`start_as_identity`).
    Raises `UsageError` for an unknown kind.
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
    if kind == "identity" and isinstance(network, H2Generator):
        start_as_identity(network)
    return network


@torch.no_grad()
def start_as_identity(network: H2Generator) -> None:
    """Change the first weights of an H2 generator with batch norms so that its results resemble its inputs.

    The results of freshly drawn weights are grey, and a short training spends most of its time on getting
    from there to a picture. Here the skip connection at half the resolution carries the 12 sub-pixels of the
    picture and their negatives, of which two ReLUs lose nothing together, and the tail subtracts the one
    from the other. The drawn weights remain beside that, so that no two channels learn the same. The network
    stays as it is if it has fewer than 24 channels at half the resolution, or norms without factors.
    """
    pixels = network.tail.out_channels
    up_norm, fuse_norm = network.up_norm, network.fuse_norm
    if not (isinstance(up_norm, nn.BatchNorm2d) and isinstance(fuse_norm, nn.BatchNorm2d)):
        return
    if network.head.out_channels < 2 * pixels or network.head.in_channels < pixels:
        return
    # The tail's inputs are about 1 on average, see below: the drawn weights must not add up to a tint.
    network.tail.weight.mul_(0.25)
    assert network.tail.bias is not None
    network.tail.bias.copy_(-network.tail.weight.sum(dim=(1, 2, 3)))
    for place in range(pixels):
        for channel, sign in ((place, 1.0), (pixels + place, -1.0)):
            network.head.weight[channel, place, 1, 1] += sign
            network.fuse.weight[channel, channel, 1, 1] += 1.0
            network.tail.weight[place, channel, 1, 1] += CONTRAST * sign
    # After a ReLU, a norm and another ReLU would set all values below the mean to 0.
    fuse_norm.bias.fill_(1.0)
    up_norm.weight.fill_(0.2)  # the blocks gain influence slowly


def _init_tensor(weight: torch.Tensor, kind: str, gain: float) -> None:
    if kind in ("normal", "identity"):
        nn.init.normal_(weight, 0.0, gain)
    elif kind == "xavier":
        nn.init.xavier_normal_(weight, gain=gain)
    elif kind == "kaiming":
        nn.init.kaiming_normal_(weight, a=0, mode="fan_in")
    elif kind == "orthogonal":
        nn.init.orthogonal_(weight, gain=gain)
    else:
        raise UsageError(f"unknown initialization {kind!r}; known: {', '.join(INITIALIZATIONS)}")
