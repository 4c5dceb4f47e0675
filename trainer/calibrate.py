"""Colour calibration: the last layer gives results the target domain's mean and spread of each channel.

A short adversarial training leaves results paler or flatter than their domain, since its averages and its
L1 losses both shrink them. The last convolution before the tanh takes a gain and an offset a channel, free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cgconvert.errors import UsageError
from trainer.augment import Pixels
from trainer.samples import to_images

STEP = 4  # every so many pixels: statistics need no more
ROUNDS = 60
LIMIT = 1 - 1e-5  # of results, so that the inverse of tanh stays finite


def last_convolution(generator: nn.Module, channels: int) -> nn.Conv2d:
    """The convolution whose outputs become the image. Raises `UsageError` where there is none with a bias."""
    convolutions = [module for module in generator.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions or convolutions[-1].bias is None or convolutions[-1].out_channels % channels:
        raise UsageError("this generator cannot be calibrated: its last layer is no convolution with a bias")
    return convolutions[-1]


@torch.inference_mode()
def calibrate(generator: nn.Module, sources: Sequence[Pixels], targets: Sequence[Pixels]) -> None:
    """Scale and shift the last convolution so that results of `sources` have the colours of `targets`.

    Pictures are uint8 (H, W, 3), in sizes that the generator takes. Raises `UsageError`.
    """
    before = torch.cat([_before_tanh(generator, pixels) for pixels in sources], dim=1).double()
    wanted = np.concatenate([pixels[::STEP, ::STEP].reshape(-1, 3) for pixels in targets]) * (2 / 255) - 1
    gain, offset = _fit(before, wanted.mean(0), wanted.std(0))
    layer = last_convolution(generator, len(gain))
    assert layer.bias is not None
    # A pixel shuffle takes each channel's sub-pixels from neighbouring outputs.
    factor = layer.out_channels // len(gain)
    scale = torch.tensor(gain, dtype=torch.float32).repeat_interleave(factor)
    shift = torch.tensor(offset, dtype=torch.float32).repeat_interleave(factor)
    layer.weight.mul_(scale[:, None, None, None])
    layer.bias.mul_(scale).add_(shift)


def _before_tanh(generator: nn.Module, pixels: Pixels) -> Tensor:
    result = generator(to_images(pixels, torch.device("cpu")))
    return torch.atanh(result.float().clamp(-LIMIT, LIMIT))[0, :, ::STEP, ::STEP].flatten(1)


def _fit(
    before: Tensor, mean: NDArray[np.float64], spread: NDArray[np.float64]
) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset a channel with which tanh(gain x + offset) has this mean and spread."""
    gain, offset = np.ones(len(mean)), np.zeros(len(mean))
    for _ in range(ROUNDS):
        result = torch.tanh(torch.from_numpy(gain)[:, None] * before + torch.from_numpy(offset)[:, None])
        gain = gain * (spread / np.maximum(result.std(1).numpy(), 1e-6))
        offset = offset + (mean - result.mean(1).numpy())
    return gain, offset
