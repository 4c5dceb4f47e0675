"""joliGEN's ResNet generator with attention: several results, blended by masks that it makes itself."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cgconvert.generators.mobile_resnet import ENTRANCE, MobileResnetBlock
from cgconvert.generators.resnet import ResnetBlock, ResnetGenerator, upsampling_layers


class ResnetAttentionGenerator(nn.Module):
    """The ResNet generator with two ways up: to pictures, and to masks that say where each is seen.

    There are `masks` masks, which add up to 1 at each pixel. The last `input_masks` of them show the input
    itself, so that the network can leave parts of it alone; the others show one picture each (the idea is
    that of AttentionGAN, Tang et al. 2021). Instance norm without scale, and a bias everywhere. `separable`
    blocks are those of the mobile ResNet.

    Input and output: float NCHW in [-1, 1] with the same number of channels, height and width multiples of 4
    and at least 16.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        ngf: int = 64,
        blocks: int = 9,
        masks: int = 10,
        input_masks: int = 1,
        padding: Literal["reflect", "zero"] = "reflect",
        separable: bool = False,
    ) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(f"its channels in and out are the same, got {in_channels} and {out_channels}")
        if input_masks >= masks:
            raise ValueError(f"{input_masks} of {masks} masks for the input leave none for a result")
        self.made = masks - input_masks
        self.channels = out_channels

        def pad() -> nn.Module:
            return nn.ReflectionPad2d(3) if padding == "reflect" else nn.ZeroPad2d(3)

        def up() -> list[nn.Module]:
            both = (upsampling_layers(width, "instance", True, "transposed") for width in (4 * ngf, 2 * ngf))
            return [layer for layers in both for layer in layers]

        _, *entrance = list(ResnetGenerator(in_channels, out_channels, ngf, 0).model)[:ENTRANCE]
        width = 4 * ngf
        middle = [
            MobileResnetBlock(width, width, padding, "instance")
            if separable
            else ResnetBlock(width, "instance", padding, False, True)
            for _ in range(blocks)
        ]
        self.trunk = nn.Sequential(pad(), *entrance, *middle)
        self.content = nn.Sequential(*up(), pad(), nn.Conv2d(ngf, self.made * out_channels, 7), nn.Tanh())
        self.attention = nn.Sequential(*up(), nn.Conv2d(ngf, masks, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.trunk(x)
        content = self.content(features)
        masks = torch.softmax(self.attention(features), dim=1)
        result = x * masks[:, self.made :].sum(1, keepdim=True)
        for index in range(self.made):
            picture = content[:, self.channels * index : self.channels * (index + 1)]
            result = result + picture * masks[:, index : index + 1]
        return result
