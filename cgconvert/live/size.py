"""The size at which a network keeps up with the pictures that come."""

from __future__ import annotations

import time

import numpy as np

from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import prepare_new_size
from cgconvert.media.picture.resize import resized
from cgconvert.progress import Silent
from cgconvert.tensors.images import padded_size

FACTORS = (1.0, 0.75, 0.625, 0.5, 0.375, 0.25, 0.1875, 0.125)
LEAST_EDGE = 48

SHARE = {"cpu": 0.6, "cuda": 0.8}
"""Of the time between two pictures, what the network may take: decoding and encoding need a processor too."""

UNKNOWN_SHARE = 0.7


def possible_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Sizes (width, height) from that of a picture down, in its shape; the largest first, one at least."""
    sizes = [(max(2, round(width * f / 2) * 2), max(2, round(height * f / 2) * 2)) for f in FACTORS]
    return [size for size in dict.fromkeys(sizes) if min(size) >= LEAST_EDGE] or [(width, height)]


def measured(job: EngineJob, pixels: np.ndarray) -> float:
    """Seconds that one picture (H, W, 3) takes, once its size is ready."""
    size = padded_size(pixels.shape[0], pixels.shape[1], job.engine.model.card)
    if job.engine.builds and not job.engine.built_for(*size):
        prepare_new_size(job, pixels[None], Silent())
    times = []
    for _ in range(3):
        started = time.perf_counter()
        convert_pixels(job, pixels[None])
        times.append(time.perf_counter() - started)
    return min(times)


def share_of(job: EngineJob) -> float:
    """The part of the time between two pictures that the network may take on the job's device."""
    return SHARE.get(job.engine.device.type, UNKNOWN_SHARE)


def choose_size(
    job: EngineJob, pixels: np.ndarray, sizes: list[tuple[int, int]], interval: float
) -> tuple[int, float]:
    """The number of the largest size that a network takes at most its share of `interval` seconds for.

    `pixels` (H, W, 3) is a picture to measure with. On a processor the small sizes are tried first, and one
    that would take far too long is not tried at all; elsewhere the large ones. Returns the seconds too.
    """
    limit = share_of(job) * interval
    if job.engine.device.type != "cpu":
        for number, size in enumerate(sizes):
            seconds = measured(job, resized(pixels, *size))
            if seconds <= limit:
                return number, seconds
        return len(sizes) - 1, seconds
    best, known = len(sizes) - 1, measured(job, resized(pixels, *sizes[-1]))
    for number in range(len(sizes) - 2, -1, -1):
        grown = sizes[number][0] * sizes[number][1] / (sizes[best][0] * sizes[best][1])
        if known * grown > 1.5 * limit:
            break
        seconds = measured(job, resized(pixels, *sizes[number]))
        if seconds > limit:
            break
        best, known = number, seconds
    return best, known
