"""The metrics of one generator on hold-out pictures, as the table shows them and as the log keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.data.augment import Pixels
from trainer.metrics.grid import grid_power
from trainer.metrics.inception import Inception
from trainer.metrics.learned import LearnedMetric
from trainer.metrics.motion import shift_error
from trainer.metrics.ssim import psnr, ssim_luminance
from trainer.metrics.swd import sliced_wasserstein

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Networks:
    """Pretrained networks that metrics are measured with, each of them if it was asked for."""

    inception: Inception | None = None
    learned: LearnedMetric | None = None


NO_NETWORKS = Networks()


def open_networks(inception: str, sha256: str, learned: bool, device: torch.device) -> Networks:
    """The networks asked for: an Inception file by its path and checksum, and the learned metric's own.

    Raises `ModelError`, `UnavailableError`.
    """
    return Networks(
        Inception(Path(inception), device, sha256 or None) if inception else None,
        LearnedMetric(device) if learned else None,
    )


def measure_results(
    sources: Sequence[Pixels],
    results: Sequence[Pixels],
    targets: Sequence[Pixels],
    edge: int,
    networks: Networks = NO_NETWORKS,
) -> Metrics:
    """Distance of results to the target domain, grid, and structure kept of their sources.

    SSIM and grid are of the pictures as they are; the distance is of squares of `edge` pixels. What the
    networks measure joins.
    """
    metrics = measure_set(results, targets, edge, networks)
    similar = [ssim_luminance(s, r) for s, r in zip(sources, results, strict=True)]
    return metrics | {"ssim": float(np.mean(similar))}


def measure_set(
    results: Sequence[Pixels], targets: Sequence[Pixels], edge: int, networks: Networks = NO_NETWORKS
) -> Metrics:
    """What of `measure_results` needs no sources: the distances of two sets of pictures, and the grid."""
    distance = sliced_wasserstein(results, targets, edge)
    metrics: Metrics = {
        "swd": distance.mean_normalised,
        "swd_common": distance.mean_common,
        "swd_levels": dict(zip(map(str, distance.levels), distance.normalised, strict=True)),
        "swd_common_levels": dict(zip(map(str, distance.levels), distance.common, strict=True)),
        "grid": grid_power(results, edge),
    }
    if networks.learned is not None:
        learned = networks.learned.scores(results, targets)
        metrics |= {"learned": learned.distance, "learned_spread": learned.spread}
        metrics |= {"precision": learned.precision, "recall": learned.recall}
    if networks.inception is not None:
        scores = networks.inception.scores(results, targets)
        metrics |= {"kid": scores.kid, "kid_spread": scores.kid_spread, "fid": scores.fid}
        metrics["inception"] = scores.inception_sha256
    return metrics


def measure_generator(
    convert: Callable[[Pixels], Pixels],
    sources: Sequence[Pixels],
    targets: Sequence[Pixels],
    edge: int,
    back: Callable[[Pixels], Pixels] | None = None,
    truths: Sequence[Pixels] = (),
    networks: Networks = NO_NETWORKS,
    teacher: Callable[[Pixels], Pixels] | None = None,
) -> Metrics:
    """All metrics of a generator on hold-out pictures: `measure_results`, and what needs the generator.

    `shift` is the error of shifted inputs; `cycle_psnr` that of the way `back`; `l1` and `truth_ssim` compare
    with the `truths` of pairs (L1 in [0, 255]), `teacher_l1` and `teacher_ssim` with a teacher's results.
    """
    results = [convert(pixels) for pixels in sources]
    metrics = measure_results(sources, results, targets, edge, networks)
    metrics["shift"] = shift_error(sources[:8], convert)
    if back is not None:
        metrics["cycle_psnr"] = float(
            np.mean([psnr(s, back(r)) for s, r in zip(sources, results, strict=True)])
        )
    if truths:
        metrics |= measure_truth(results, truths)
    if teacher is not None:
        near = measure_truth(results, [teacher(pixels) for pixels in sources])
        metrics |= {"teacher_l1": near["l1"], "teacher_ssim": near["truth_ssim"]}
    return metrics


def measure_truth(results: Sequence[Pixels], truths: Sequence[Pixels]) -> Metrics:
    """Mean L1 in [0, 255] and SSIM of luminance against the truth of pairs."""
    pairs = list(zip(results, truths, strict=True))
    return {
        "l1": float(np.mean([np.abs(r.astype(int) - t.astype(int)).mean() for r, t in pairs])),
        "truth_ssim": float(np.mean([ssim_luminance(r, t) for r, t in pairs])),
    }
