"""Colour calibration: the last layer gives results the target domain's mean and spread of each channel.

A short adversarial training leaves results paler or flatter than their domain, since its averages and its
L1 losses both shrink them. The last convolution before the tanh takes a gain and an offset a channel, free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError
from cgconvert.models.loading import Model
from cgconvert.tensors.images import pixels_to_images
from trainer.data.augment import Pixels

STEP = 4  # every so many pixels: statistics need no more
ROUNDS = 15
LIMIT = 2.0  # of the gain's change in a round, since what comes after it bends


def last_convolution(generator: nn.Module, channels: int) -> nn.Conv2d:
    """The convolution whose outputs become the image. Raises `UsageError` where there is none with a bias."""
    convolutions = [module for module in generator.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions or convolutions[-1].bias is None or convolutions[-1].out_channels % channels:
        raise UsageError("this generator cannot be calibrated: its last layer is no convolution with a bias")
    return convolutions[-1]


@torch.inference_mode()
def calibrate(model: Model, sources: Sequence[Pixels], targets: Sequence[Pixels]) -> None:
    """Scale and shift the last convolution so that results of `sources` have the colours of `targets`.

    What follows that convolution may be any tone curve and filter: gain and offset are found by trying.
    Pictures are uint8 (H, W, 3), in sizes that the generator takes. Raises `UsageError`.
    """
    wanted = np.concatenate([pixels[::STEP, ::STEP].reshape(-1, 3) for pixels in targets]) * (2 / 255) - 1
    mean, spread = torch.tensor(wanted.mean(0)), torch.tensor(wanted.std(0))
    layer = last_convolution(model.generator, len(mean))
    assert layer.bias is not None
    # A pixel shuffle takes each channel's sub-pixels from neighbouring outputs.
    factor = layer.out_channels // len(mean)
    for _ in range(ROUNDS):
        results = torch.cat([_result(model, pixels) for pixels in sources], dim=1).double()
        gain = (spread / results.std(dim=1).clamp_min(1e-6)).clamp(1 / LIMIT, LIMIT)
        # The gain turns about the mean as it is before the tone curve, or it would move it.
        centre = torch.atanh(results.mean(dim=1).clamp(-0.99, 0.99))
        shift = (1 - gain) * centre + mean - results.mean(dim=1)
        scale, offset = (term.float().repeat_interleave(factor) for term in (gain, shift))
        layer.weight.mul_(scale[:, None, None, None])
        layer.bias.mul_(scale).add_(offset)


def _result(model: Model, pixels: Pixels) -> Tensor:
    """Some of the model's result of a picture, in [-1, 1]: (channels, places)."""
    images, _ = pixels_to_images(pixels[None], model.card, torch.device("cpu"))
    return model.generator(images).float()[0, :, ::STEP, ::STEP].flatten(1)
