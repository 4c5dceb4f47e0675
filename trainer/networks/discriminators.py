"""Networks that judge whether patches of an image are real."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.errors import UsageError
from cgconvert.generators.resnet import Norm, norm_layers

DISCRIMINATORS = ("patch", "pixel")
Logits = Tensor | Sequence[Tensor]
"""What a discriminator returns: a map of logits N1HW, or one for each of its scales."""


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): gives a map of logits, each of which judges one patch of the image.

    With three layers patches have 70x70 pixels, and images are float NCHW in [-1, 1] of at least 24 pixels a
    side; each further layer doubles that. The result is N1HW, without a sigmoid. The weights have the
    original's keys.
    """

    def __init__(self, in_channels: int = 3, ndf: int = 64, layers: int = 3, norm: Norm = "instance") -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"a patch discriminator has at least 1 layer, got {layers}")
        bias = norm == "instance"  # the original's rule, which its files follow
        widths = [ndf * min(2**level, 8) for level in range(layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, 2, padding=1), nn.LeakyReLU(0.2, True)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            modules += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride, padding=1, bias=bias),
                *norm_layers(norm, widths[level]),
                nn.LeakyReLU(0.2, True),
            ]
        modules.append(nn.Conv2d(widths[-1], 1, 4, 1, padding=1))
        self.model = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every block of convolution, norm and activation, and last the logits."""
        outputs: list[Tensor] = []
        for module in self.model:
            x = module(x)
            if isinstance(module, nn.LeakyReLU):
                # No copy is needed, since the next convolution does not write in place.
                outputs.append(x)
        return [*outputs, x]


class PixelDiscriminator(nn.Module):
    """PatchGAN of 1x1 pixels (Isola et al. 2017): it judges every pixel alone, and so nothing but colour."""

    def __init__(self, in_channels: int = 3, ndf: int = 64, norm: Norm = "instance") -> None:
        super().__init__()
        bias = norm == "instance"  # the original's rule, which its files follow
        # The original calls this sequence `net`, and its files have those keys.
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, ndf, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            *norm_layers(norm, 2 * ndf),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every activation, and last the logits."""
        outputs: list[Tensor] = []
        for module in self.net:
            x = module(x)
            if isinstance(module, nn.LeakyReLU):
                outputs.append(x)
        return [*outputs, x]


class MultiscaleDiscriminator(nn.Module):
    """Equal discriminators at several scales (Wang et al. 2018); each sees the image halved once more.

    `forward` returns one map of logits a scale, `features` one list of feature maps a scale.
    """

    def __init__(self, scales: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scales)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [features[-1] for features in self.features(x)]

    def features(self, x: Tensor) -> list[list[Tensor]]:
        outputs = []
        for index, scale in enumerate(self.scales):
            if index:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            outputs.append(scale.features(x))  # type: ignore[operator]
        return outputs


def smallest_input(kind: str, layers: int, scales: int) -> int:
    """The least edge in pixels at which each layer of a discriminator has several places to normalise."""
    return 3 * 2 ** (layers + scales - 1) if kind == "patch" else 2**scales


def build_discriminator(
    kind: str, in_channels: int = 3, ndf: int = 64, layers: int = 3, norm: Norm = "instance", scales: int = 1
) -> nn.Module:
    """A discriminator with fresh weights. Raises `UsageError` for a kind that is not known."""
    if kind not in DISCRIMINATORS:
        raise UsageError(f"unknown discriminator {kind!r}; known: {', '.join(DISCRIMINATORS)}")

    def single() -> nn.Module:
        if kind == "pixel":
            return PixelDiscriminator(in_channels, ndf, norm)
        return PatchDiscriminator(in_channels, ndf, layers, norm)

    return single() if scales == 1 else MultiscaleDiscriminator([single() for _ in range(scales)])
