"""A learned distance of our own: a kernel distance, precision and recall on EfficientNet-lite0's features.

It is made like KID, but it is not KID: the features are those of another network. Its figures compare with
each other only, on the same sets of pictures, and never with published ones. The features are the last ones
before the classes; discriminators and content losses look at earlier stages, so that a training has not
been lowering the very figure it is judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cgconvert.errors import UsageError
from trainer.data.augment import Pixels
from trainer.metrics.inception import Features, kid
from trainer.metrics.swd import square
from trainer.networks.efficientnet import EfficientNetLite0, load_efficientnet

EDGE = 224  # pixels, of the squares that the network was trained on
BATCH = 8
NEIGHBOUR = 3  # of the k-th nearest neighbour, whose distance is the radius of the manifold around a picture


@dataclass(frozen=True)
class LearnedScores:
    """The kernel distance with the standard deviation over subsets, both times 1000; precision and recall.

    Precision is the share of results among the targets' neighbours, recall that of targets among the
    results' neighbours, in [0, 1].
    """

    distance: float
    spread: float
    precision: float
    recall: float


class LearnedMetric:
    """The network, on a device. Raises `UnavailableError` where its weights are not installed."""

    def __init__(self, device: torch.device) -> None:
        self._network: EfficientNetLite0 = load_efficientnet(device)
        self._device = device

    @torch.inference_mode()
    def features(self, pictures: Sequence[Pixels]) -> Features:
        """Features of the central squares of uint8 pictures (H, W, 3): float64 (N, 1280)."""
        rows = []
        for first in range(0, len(pictures), BATCH):
            squares = [square(pixels, EDGE) for pixels in pictures[first : first + BATCH]]
            images = torch.from_numpy(np.stack(squares)).to(self._device).permute(0, 3, 1, 2)
            rows.append(self._network.pooled(images.float() * (2 / 255) - 1).double().cpu().numpy())
        return np.concatenate(rows)

    def scores(self, results: Sequence[Pixels], targets: Sequence[Pixels]) -> LearnedScores:
        """The distance of results from a target domain. Raises `UsageError` below 2 pictures a side."""
        if min(len(results), len(targets)) < 2:
            raise UsageError("the learned metric needs at least 2 pictures a side")
        ours, theirs = self.features(results), self.features(targets)
        mean, spread = kid(ours, theirs)
        inside = share_inside(ours, theirs), share_inside(theirs, ours)
        return LearnedScores(1000 * mean, 1000 * spread, *inside)


def share_inside(samples: Features, reference: Features) -> float:
    """The share of samples (N, D) that lie on the manifold of a reference (M, D), in [0, 1].

    The manifold is the union of balls around each reference point that reach to its k-th nearest neighbour
    (Kynkaanniemi et al. 2019, "Improved precision and recall"); k is less for very small sets.
    """
    within = _distances(reference, reference)
    np.fill_diagonal(within, np.inf)
    k = min(NEIGHBOUR, len(reference) - 1)
    radii = np.partition(within, k - 1, axis=1)[:, k - 1]
    return float((_distances(samples, reference) <= radii[None]).any(axis=1).mean())


def _distances(one: Features, other: Features) -> Features:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
    return np.sqrt(np.maximum(squares, 0))
