"""An estimate before a run: a few frames from all over a video are converted for it, and thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cgconvert.engines.kept import KeptEngine
from cgconvert.errors import InputError
from cgconvert.host.memory import peak_memory
from cgconvert.progress import Progress, Silent
from cgconvert.video.estimate import FEW, Estimate, Measurement
from cgconvert.video.pipeline import run_video
from cgconvert.video.plan import VideoPlan

PLACES = 3
"""Places of a video whose frames are measured."""


class _Stages(Silent):
    """Only what takes long without frames is shown: the trial's own frames are nobody's progress."""

    def __init__(self, progress: Progress) -> None:
        self.stage = progress.stage  # type: ignore[method-assign]


def estimate_video(plan: VideoPlan, progress: Progress, engines: KeptEngine | None = None) -> Estimate:
    """Convert `FEW` frames at each of `PLACES` places and say what all of the plan will take.

    Nothing is left of them. The estimate is for a run from the beginning. `engines` keeps the engine, and is
    the caller's to close. Raises as `run_video`, and `InputError` for a video of unknown length.
    """
    if plan.expected_frames is None:
        raise InputError(f"{plan.source}: its length is unknown, so that nothing can be estimated")
    found: list[Estimate] = []
    setup: list[float] = []
    keeper = engines or KeptEngine()
    try:
        with tempfile.TemporaryDirectory(prefix="cgconvert-") as folder:
            for start, end in parts_of(plan):
                options = replace(
                    plan.options, start=start or None, end=end, resume=False, restart=False, overwrite=True
                )
                part = replace(
                    plan, options=options, output=Path(folder) / f"part{plan.output.suffix}", notes=()
                )
                measurement = Measurement(plan, found.append, least=0)
                report = run_video(part, _Stages(progress), keeper, measurement)
                setup.append(report.first_frame)
    finally:
        if engines is None:
            keeper.close()
    if not found:
        raise InputError(f"{plan.source}: no frame could be measured")
    return _joined(found, setup[0])


def parts_of(plan: VideoPlan) -> list[tuple[float, float]]:
    """The parts of a video that are measured, as (start, end) in seconds. A short one is a single part."""
    options, info = plan.options, plan.info
    begin = options.start or 0.0
    length = info.duration if info.duration is not None else begin
    end = min(options.end, length) if options.end is not None else length
    part = FEW / float(info.rate)
    if end - begin <= 2 * PLACES * part:
        return [(begin, max(end, begin + part))]
    each = (end - begin) / PLACES
    return [(begin + each * (n + 0.5), begin + each * (n + 0.5) + part) for n in range(PLACES)]


def _joined(found: Sequence[Estimate], setup: float) -> Estimate:
    """One estimate for a video of those that were made at several places of it, each for all of it."""

    def mean(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return round(sum(known) / len(known)) if known else None

    return replace(
        found[0],
        rate=len(found) / sum(1 / one.rate for one in found),
        setup=setup,
        result_bytes=mean([one.result_bytes for one in found]),
        disk_bytes=mean([one.disk_bytes for one in found]),
        memory=peak_memory(),
    )
