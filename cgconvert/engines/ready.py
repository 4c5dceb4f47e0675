"""An engine ready for a job: built, prepared for its size, compared with the reference on first frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from torch import Tensor

from cgconvert.engines.base import Engine, Samples
from cgconvert.engines.batches import (
    OutOfMemoryError,
    choose_batch,
    if_it_fits,
    prepare_what_fits,
    tile_from_now_on,
    why_it_cannot_fit,
)
from cgconvert.engines.choose import Candidate, build, candidates
from cgconvert.engines.fastest import in_order
from cgconvert.engines.job import EngineJob
from cgconvert.engines.quantise import calibration_pictures
from cgconvert.engines.tiles.tiling import Tiling
from cgconvert.engines.verify import BOUNDS_DB, Verification, VerificationError, verify
from cgconvert.errors import CgconvertError, UnavailableError
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions, edge_of
from cgconvert.progress import Progress, Silent, shown_stage
from cgconvert.tensors.images import padded_size

VERIFIED_PIXELS = 4 * 256 * 256
"""Pixels compared, in one picture at least: the plain float32 network is slow beside what it checks."""

COMPARED_TILED = 1024
"""Edge of the largest corner that is compared if pictures go through in tiles; it has several of them."""

SMALLEST_COMPARED = 128
"""Edge of the smallest crop that is compared where memory is short; less says little about a picture."""


def create_job(
    model: Model,
    options: EngineOptions,
    first_pixels: np.ndarray,
    progress: Progress | None = None,
    samples: Samples | None = None,
    compared_edge: int | None = None,
    stored_bytes: int = 0,
    pixels: int = 0,
) -> EngineJob:
    """The engine for a job, whose first pictures are `first_pixels` (N, H, W, 3), uint8 or uint16.

    It is prepared for their size, the batch is chosen, and what the engine makes of the first pictures has
    been compared with the plain float32 network. Where engine or precision is `auto`, one that does not work
    or falls below its bound gives way to the next, and the job's notes say so. The fastest engine comes first
    where that is known or worth measuring for all `pixels` of the job (`fastest.in_order`). `samples` gives
    pictures for int8's calibration; without it the first pictures are used. Where `compared_edge` is given
    no more than that square of a picture is compared, unless the engine is built for the picture's size.
    `stored_bytes` are those of a picture outside of the network, where it is of another size there.

    Raises `VerificationError`, `UnavailableError` or `OutOfMemoryError` where what was asked for by name does
    not do.
    """
    progress = progress or Silent()
    samples = samples or (lambda count: list(first_pixels[:count]))
    size = first_pixels.shape[1], first_pixels.shape[2]
    notes: list[str] = []
    failure: CgconvertError | None = None
    order = list(candidates(model, options.device, options.engine, options.precision))
    measured: Mapping[str, float] = {}
    if options.engine == "auto":
        order, measured = in_order(model, order, size, options.batch, pixels, progress)
    for candidate in order:
        try:
            job = make_ready(
                model, candidate, size, options.batch, progress, samples, stored_bytes, options.tile
            )
            try:
                _verify_first(job, candidate, first_pixels, compared_edge)
            except BaseException:
                job.close()
                raise
        except (UnavailableError, VerificationError, OutOfMemoryError) as error:
            failure = failure or error
            notes.append(f"{candidate} not used: {error}")
            if not isinstance(error, UnavailableError):
                progress.note(notes[-1])
        else:
            job.notes[:0] = notes
            job.measured = measured
            return job
    raise failure or UnavailableError(f"nothing here runs {model.card.name!r} as asked")


def make_ready(
    model: Model,
    candidate: Candidate,
    size: tuple[int, int],
    batch: int | None,
    progress: Progress,
    samples: Samples,
    stored_bytes: int = 0,
    tile: str | int = "off",
) -> EngineJob:
    """Build a candidate and prepare it for pictures of (height, width); `batch` None: as memory allows.

    `tile` is that of `EngineOptions`; nothing is built for a size whose pictures go through in tiles. int8 is
    calibrated on up to N pictures (H, W, 3) that `samples(N)` gives. Where memory is short for the batch, it
    is halved. Raises `UnavailableError`, `OutOfMemoryError`, and `ModelError` for a network that
    cannot be tiled as asked; the engine is closed again if anything fails.
    """
    started = time.perf_counter()
    calibration = calibration_pictures(samples, model.card) if candidate.precision == "int8" else []
    engine = if_it_fits(partial(build, model, candidate, calibration))
    if engine is None:
        raise OutOfMemoryError(
            f"not enough memory on {candidate.device} for the weights of {model.card.name!r}",
            'use `device="cpu"`, or close what else uses the memory',
        )
    job = EngineJob(engine)
    try:
        with shown_stage(progress, f"preparing {candidate} for {size[1]}x{size[0]}"):
            prepare_first(job, size, batch, progress, stored_bytes, tile)
        job.prepare_seconds = time.perf_counter() - started
    except BaseException:
        job.close()
        raise
    return job


def prepare_first(
    job: EngineJob,
    size: tuple[int, int],
    batch: int | None,
    progress: Progress,
    stored_bytes: int,
    tile: str | int,
) -> None:
    """Choose tiles and batch of a new job for pictures of (height, width), and prepare its engine for them.

    The arguments are those of `make_ready`, and so is what is raised.
    """
    if tile != "off":
        edge, is_fast = edge_of(tile)
        job.tiling = Tiling(job.engine, edge, job.note, progress, is_fast)
    height, width = padded_size(*size, job.engine.model.card)
    reason = why_it_cannot_fit(job, 1, height, width)
    if reason is not None and not tile_from_now_on(job, height, width):
        raise OutOfMemoryError(reason)
    if not job.is_tiled(height, width):
        job.batch = batch or choose_batch(job, height, width, stored_bytes)
    started = time.perf_counter()
    prepare_what_fits(job, height, width, progress)
    if job.engine.builds:
        job.build_seconds = time.perf_counter() - started


def _verify_first(
    job: EngineJob, candidate: Candidate, pixels: np.ndarray, compared_edge: int | None
) -> None:
    """Compare the engine on the job's first pictures. Raises `VerificationError`, `OutOfMemoryError`."""
    result = compare_first(job, pixels, compared_edge)
    if not result.passed:
        raise VerificationError(_below(result, job.engine.model, candidate))
    job.verifications.append(result)


def compare_first(job: EngineJob, pixels: np.ndarray, compared_edge: int | None = None) -> Verification:
    """Compare what the job makes of its first pictures, in tiles if they are tiled, with plain float32.

    The arguments are those of `create_job`. Raises `OutOfMemoryError`.
    """
    height, width = padded_size(pixels.shape[1], pixels.shape[2], job.engine.model.card)
    run: Callable[[Tensor], Tensor] | None = None
    if job.tiling is not None and (edge := job.tiling.edge_for(height, width)) is not None:
        # A corner of several tiles, which plain float32 has the memory for.
        compared_edge = min(2 * edge, COMPARED_TILED)
        run = partial(job.tiling, edge=min(edge, COMPARED_TILED // 2))
    if compared_edge is not None and not job.engine.built_for(height, width):
        pixels = pixels[:, :compared_edge, :compared_edge]
    return verify_what_fits(job, pixels, run)


def prepare_new_size(job: EngineJob, pixels: np.ndarray, progress: Progress) -> None:
    """Prepare a verified engine for one more size, that of `pixels` (N, H, W, 3), and for the job's batch.

    What is built for that size alone is verified too, and what is built for any size when it is used first.
    If it cannot be built, or falls below the bound, that size, or all of them, run layer by layer, and the
    notes say so: a job that is under way goes on. Raises `OutOfMemoryError`.
    """
    engine = job.engine
    height, width = padded_size(pixels.shape[1], pixels.shape[2], engine.model.card)
    try:
        prepare_what_fits(job, height, width, progress)
        alone = engine.built_for(height, width)
        if not alone and (job.any_size_compared or not engine.takes_any_size):
            return
        result = verify_what_fits(job, pixels)
        if result.passed:
            job.verifications.append(result)
            job.any_size_compared |= not alone
            return
        problem = f"has {result.describe()}"
        if not alone:
            engine.refuse_any_size(problem)
            told = (
                f"{engine.name} for any size {problem} on {width}x{height}; further sizes run layer by layer"
            )
            job.note(told)
            progress.note(told)
            return
    except UnavailableError as error:
        problem = f"is given up: {error}"
    engine.refuse(height, width)
    told = f"{engine.name} for {width}x{height} {problem}; that size runs layer by layer"
    job.note(told)
    progress.note(told)


def verify_what_fits(
    job: EngineJob, pixels: np.ndarray, run: Callable[[Tensor], Tensor] | None = None
) -> Verification:
    """Compare an engine with plain float32 on the first of `pixels` (N, H, W, 3).

    `run` makes images, if not the engine by itself.

    Where memory is short for float32 beside what the engine holds, a corner of the first picture is compared,
    which is smaller each time. Raises `OutOfMemoryError` if not even a small one fits, and `ModelError`.
    """
    height, width = pixels.shape[1:3]
    compared = pixels[: max(1, VERIFIED_PIXELS // (height * width))]
    while (result := if_it_fits(partial(verify, job.engine, compared, run))) is None:
        compared = _corner(job.engine, compared)
    rows, columns = compared.shape[1:3]
    if (rows, columns) != (height, width):
        job.note(f"compared on {columns}x{rows} of {width}x{height}: memory is short for more in float32")
        job.engine.forget(*padded_size(rows, columns, job.engine.model.card))
    return result


def _corner(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    """Half the height and width of the first picture. Raises `OutOfMemoryError` below a small one."""
    height, width = pixels.shape[1] // 2, pixels.shape[2] // 2
    if min(height, width) < SMALLEST_COMPARED:
        raise OutOfMemoryError(
            f"not enough memory on {engine.device} to compare {engine.name} with the plain network"
        )
    return pixels[:1, :height, :width]


def _below(result: Verification, model: Model, candidate: Candidate) -> str:
    """What to tell a user whose engine does not keep to the model."""
    better = [name for name in ("bf16", "fp32") if BOUNDS_DB[name] > BOUNDS_DB[candidate.precision]]
    if candidate.device.type == "cpu" or candidate.precision == "fp16":
        advice = f'use `precision="{better[0]}"`' if better else 'use `engine="eager"`'
    else:
        advice = 'use `precision="fp32"`' if candidate.precision != "fp32" else 'use `engine="eager"`'
    return (
        f"{candidate} is not accurate enough for model {model.card.name!r}: the first pictures have "
        f"{result.describe()}; {advice}, or leave `engine` and `precision` at auto"
    )
