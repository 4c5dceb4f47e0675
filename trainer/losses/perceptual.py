"""Keep what a picture shows, whatever it is painted with: distances of pretrained features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compute.precision import widened


def normalised_features_l1(results: Sequence[Tensor], sources: Sequence[Tensor]) -> Tensor:
    """Mean over the levels of L1 between features normalised over each image and channel.

    The normalisation takes colours, contrast and paint out of the comparison, which live in means and
    spreads (Huang et al. 2018, MUNIT's domain-invariant perceptual loss), and leaves what is where. Features
    are NCHW; those of `sources` get no gradient.
    """
    parts = []
    for result, source in zip(results, sources, strict=True):
        wanted = F.instance_norm(widened(source.detach()))
        parts.append(F.l1_loss(F.instance_norm(widened(result)), wanted))
    return torch.stack(parts).mean()
