"""An engine that stays ready from one video to the next, so that it is built and prepared once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from cgconvert.engines.base import Samples
from cgconvert.engines.batches import OutOfMemoryError
from cgconvert.engines.job import EngineJob
from cgconvert.engines.ready import compare_first, create_job, prepare_first
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions
from cgconvert.progress import Progress, shown_stage


class KeptEngine:
    """The engine of one video after another. Use: `ready` for each, and `close` at the end.

    It is made anew only for another model or other options, or where the one that is there does not do for
    a video: what must be built for its size does not fit, or its pictures fall below the bound.
    """

    def __init__(self, calibration: Samples | None = None) -> None:
        """`calibration` gives the pictures that int8 learns from; None: those of the first video.

        `refusal` will be the error that no video gets past: there is no such engine here.
        """
        self.calibration = calibration
        self.job: EngineJob | None = None
        self.made_for: tuple[Path, EngineOptions | None] | None = None
        self.batches: dict[tuple[int, int, int], int] = {}
        self.refusal: UsageError | None = None
        self.others: dict[int, KeptEngine] = {}
        self.lost: set[int] = set()

    def at(self, number: int) -> KeptEngine:
        """The keeper of the engine on another of the devices that share the videos; 0 is this one."""
        return self.others.setdefault(number, KeptEngine(self.calibration)) if number else self

    def lose(self, number: int) -> None:
        """A device has failed: its memory is given back, and further videos go without it."""
        self.at(number)._drop()
        self.lost.add(number)

    def ready(
        self,
        model: Path,
        options: EngineOptions,
        first_pixels: np.ndarray,
        progress: Progress,
        samples: Samples,
        stored_bytes: int = 0,
        pixels: int = 0,
    ) -> EngineJob:
        """The engine for a video with these first pictures (N, H, W, 3), prepared and verified for them.

        The arguments are those of `create_job`, and so is what is raised.
        """
        wanted = model, replace(options, batch=None)
        job = None
        if self.job is not None and self.made_for == wanted:
            job = self._prepared_again(self.job, options, first_pixels, progress, stored_bytes)
        if job is None:
            self._drop()
            calibration = self.calibration or samples
            try:
                job = create_job(
                    load_model(model),
                    options,
                    first_pixels,
                    progress,
                    calibration,
                    stored_bytes=stored_bytes,
                    pixels=pixels,
                )
            except UsageError as error:
                self.refusal = error
                raise
            self.job, self.made_for = job, wanted
        if options.batch is None:
            self.batches[(*first_pixels.shape[1:3], stored_bytes)] = job.batch
        return job

    def _prepared_again(
        self,
        kept: EngineJob,
        options: EngineOptions,
        pixels: np.ndarray,
        progress: Progress,
        stored_bytes: int,
    ) -> EngineJob | None:
        """The kept engine as the job of another video; None if it does not do for it."""
        started = time.perf_counter()
        height, width = pixels.shape[1:3]
        engine = kept.engine
        job = EngineJob(
            engine, pixel_bytes=kept.pixel_bytes, proven_pixels=kept.proven_pixels, measured=kept.measured
        )
        try:
            with shown_stage(progress, f"preparing {engine.name} for {width}x{height}"):
                known = self.batches.get((height, width, stored_bytes))
                batch = options.batch or known
                prepare_first(job, (height, width), batch, progress, stored_bytes, options.tile)
                result = compare_first(job, pixels)
        except (UnavailableError, OutOfMemoryError) as error:
            progress.note(f"the engine is made anew: {error}")
            return None
        if not result.passed:
            progress.note(f"the engine is made anew: the first pictures have {result.describe()}")
            return None
        job.verifications.append(result)
        job.prepare_seconds = time.perf_counter() - started
        self.job = job
        return job

    def close(self) -> None:
        """Give the memory of the engines back. Calling it twice is harmless."""
        self._drop()
        for other in self.others.values():
            other.close()

    def _drop(self) -> None:
        if self.job is not None:
            self.job.close()
        self.job = self.made_for = None
        self.batches = {}

    def __enter__(self) -> KeptEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
