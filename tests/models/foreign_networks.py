"""Generators of other software, written down from what was published, in plain PyTorch without our layers.

Names of attributes are those that the files have. Where a layer has no weights, what is computed is spelled
out with functions, so that nothing is shared with the networks that they are compared with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.reference_networks import Named, Residual, norm_layer


class Down(nn.Module):
    """CUT's Downsample: reflected by one, [1 2 1] x [1 2 1] / 16, every second value."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (torch.outer(taps, taps) / 16)[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        wide = F.pad(x, (1, 1, 1, 1), mode="reflect")
        kernel = self.filt[0, 0]
        total = sum(
            kernel[i, j] * wide[:, :, i : i + rows, j : j + columns] for i in range(3) for j in range(3)
        )
        return total[:, :, ::2, ::2]


class Up(nn.Module):
    """CUT's Upsample: replicated by one, transposed convolution with [1 3 3 1] x [1 3 3 1] / 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        filt = torch.outer(taps, taps) / taps.sum() ** 2 * 4
        self.register_buffer("filt", filt[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
        spread = wide.new_zeros(*wide.shape[:2], 2 * wide.shape[2] + 2, 2 * wide.shape[3] + 2)
        for i in range(4):
            for j in range(4):
                part = spread[:, :, i : i + 2 * wide.shape[2] : 2, j : j + 2 * wide.shape[3] : 2]
                part += self.filt[0, 0, i, j] * wide
        return spread[:, :, 2:-2, 2:-2][:, :, 1:, 1:][:, :, :-1, :-1]


def block(
    channels: int, padding: str = "reflect", norm: str = "instance", dropout: bool = False
) -> nn.Module:
    """The residual block that CycleGAN, CUT and pix2pixHD share."""

    def conv() -> list[nn.Module]:
        if padding == "zero":
            return [nn.Conv2d(channels, channels, 3, padding=1)]
        return [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]

    middle: list[nn.Module] = [norm_layer(norm, channels), nn.ReLU(True)]
    if dropout:
        middle.append(nn.Dropout(0.5))
    return Residual([*conv(), *middle, *conv(), norm_layer(norm, channels)], "conv_block")


def cut(
    ngf: int = 6, blocks: int = 2, down: bool = True, up: bool = True, norm: str = "instance"
) -> nn.Module:
    """CUT's and FastCUT's generator; `down` and `up` without --no_antialias and --no_antialias_up."""
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), norm_layer(norm, ngf), nn.ReLU(True)]
    for width in (ngf, 2 * ngf):
        layers.append(nn.Conv2d(width, 2 * width, 3, stride=1 if down else 2, padding=1))
        layers += [norm_layer(norm, 2 * width), nn.ReLU(True)]
        if down:
            layers.append(Down(2 * width))
    layers += [block(4 * ngf, norm=norm) for _ in range(blocks)]
    for width in (4 * ngf, 2 * ngf):
        if up:
            layers += [Up(width), nn.Conv2d(width, width // 2, 3, padding=1)]
        else:
            layers.append(nn.ConvTranspose2d(width, width // 2, 3, 2, padding=1, output_padding=1))
        layers += [norm_layer(norm, width // 2), nn.ReLU(True)]
    return Named([*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()])


def _global_layers(ngf: int, downs: int, blocks: int, padding: str, norm: str) -> list[nn.Module]:
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), norm_layer(norm, ngf), nn.ReLU(True)]
    for level in range(downs):
        width = ngf * 2**level
        layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), norm_layer(norm, 2 * width), nn.ReLU(True)]
    layers += [block(ngf * 2**downs, padding, norm) for _ in range(blocks)]
    for level in range(downs, 0, -1):
        width = ngf * 2**level
        turned = nn.ConvTranspose2d(width, width // 2, 3, 2, padding=1, output_padding=1)
        layers += [turned, norm_layer(norm, width // 2), nn.ReLU(True)]
    return layers


def hd_global(
    ngf: int = 4, downs: int = 3, blocks: int = 2, padding: str = "reflect", norm: str = "instance"
) -> nn.Module:
    """pix2pixHD's GlobalGenerator."""
    layers = _global_layers(ngf, downs, blocks, padding, norm)
    return Named([*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()])


class LocalEnhancer(nn.Module):
    """pix2pixHD's LocalEnhancer, which has the global network without its last three layers inside."""

    def __init__(
        self,
        ngf: int = 4,
        downs: int = 2,
        blocks: int = 2,
        enhancers: int = 1,
        local: int = 1,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        self.enhancers = enhancers
        self.model = nn.Sequential(*_global_layers(ngf * 2**enhancers, downs, blocks, "reflect", norm))
        for number in range(1, enhancers + 1):
            width = ngf * 2 ** (enhancers - number)
            entrance = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), norm_layer(norm, width), nn.ReLU(True)]
            entrance += [nn.Conv2d(width, 2 * width, 3, 2, 1), norm_layer(norm, 2 * width), nn.ReLU(True)]
            turned = nn.ConvTranspose2d(2 * width, width, 3, 2, padding=1, output_padding=1)
            after = [block(2 * width, norm=norm) for _ in range(local)]
            after += [turned, norm_layer(norm, width), nn.ReLU(True)]
            if number == enhancers:
                after += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()]
            setattr(self, f"model{number}_1", nn.Sequential(*entrance))
            setattr(self, f"model{number}_2", nn.Sequential(*after))

    def forward(self, x: Tensor) -> Tensor:
        sizes = [x]
        for _ in range(self.enhancers):
            sizes.append(F.avg_pool2d(sizes[-1], 3, stride=2, padding=[1, 1], count_include_pad=False))
        previous = self.model(sizes[-1])
        for number in range(1, self.enhancers + 1):
            entered = getattr(self, f"model{number}_1")(sizes[self.enhancers - number])
            previous = getattr(self, f"model{number}_2")(entered + previous)
        return previous


class Separable(Named):
    """A convolution of each channel alone, an instance norm, a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, padding: int = 0, mode: str = "zeros") -> None:
        depthwise = nn.Conv2d(inputs, inputs, 3, padding=padding, padding_mode=mode, groups=inputs)
        super().__init__([depthwise, nn.InstanceNorm2d(inputs), nn.Conv2d(inputs, outputs, 1)], "conv")


def separable_block(channels: int, inner: int, dropout: bool = True, padding: str = "reflect") -> nn.Module:
    """The block of GAN Compression, or without a layer of dropout that of joliGEN's mobile ResNet."""

    def conv(a: int, b: int) -> list[nn.Module]:
        return [Separable(a, b, 1)] if padding == "zero" else [nn.ReflectionPad2d(1), Separable(a, b)]

    middle: list[nn.Module] = [nn.InstanceNorm2d(inner), nn.ReLU(True)]
    if dropout:
        middle.append(nn.Dropout(0))
    return Residual(
        [*conv(channels, inner), *middle, *conv(inner, channels), nn.InstanceNorm2d(channels)], "conv_block"
    )


def compressed(config: tuple[int, ...] = (4, 5, 3, 6, 5, 7, 4, 5), padding: str = "reflect") -> nn.Module:
    """GAN Compression's SubMobileResnetGenerator: `config` as its files are named, 24_16_32_..., 9 blocks."""
    first, half, quarter, *middle, up, last = config
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, first, 7), nn.InstanceNorm2d(first), nn.ReLU(True)]
    for before, after in ((first, 2 * half), (2 * half, 4 * quarter)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.InstanceNorm2d(after), nn.ReLU(True)]
    for number in range(9):
        inner = 4 * (middle[0] if len(config) == 6 else middle[number // 3])
        layers.append(separable_block(4 * quarter, inner, padding=padding))
    for before, after in ((4 * quarter, 2 * up), (2 * up, last)):
        turned = nn.ConvTranspose2d(before, after, 3, 2, padding=1, output_padding=1)
        layers += [turned, nn.InstanceNorm2d(after), nn.ReLU(True)]
    return Named([*layers, nn.ReflectionPad2d(3), nn.Conv2d(last, 3, 7), nn.Tanh()])


class Halves(nn.Module):
    """joliGEN's ResnetGenerator and MobileResnetGenerator: an encoder with the blocks, and a decoder."""

    def __init__(self, ngf: int = 6, blocks: int = 2, mobile: bool = False, dropout: bool = True) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), nn.InstanceNorm2d(ngf), nn.ReLU(True)]
        for width in (ngf, 2 * ngf):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU(True)]
        for _ in range(blocks):
            layers.append(
                separable_block(4 * ngf, 4 * ngf, dropout) if mobile else block(4 * ngf, dropout=dropout)
            )
        ups: list[nn.Module] = []
        for width in (4 * ngf, 2 * ngf):
            turned = nn.ConvTranspose2d(width, width // 2, 3, 2, padding=1, output_padding=1)
            ups += [turned, nn.InstanceNorm2d(width // 2), nn.ReLU(True)]
        self.encoder = Named(layers)
        self.decoder = Named([*ups, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()])

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class AttentionBlock(nn.Module):
    def __init__(self, channels: int, mode: str, mobile: bool) -> None:
        super().__init__()

        def conv() -> nn.Module:
            if mobile:
                return Separable(channels, channels, 1, mode)
            return nn.Conv2d(channels, channels, 3, padding=1, padding_mode=mode)

        self.conv1, self.conv1_norm = conv(), nn.InstanceNorm2d(channels)
        self.conv2, self.conv2_norm = conv(), nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2_norm(self.conv2(F.relu(self.conv1_norm(self.conv1(x)))))


class Attention(nn.Module):
    """joliGEN's ResnetGenerator_attn."""

    def __init__(
        self,
        ngf: int = 6,
        blocks: int = 2,
        masks: int = 4,
        input_masks: int = 1,
        mode: str = "reflect",
        mobile: bool = False,
    ) -> None:
        super().__init__()
        self.masks, self.made, self.mode = masks, masks - input_masks, mode
        self.conv1, self.conv1_norm = nn.Conv2d(3, ngf, 7), nn.InstanceNorm2d(ngf)
        self.conv2, self.conv2_norm = nn.Conv2d(ngf, 2 * ngf, 3, 2, 1), nn.InstanceNorm2d(2 * ngf)
        self.conv3, self.conv3_norm = nn.Conv2d(2 * ngf, 4 * ngf, 3, 2, 1), nn.InstanceNorm2d(4 * ngf)
        self.resnet_blocks = nn.Sequential(*(AttentionBlock(4 * ngf, mode, mobile) for _ in range(blocks)))
        for way in ("content", "attention"):
            setattr(self, f"deconv1_{way}", nn.ConvTranspose2d(4 * ngf, 2 * ngf, 3, 2, 1, 1))
            setattr(self, f"deconv1_norm_{way}", nn.InstanceNorm2d(2 * ngf))
            setattr(self, f"deconv2_{way}", nn.ConvTranspose2d(2 * ngf, ngf, 3, 2, 1, 1))
            setattr(self, f"deconv2_norm_{way}", nn.InstanceNorm2d(ngf))
        self.deconv3_content = nn.Conv2d(ngf, 3 * self.made, 7)
        self.deconv3_attention = nn.Conv2d(ngf, masks, 1)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (3, 3, 3, 3), mode="reflect" if self.mode == "reflect" else "constant")

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1_norm(self.conv1(self._padded(x))))
        y = F.relu(self.conv2_norm(self.conv2(y)))
        y = self.resnet_blocks(F.relu(self.conv3_norm(self.conv3(y))))
        content = F.relu(self.deconv1_norm_content(self.deconv1_content(y)))
        content = F.relu(self.deconv2_norm_content(self.deconv2_content(content)))
        images = torch.tanh(self.deconv3_content(self._padded(content))).split(3, dim=1)
        seen = F.relu(self.deconv1_norm_attention(self.deconv1_attention(y)))
        seen = F.relu(self.deconv2_norm_attention(self.deconv2_attention(seen)))
        weights = self.deconv3_attention(seen).exp()
        weights = weights / weights.sum(dim=1, keepdim=True)
        shown = [*images, *[x] * (self.masks - self.made)]
        return torch.stack([weights[:, i : i + 1] * each for i, each in enumerate(shown)]).sum(0)


class Anime(nn.Module):
    """AnimeGANv2's Generator of the PyTorch port, with a number of channels that may be less than 32."""

    def __init__(self, ngf: int = 4) -> None:
        super().__init__()
        a, b, c, d = ngf, 2 * ngf, 4 * ngf, 8 * ngf
        self.block_a = nn.Sequential(self._cnl(3, a, 7), self._cnl(a, b, 3, 2), self._cnl(b, b))
        self.block_b = nn.Sequential(self._cnl(b, c, 3, 2), self._cnl(c, c))
        inverted = [self._inverted(c, d), *(self._inverted(d, d) for _ in range(3))]
        self.block_c = nn.Sequential(self._cnl(c, c), *inverted, self._cnl(d, c))
        self.block_d = nn.Sequential(self._cnl(c, c), self._cnl(c, c))
        self.block_e = nn.Sequential(self._cnl(c, b), self._cnl(b, b), self._cnl(b, a, 7))
        self.out_layer = nn.Sequential(nn.Conv2d(a, 3, 1, bias=False), nn.Tanh())

    @staticmethod
    def _cnl(a: int, b: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
        pad = nn.ReflectionPad2d((0, 1, 0, 1) if stride == 2 else kernel // 2)
        conv = nn.Conv2d(a, b, kernel, stride, groups=groups, bias=groups > 1)
        return nn.Sequential(pad, conv, LayerNorm(b), nn.LeakyReLU(0.2))

    def _inverted(self, a: int, b: int) -> nn.Module:
        layers = [self._cnl(a, 2 * a, 1), self._cnl(2 * a, 2 * a, 3, 1, 2 * a)]
        layers += [nn.Conv2d(2 * a, b, 1, bias=False), LayerNorm(b)]
        return Residual(layers, "layers") if a == b else Named(layers, "layers")

    def forward(self, x: Tensor) -> Tensor:
        half = self.block_a(x)
        y = self.block_c(self.block_b(half))
        y = F.interpolate(y, half.shape[2:], mode="bilinear", align_corners=True)
        y = F.interpolate(self.block_d(y), x.shape[2:], mode="bilinear", align_corners=True)
        return self.out_layer(self.block_e(y))


class LayerNorm(nn.Module):
    """A norm over all values of a picture, with a scale and a shift for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        variance = (x - mean).square().mean(dim=(1, 2, 3), keepdim=True)
        scaled = (x - mean) / torch.sqrt(variance + 1e-5)
        return scaled * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
