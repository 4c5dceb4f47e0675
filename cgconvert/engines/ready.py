"""An engine ready for a job: built, prepared for its size, compared with the reference on first frames."""

from __future__ import annotations

import time

import numpy as np

from cgconvert.engines.base import Engine, Samples
from cgconvert.engines.batches import choose_batch
from cgconvert.engines.choose import Candidate, build, candidates
from cgconvert.engines.verify import BOUNDS_DB, VerificationError, verify
from cgconvert.errors import CgconvertError, UnavailableError
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions
from cgconvert.progress import Progress, Silent, shown_stage
from cgconvert.transforms import padded_size

VERIFIED_PIXELS = 4 * 256 * 256
"""Pixels compared, in one picture at least: the plain float32 network is slow beside what it checks."""


def create_verified_engine(
    model: Model,
    options: EngineOptions,
    first_pixels: np.ndarray,
    progress: Progress | None = None,
    samples: Samples | None = None,
) -> Engine:
    """The engine for a job, whose first pictures are `first_pixels` (N, H, W, 3), uint8 or uint16.

    It is prepared for their size, its `batch` is set, and what it makes of the first pictures has been
    compared with the plain float32 network. Where engine or precision is `auto`, one that does not work or
    falls below its bound gives way to the next, and `notes` and the report say so. `samples` gives
    pictures for int8's calibration; without it the first pictures are used.

    Raises `VerificationError` or `UnavailableError` where what was asked for by name does not do.
    """
    progress = progress or Silent()
    notes: list[str] = []
    failure: CgconvertError | None = None
    for candidate in candidates(model, options.device, options.engine, options.precision):
        try:
            engine = _try(model, candidate, options, first_pixels, progress, samples)
        except (UnavailableError, VerificationError) as error:
            failure = failure or error
            notes.append(f"{candidate} not used: {error}")
            if isinstance(error, VerificationError):
                progress.note(notes[-1])
            continue
        engine.notes[:0] = notes
        return engine
    raise failure or UnavailableError(f"nothing here runs {model.card.name!r} as asked")


def make_ready(
    model: Model,
    candidate: Candidate,
    size: tuple[int, int],
    batch: int | None,
    progress: Progress,
    samples: Samples,
) -> Engine:
    """Build a candidate and prepare it for pictures of (height, width); `batch` None: as memory allows.

    Raises `UnavailableError`; the engine is closed again if anything fails.
    """
    started = time.perf_counter()
    engine = build(model, candidate)
    try:
        with shown_stage(progress, f"making ready {candidate} for {size[1]}x{size[0]}"):
            engine.calibrate(samples, progress)
            engine.batch = batch or engine.best_batch or choose_batch(engine, *size)
            building = time.perf_counter()
            engine.prepare(*padded_size(*size, model.card), engine.batch)
        if engine.builds:
            engine.build_seconds = time.perf_counter() - building
        engine.prepare_seconds = time.perf_counter() - started
    except BaseException:
        engine.close()
        raise
    return engine


def _try(
    model: Model,
    candidate: Candidate,
    options: EngineOptions,
    first_pixels: np.ndarray,
    progress: Progress,
    samples: Samples | None,
) -> Engine:
    """Make one candidate ready and verify it; closed again if that fails."""
    height, width = first_pixels.shape[1:3]
    given = samples or (lambda count: list(first_pixels[:count]))
    engine = make_ready(model, candidate, (height, width), options.batch, progress, given)
    try:
        compared = first_pixels[: max(1, VERIFIED_PIXELS // (height * width))]
        engine.verification = verify(engine, compared)
        if not engine.verification.passed:
            raise VerificationError(_below(engine, candidate))
    except BaseException:
        engine.close()
        raise
    return engine


def _below(engine: Engine, candidate: Candidate) -> str:
    """What to tell a user whose engine does not keep to the model."""
    assert engine.verification is not None
    better = [name for name in ("bf16", "fp32") if BOUNDS_DB[name] > BOUNDS_DB[candidate.precision]]
    if candidate.device.type == "cpu" or candidate.precision == "fp16":
        advice = f"use --precision {better[0]}" if better else "use --engine eager"
    else:
        advice = "use --precision fp32" if candidate.precision != "fp32" else "use --engine eager"
    return (
        f"{candidate} is not accurate enough for model {engine.model.card.name!r}: the first pictures have "
        f"{engine.verification.describe()}; {advice}, or leave --engine and --precision at auto"
    )
