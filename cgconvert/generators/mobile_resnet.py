"""The mobile ResNet generator of GAN Compression (Li et al. 2020) and OMGD (Ren et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cgconvert.generators.resnet import Norm, Padding, ResnetGenerator, Upsampling, has_bias, norm_layers

ENTRANCE = 10  # layers of the ResNet generator before its blocks: padding, and three convolutions


class SeparableConv2d(nn.Module):
    """A 3x3 convolution of each channel alone, a normalisation, and a 1x1 convolution over the channels."""

    def __init__(self, channels: int, outputs: int, padding: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=padding, groups=channels),
            *norm_layers(norm, channels),
            nn.Conv2d(channels, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class MobileResnetBlock(nn.Module):
    """The ResNet generator's block with both convolutions separable, and `inner` channels between them."""

    def __init__(self, channels: int, inner: int, padding: Padding, norm: Norm) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int) -> list[nn.Module]:
            if padding == "zero":
                return [SeparableConv2d(inputs, outputs, 1, norm)]
            pad = nn.ReflectionPad2d(1) if padding == "reflect" else nn.ReplicationPad2d(1)
            return [pad, SeparableConv2d(inputs, outputs, 0, norm)]

        # The published block has a dropout of rate 0 in the place of the identity: its keys count it.
        middle = [*norm_layers(norm, inner), nn.ReLU(True), nn.Identity()]
        end = norm_layers(norm, channels)
        self.conv_block = nn.Sequential(
            *convolution(channels, inner), *middle, *convolution(inner, channels), *end
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class MobileResnetGenerator(nn.Module):
    """The ResNet generator with depthwise-separable residual blocks; its ends are the ResNet generator's.

    The default, ngf 16 with 9 blocks, is the student that OMGD publishes as 1.0x: 0.137 M parameters; 0.955
    GMAC at 256x256, which is the papers' 1.41 where transposed convolutions are counted by their outputs.
    Keys are those of the published implementations (models/modules/resnet_architecture in OMGD).

    `widths`, if not empty, are the channels of each layer in place of multiples of ngf, as GAN Compression's
    search leaves them: of the first convolution, the two that halve, the inside of each block, and the two
    that double. `ngf` has no meaning then.

    Input and output: float NCHW in [-1, 1], height and width multiples of 4 and at least 16.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 16,
        blocks: int = 9,
        padding: Padding = "reflect",
        upsampling: Upsampling = "transposed",
        norm: Norm = "instance",
        widths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if widths and len(widths) != blocks + 5:
            raise ValueError(f"widths are {blocks + 5} for {blocks} blocks, got {len(widths)}")
        if widths and upsampling != "transposed":
            raise ValueError("widths are for transposed upsampling")
        bias = True if norm == "none" else None
        if widths:
            first, half, quarter, *inside, up, last = widths
            use_bias = has_bias(norm) if bias is None else bias
            ends = _narrow_ends(in_channels, out_channels, (first, half, quarter, up, last), norm, use_bias)
        else:
            quarter, inside = 4 * ngf, [4 * ngf] * blocks
            resnet = ResnetGenerator(
                in_channels, out_channels, ngf, 0, norm, bias=bias, upsampling=upsampling
            )
            ends = list(resnet.model)
        middle = [MobileResnetBlock(quarter, inner, padding, norm) for inner in inside]
        self.model = nn.Sequential(*ends[:ENTRANCE], *middle, *ends[ENTRANCE:])

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _narrow_ends(
    inputs: int, outputs: int, widths: tuple[int, int, int, int, int], norm: Norm, bias: bool
) -> list[nn.Module]:
    """The ResNet generator's layers without blocks, with these channels instead of multiples of ngf."""
    first, half, quarter, up, last = widths
    layers: list[nn.Module] = [nn.ReflectionPad2d(3)]
    layers += [nn.Conv2d(inputs, first, 7, bias=bias), *norm_layers(norm, first), nn.ReLU(True)]
    for before, after in ((first, half), (half, quarter)):
        conv = nn.Conv2d(before, after, 3, 2, padding=1, bias=bias)
        layers += [conv, *norm_layers(norm, after), nn.ReLU(True)]
    for before, after in ((quarter, up), (up, last)):
        turned = nn.ConvTranspose2d(before, after, 3, 2, padding=1, output_padding=1, bias=bias)
        layers += [turned, *norm_layers(norm, after), nn.ReLU(True)]
    return [*layers, nn.ReflectionPad2d(3), nn.Conv2d(last, outputs, 7), nn.Tanh()]
