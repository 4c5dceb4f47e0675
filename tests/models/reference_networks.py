"""Networks laid out as the original implementation lays them out, in plain PyTorch and without our layers.

They show that recognition and generators agree with what such programs save, not merely with each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Named(nn.Module):
    """A sequence of layers under one attribute name, which is what gives the keys their form."""

    def __init__(self, layers: list[nn.Module], name: str = "model") -> None:
        super().__init__()
        self.name = name
        setattr(self, name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(x)


class Residual(Named):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Skip(Named):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, super().forward(x)], 1)


def norm_layer(kind: str, channels: int) -> nn.Module:
    return {
        "batch": lambda: nn.BatchNorm2d(channels),
        "batch_without_statistics": lambda: nn.BatchNorm2d(channels, track_running_stats=False),
        "instance": lambda: nn.InstanceNorm2d(channels),
        "instance_affine": lambda: nn.InstanceNorm2d(channels, affine=True),
        "instance_legacy": lambda: nn.InstanceNorm2d(channels, track_running_stats=True),
        "none": nn.Identity,
    }[kind]()


def resnet(
    inputs: int = 3,
    outputs: int = 3,
    ngf: int = 8,
    blocks: int = 3,
    norm: str = "instance",
    padding: str = "reflect",
    dropout: bool = False,
    bias: bool | None = None,
    downs: int = 2,
) -> nn.Module:
    """CycleGAN's generator. `bias` None: only before instance norm, as the original has it."""
    bias = norm.startswith("instance") if bias is None else bias

    def residual(channels: int) -> nn.Module:
        def conv() -> list[nn.Module]:
            if padding == "zero":
                return [nn.Conv2d(channels, channels, 3, padding=1, bias=bias)]
            pad = nn.ReflectionPad2d(1) if padding == "reflect" else nn.ReplicationPad2d(1)
            return [pad, nn.Conv2d(channels, channels, 3, bias=bias)]

        middle: list[nn.Module] = [norm_layer(norm, channels), nn.ReLU(inplace=True)]
        if dropout:
            middle.append(nn.Dropout(0.5))
        return Residual([*conv(), *middle, *conv(), norm_layer(norm, channels)], "conv_block")

    layers = [
        nn.ReflectionPad2d(3),
        nn.Conv2d(inputs, ngf, 7, bias=bias),
        norm_layer(norm, ngf),
        nn.ReLU(True),
    ]
    width = ngf
    for _ in range(downs):
        layers += [
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias),
            norm_layer(norm, 2 * width),
            nn.ReLU(True),
        ]
        width *= 2
    layers += [residual(width) for _ in range(blocks)]
    for _ in range(downs):
        up = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
        layers += [up, norm_layer(norm, width // 2), nn.ReLU(True)]
        width //= 2
    return Named([*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, outputs, 7), nn.Tanh()])


def mobile_resnet(ngf: int = 8, blocks: int = 9, padding: str = "reflect") -> nn.Module:
    """GAN Compression's and OMGD's generator: CycleGAN's with separable convolutions in its blocks."""

    class Separable(Named):
        def __init__(self, channels: int, pad: int) -> None:
            depthwise = nn.Conv2d(channels, channels, 3, padding=pad, groups=channels)
            layers = [depthwise, nn.InstanceNorm2d(channels), nn.Conv2d(channels, channels, 1)]
            super().__init__(layers, "conv")

    def residual(channels: int) -> nn.Module:
        pads = {"reflect": [nn.ReflectionPad2d(1)], "replicate": [nn.ReplicationPad2d(1)], "zero": []}[
            padding
        ]
        pad = 0 if pads else 1
        norm = nn.InstanceNorm2d(channels)
        first = [*pads, Separable(channels, pad), norm, nn.ReLU(True), nn.Dropout(0)]
        return Residual([*first, *pads, Separable(channels, pad), norm], "conv_block")

    whole = list(resnet(ngf=ngf, blocks=0).model)
    return Named([*whole[:10], *(residual(4 * ngf) for _ in range(blocks)), *whole[10:]])


def unet(
    depth: int = 5, inputs: int = 3, outputs: int = 3, ngf: int = 4, norm: str = "batch", dropout: bool = True
) -> nn.Module:
    """pix2pix's generator, its activations in place as in the original."""
    bias = norm.startswith("instance")

    def down(a: int, b: int) -> nn.Module:
        return nn.Conv2d(a, b, 4, stride=2, padding=1, bias=bias)

    def up(a: int, b: int, has_bias: bool = bias) -> nn.Module:
        return nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=has_bias)

    widths = [min(2**level, 8) * ngf for level in range(depth)]
    outer, inner = widths[-2], widths[-1]
    block: nn.Module = Skip(
        [
            nn.LeakyReLU(0.2, True),
            down(outer, inner),
            nn.ReLU(True),
            up(inner, outer),
            norm_layer(norm, outer),
        ]
    )
    for level in range(depth - 2, 0, -1):
        outer, inner = widths[level - 1], widths[level]
        layers = [nn.LeakyReLU(0.2, True), down(outer, inner), norm_layer(norm, inner), block]
        layers += [nn.ReLU(True), up(2 * inner, outer), norm_layer(norm, outer)]
        if dropout and outer == inner:
            layers.append(nn.Dropout(0.5))
        block = Skip(layers)
    whole = [down(inputs, ngf), block, nn.ReLU(True), up(2 * ngf, outputs, True), nn.Tanh()]
    network = nn.Module()
    network.model = Named(whole)
    network.forward = network.model.forward
    return network


def patch_discriminator(norm: str = "instance") -> nn.Module:
    """The original's netD of three layers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for a, b, stride in ((8, 16, 2), (16, 32, 2), (32, 64, 1)):
        layers += [nn.Conv2d(a, b, 4, stride, 1), norm_layer(norm, b), nn.LeakyReLU(0.2, True)]
    return Named([*layers, nn.Conv2d(64, 1, 4, 1, 1)])


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode with weights and statistics that make every layer matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.is_floating_point():
                fan_in = tensor[0].numel() if tensor.dim() > 1 else 4
                tensor.normal_(0.0, fan_in**-0.5, generator=generator)
    return network.eval()


def randomised_but_filters(network: nn.Module) -> nn.Module:
    """As `randomised`, with fixed filters left as they are."""
    filters = {
        name: tensor.clone() for name, tensor in network.state_dict().items() if name.endswith(".filt")
    }
    randomised(network)
    network.load_state_dict(filters, strict=False)
    return network


def picture(edge: int, channels: int = 3, width: int | None = None) -> Tensor:
    """A random image batch of one in [-1, 1]."""
    generator = torch.Generator().manual_seed(7)
    return torch.rand(1, channels, edge, width or edge, generator=generator) * 2 - 1
