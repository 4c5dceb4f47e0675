"""The ResNet generator of CycleGAN (Johnson et al. 2016; Zhu et al. 2017), with the original's keys."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from cgconvert.generators.layers import BlurDownsample, BlurUpsample, InstanceNorm2d

Norm = Literal["instance", "instance_affine", "batch", "none"]
Padding = Literal["reflect", "replicate", "zero"]
Downsampling = Literal["strided", "blur"]
Upsampling = Literal["transposed", "resize", "blur"]


def norm_layers(norm: Norm, channels: int) -> list[nn.Module]:
    """The normalisation as a list of layers; "none" is an identity, so that the keys after it stay."""
    if norm == "none":
        return [nn.Identity()]
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    return [InstanceNorm2d(channels, affine=norm == "instance_affine")]


def has_bias(norm: Norm) -> bool:
    """Whether the original gives convolutions before this norm a bias: only before instance norm."""
    return norm in ("instance", "instance_affine")


def _padded_conv(channels: int, padding: Padding, bias: bool) -> list[nn.Module]:
    if padding == "zero":
        return [nn.Conv2d(channels, channels, 3, padding=1, bias=bias)]
    pad = nn.ReflectionPad2d(1) if padding == "reflect" else nn.ReplicationPad2d(1)
    return [pad, nn.Conv2d(channels, channels, 3, bias=bias)]


class ResnetBlock(nn.Module):
    """Two padded 3x3 convolutions with normalisation and a skip connection."""

    def __init__(self, channels: int, norm: Norm, padding: Padding, dropout: bool, bias: bool) -> None:
        super().__init__()
        layers = [*_padded_conv(channels, padding, bias), *norm_layers(norm, channels), nn.ReLU(True)]
        if dropout:
            layers.append(nn.Dropout(0.5))
        layers += [*_padded_conv(channels, padding, bias), *norm_layers(norm, channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def upsampling_layers(channels: int, norm: Norm, bias: bool, upsampling: Upsampling) -> list[nn.Module]:
    """Twice the size with half the channels, as a list of layers."""
    half = channels // 2
    if upsampling == "resize":  # Odena et al. 2016: no checkerboard
        layers: list[nn.Module] = [
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.ReflectionPad2d(1),
                nn.Conv2d(channels, half, 3, bias=bias),
            )
        ]
    elif upsampling == "blur":
        layers = [BlurUpsample(channels), nn.Conv2d(channels, half, 3, padding=1, bias=bias)]
    else:
        layers = [nn.ConvTranspose2d(channels, half, 3, 2, padding=1, output_padding=1, bias=bias)]
    return [*layers, *norm_layers(norm, half), nn.ReLU(True)]


class ResnetGenerator(nn.Module):
    """Two strided convolutions down, `blocks` residual blocks, two up.

    Input and output: float NCHW in [-1, 1], height and width multiples of 4 and at least 16.
    `bias` None follows the original: only convolutions before an instance norm have one. With `downsampling`
    and `upsampling` "blur" it is the generator of CUT and FastCUT (Park et al. 2020), which resamples
    with a binomial filter (Zhang 2019, "Making convolutional networks shift-invariant again").
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        padding: Padding = "reflect",
        dropout: bool = False,
        bias: bool | None = None,
        upsampling: Upsampling = "transposed",
        downsampling: Downsampling = "strided",
    ) -> None:
        super().__init__()
        use_bias = has_bias(norm) if bias is None else bias
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, ngf, 7, bias=use_bias),
            *norm_layers(norm, ngf),
            nn.ReLU(True),
        ]
        for channels in (ngf, 2 * ngf):
            stride = 1 if downsampling == "blur" else 2
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, stride, padding=1, bias=use_bias),
                *norm_layers(norm, 2 * channels),
                nn.ReLU(True),
            ]
            if downsampling == "blur":
                layers.append(BlurDownsample(2 * channels))
        layers += [ResnetBlock(4 * ngf, norm, padding, dropout, use_bias) for _ in range(blocks)]
        for channels in (4 * ngf, 2 * ngf):
            layers += upsampling_layers(channels, norm, use_bias, upsampling)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
