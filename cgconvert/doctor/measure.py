"""How fast an engine is on this machine: the time to make it ready, and pictures a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from cgconvert.doctor.limits import Limits, count_bytes, count_macs, synchronise
from cgconvert.engines.base import Samples
from cgconvert.engines.batches import OutOfMemoryError, if_it_fits
from cgconvert.engines.choose import Candidate
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import create_job
from cgconvert.errors import CgconvertError
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions
from cgconvert.progress import Progress
from cgconvert.tensors.images import padded_size, pixels_to_images

CALIBRATION_SEED, CALIBRATION_EDGE = 1, 256
"""The seed and edge of the pictures that calibrate int8, which differ from those measured."""


@dataclass(frozen=True)
class Measurement:
    """The figures of one engine at one size and batch, or the `problem` that left none.

    `ready_seconds` is the time to build, load and verify it, which is in no rate. `network` counts images on
    the device, and `convert` pixels from host memory to host memory. Both are median pictures per second.
    `processor_seconds` is the time of all host cores that `convert` takes for a picture, which other
    processes disturb far less than a rate. `share` is the network's share of the arithmetic's measured limit,
    and `memory_share` that of the memory's (`limits.count_bytes`).
    """

    engine: str
    precision: str
    device: str
    width: int
    height: int
    batch: int
    ready_seconds: float | None = None
    network: float | None = None
    convert: float | None = None
    processor_seconds: float | None = None
    share: float | None = None
    memory_share: float | None = None
    psnr_db: float | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def example_pixels(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make pictures with edges, gradients and some noise, uint8 RGB (count, height, width, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pictures = []
    for _ in range(count):
        low, high = random.uniform(0.005, 0.05, (2, 3)), random.uniform(0, 6, 3)
        wave = np.sin(y[..., None] * low[0] + x[..., None] * low[1] + high)
        edges = ((x + 2 * y) // random.integers(20, 90) % 2)[..., None] * 40
        pictures.append(110 + 70 * wave + edges + random.normal(0, 4, wave.shape))
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


def measure(
    model: Model,
    candidate: Candidate,
    size: tuple[int, int],
    batch: int,
    limits: Limits,
    progress: Progress,
    seconds: float = 3.0,
    samples: Samples | None = None,
) -> Measurement:
    """Make an engine ready for (height, width) and time it for about `seconds`, at least three times.

    Without `samples` int8 is calibrated on examples other than those measured. A failure becomes the
    measurement's `problem`.
    """
    height, width = size
    where = "gpu" if candidate.plugin else str(candidate.device)
    about = (candidate.engine, candidate.precision, where, width, height, batch)
    pixels = example_pixels(batch, height, width)
    options = EngineOptions(where, candidate.engine, candidate.precision, batch, tile="off")
    samples = samples or _calibration(height, width)
    started = time.perf_counter()
    try:
        job = create_job(model, options, pixels, progress, samples)
    except CgconvertError as error:
        return Measurement(*about, problem=str(error))
    ready = time.perf_counter() - started
    try:
        verified = job.verifications[0].to_dict()
        rates = if_it_fits(lambda: _rates(job, pixels, seconds)) if job.batch == batch else None
    except OutOfMemoryError:
        rates = None
    finally:
        job.close()
    if rates is None or job.batch < batch:
        return Measurement(*about, problem=_short_of_memory(batch))
    network, convert, spent = rates
    shape = (model.card.network_channels, *padded_size(height, width, model.card))
    share = limits.share(candidate.precision, network * count_macs(model.generator, *shape))
    moved = count_bytes(model.generator, *shape, candidate.precision, batch)
    memory_share = limits.memory_share(network * moved)
    return Measurement(
        *about,
        ready_seconds=round(ready, 3),
        network=round(network, 3),
        convert=round(convert, 3),
        processor_seconds=round(spent, 5),
        share=round(share, 4) if share is not None else None,
        memory_share=round(memory_share, 4) if memory_share is not None else None,
        psnr_db=verified["psnr_db"],
    )


def _short_of_memory(batch: int) -> str:
    return f"out of memory at batch {batch}: use a smaller `batch` or `size`"


def _calibration(height: int, width: int) -> Samples:
    """Return examples of at most this size, on which int8 is calibrated."""
    edges = min(height, CALIBRATION_EDGE), min(width, CALIBRATION_EDGE)
    return lambda count: list(example_pixels(count, *edges, CALIBRATION_SEED))


def _rates(job: EngineJob, pixels: np.ndarray, seconds: float) -> tuple[float, float, float]:
    """Return the rates of `network` and `convert`, and the processor seconds per picture of `convert`."""
    engine = job.engine
    images, _ = pixels_to_images(pixels, engine.model.card, engine.device)
    network, _ = _rate(lambda: engine(images), engine.device, len(pixels), seconds / 2)
    convert, spent = _rate(lambda: convert_pixels(job, pixels), engine.device, len(pixels), seconds / 2)
    return network, convert, spent


def _rate(
    work: Callable[[], object], device: torch.device, batch: int, seconds: float
) -> tuple[float, float]:
    """Return pictures per second and processor seconds per picture, the medians of three runs or more."""
    work()
    times: list[float] = []
    spent: list[float] = []
    finish = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < finish:
        synchronise(device)
        started, before = time.perf_counter(), time.process_time()
        work()
        synchronise(device)
        times.append(time.perf_counter() - started)
        spent.append(time.process_time() - before)
    return batch / statistics.median(times), statistics.median(spent) / batch
