"""Statistics of instance norms: read out on some pictures, and frozen into a generator.

An instance norm ties every pixel of a result to the whole picture: tiles of one picture come out unlike each
other, and a video's background changes when something enters the frame. With frozen statistics the network is
a plain function of each pixel's neighbourhood.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class NormStatistics:
    """Mean and (biased) variance of each channel before one instance norm, float32 (channels,) each."""

    mean: Tensor
    variance: Tensor


class FrozenNorm2d(nn.Module):
    """An instance norm with given statistics: one multiplication and one addition a channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.InstanceNorm2d, statistics: NormStatistics) -> None:
        super().__init__()
        scale = torch.rsqrt(statistics.variance + norm.eps)
        shift = -statistics.mean * scale
        if norm.affine:
            weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
            scale, shift = scale * weight, shift * weight + bias
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


@torch.inference_mode()
def read_statistics(generator: nn.Module, batches: Iterable[Tensor]) -> dict[str, NormStatistics]:
    """The mean statistics of every instance norm, by its name in the generator, over all images given.

    Batches are float (N, C, H, W) in [-1, 1], of sizes that the generator takes. The variance is that around
    the common mean, so that it holds for all the images as for one large picture. Raises `ValueError` for
    no images.
    """
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    seen = 0

    def keep(name: str, inputs: Tensor) -> None:
        planes = inputs.detach().double()
        first, second = planes.mean(dim=(2, 3)).sum(0), planes.square().mean(dim=(2, 3)).sum(0)
        before = moments.get(name)
        moments[name] = (first, second) if before is None else (before[0] + first, before[1] + second)

    norms = _instance_norms(generator)
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
        for name, layer in norms.items()
    ]
    try:
        for images in batches:
            generator(images)
            seen += len(images)
    finally:
        for hook in hooks:
            hook.remove()
    if seen == 0:
        raise ValueError("statistics of instance norms need at least one image")
    result = {}
    for name, (first, second) in moments.items():
        mean = first / seen
        variance = (second / seen - mean.square()).clamp_min(0)
        result[name] = NormStatistics(mean.float().clone(), variance.float().clone())
    return result


def freeze_statistics(generator: nn.Module, statistics: Mapping[str, NormStatistics]) -> nn.Module:
    """A copy of the generator whose instance norms use these statistics whatever they are shown.

    On the one picture that the statistics were read from it gives the same result. Raises `KeyError` naming
    a norm that has none.
    """
    frozen = copy.deepcopy(generator)
    for name, norm in _instance_norms(generator).items():
        if name not in statistics:
            raise KeyError(f"no statistics of {name}")
        parent, _, own = name.rpartition(".")
        setattr(frozen.get_submodule(parent), own, FrozenNorm2d(norm, statistics[name]))
    return frozen


def _instance_norms(generator: nn.Module) -> dict[str, nn.InstanceNorm2d]:
    return {name: layer for name, layer in generator.named_modules() if isinstance(layer, nn.InstanceNorm2d)}
