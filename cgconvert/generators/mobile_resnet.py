"""The mobile ResNet generator of GAN Compression (Li et al. 2020) and OMGD (Ren et al. 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from cgconvert.generators.resnet import Norm, Padding, ResnetGenerator, Upsampling, norm_layers

ENTRANCE = 10  # layers of the ResNet generator before its blocks: padding, and three convolutions


class SeparableConv2d(nn.Module):
    """A 3x3 convolution of each channel alone, a normalisation, and a 1x1 convolution over the channels."""

    def __init__(self, channels: int, padding: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=padding, groups=channels),
            *norm_layers(norm, channels),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class MobileResnetBlock(nn.Module):
    """The ResNet generator's block with both convolutions separable."""

    def __init__(self, channels: int, padding: Padding, norm: Norm) -> None:
        super().__init__()

        def convolution() -> list[nn.Module]:
            if padding == "zero":
                return [SeparableConv2d(channels, 1, norm)]
            pad = nn.ReflectionPad2d(1) if padding == "reflect" else nn.ReplicationPad2d(1)
            return [pad, SeparableConv2d(channels, 0, norm)]

        # The published block has a dropout of rate 0 in the place of the identity: its keys count it.
        middle = [*norm_layers(norm, channels), nn.ReLU(True), nn.Identity()]
        self.conv_block = nn.Sequential(*convolution(), *middle, *convolution(), *norm_layers(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class MobileResnetGenerator(nn.Module):
    """The ResNet generator with depthwise-separable residual blocks; its ends are the ResNet generator's.

    The default, ngf 16 with 9 blocks, is the student that OMGD publishes as 1.0x: 0.137 M parameters; 0.955
    GMAC at 256x256, which is the papers' 1.41 where transposed convolutions are counted by their outputs.
    Keys are those of the published implementations (models/modules/resnet_architecture in OMGD).

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
    ) -> None:
        super().__init__()
        bias = True if norm == "none" else None
        resnet = ResnetGenerator(in_channels, out_channels, ngf, 0, norm, bias=bias, upsampling=upsampling)
        ends = list(resnet.model)
        middle = [MobileResnetBlock(4 * ngf, padding, norm) for _ in range(blocks)]
        self.model = nn.Sequential(*ends[:ENTRANCE], *middle, *ends[ENTRANCE:])

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
