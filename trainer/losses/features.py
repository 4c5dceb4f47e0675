"""Distances of images in the features of a network: of discriminators, and of generators' inner layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.compute.precision import widened
from trainer.losses.adversarial import Logits
from trainer.losses.reconstruction import l1

Features = Sequence[Tensor] | Sequence[Sequence[Tensor]]


def by_scale(features: Features) -> list[Sequence[Tensor]]:
    """A list of feature maps for each scale, whether there are several or one."""
    return [features] if isinstance(features[0], Tensor) else list(features)  # type: ignore[list-item, arg-type]


def logits_of(features: Features) -> Logits:
    """What the discriminator's forward pass would give: the last of its features, for each scale.

    One pass then serves the adversarial loss and feature matching.
    """
    logits: Any = [scale[-1] for scale in by_scale(features)]
    return logits[0] if isinstance(features[0], Tensor) else logits


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean L1 distance of a discriminator's features, its logits left out (Wang et al. 2018, pix2pixHD)."""
    pairs = list(zip(fake[:-1], real[:-1], strict=True))
    return torch.stack([l1(f, r.detach()) for f, r in pairs]).mean()


def matching_loss(fake: Features, real: Features) -> Tensor:
    """pix2pixHD's feature matching of pairs: mean L1 over the layers, mean over the scales."""
    pairs = zip(by_scale(fake), by_scale(real), strict=True)
    return torch.stack([feature_matching(f, r) for f, r in pairs]).mean()


def mean_matching_loss(fake: Features, real: Features) -> Tensor:
    """Feature matching without pairs (Salimans et al. 2016): of the means over batch and places."""
    parts = []
    for scale_fake, scale_real in zip(by_scale(fake), by_scale(real), strict=True):
        for f, r in zip(scale_fake[:-1], scale_real[:-1], strict=True):
            parts.append(l1(widened(f).mean((0, 2, 3)), widened(r.detach()).mean((0, 2, 3))))
    return torch.stack(parts).mean()


def relative_l1(fake: Features, real: Features) -> Tensor:
    """Mean over layers of L1 over the mean size of the wanted feature, so that no layer outweighs another."""
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
