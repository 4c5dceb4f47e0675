"""Distances of images in the features of a network: of discriminators, and of generators' inner layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.compute.precision import widened
from trainer.losses.reconstruction import l1
from trainer.networks.discriminators import Logits

Features = Sequence[Tensor] | Sequence[Sequence[Tensor]]


def by_scale(features: Features) -> list[Sequence[Tensor]]:
    """A list of feature maps for each scale, whether there are several or one."""
    return [features] if isinstance(features[0], Tensor) else list(features)  # type: ignore[list-item, arg-type]


def logits_of(features: Features) -> Logits:
    """The logits of a discriminator, which are the last of its features, for each scale.

    With them one pass serves the adversarial loss and feature matching.
    """
    logits: Any = [scale[-1] for scale in by_scale(features)]
    return logits[0] if isinstance(features[0], Tensor) else logits


def matching_loss(fake: Features, real: Features) -> Tensor:
    """Feature matching of pairs (Wang et al. 2018, pix2pixHD): mean L1 over the layers, mean over the scales.

    The last of a scale's features are its logits, which are left out. `real` passes no gradient.
    """
    scales = []
    for scale_fake, scale_real in zip(by_scale(fake), by_scale(real), strict=True):
        layers = zip(scale_fake[:-1], scale_real[:-1], strict=True)
        scales.append(torch.stack([l1(f, r.detach()) for f, r in layers]).mean())
    return torch.stack(scales).mean()


def mean_matching_loss(fake: Features, real: Features) -> Tensor:
    """Feature matching without pairs (Salimans et al. 2016): L1 of the means over batch and places."""
    parts = []
    for scale_fake, scale_real in zip(by_scale(fake), by_scale(real), strict=True):
        for f, r in zip(scale_fake[:-1], scale_real[:-1], strict=True):
            parts.append(l1(widened(f).mean((0, 2, 3)), widened(r.detach()).mean((0, 2, 3))))
    return torch.stack(parts).mean()


def relative_l1(fake: Features, real: Features) -> Tensor:
    """L1 of each feature divided by the mean size of the wanted one, mean over the layers.

    The division keeps layers of large values from outweighing the others. `real` passes no gradient.
    """
    parts = []
    for scale_fake, scale_real in zip(by_scale(fake), by_scale(real), strict=True):
        for f, r in zip(scale_fake, scale_real, strict=True):
            wanted = widened(r.detach())
            parts.append((widened(f) - wanted).abs().mean() / wanted.abs().mean().clamp_min(1e-6))
    return torch.stack(parts).mean()


def gram(features: Tensor) -> Tensor:
    """Gram matrices of feature maps over their places: NCHW to (N, C, C).

    They are computed in float32 at least, under autocast too, since they sum over many places.
    """
    flat = widened(features).flatten(2)
    with torch.autocast(flat.device.type, enabled=False):
        return flat @ flat.transpose(1, 2) / flat.shape[2]
