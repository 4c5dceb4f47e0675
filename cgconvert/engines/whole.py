"""A video's frames from planes to planes in one: colours, sizes and network compiled together.

In steps, each filter of the scaling and each matrix is a pass over float32 images, which for a small network
takes longer than the network. Compiled together they are fused with each other, and with the network's
first and last layers, and on a card one CUDA graph holds all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.eager import exact_float32
from cgconvert.engines.job import EngineJob
from cgconvert.engines.planes import PlaneFrames
from cgconvert.engines.through import Passage
from cgconvert.errors import UnavailableError, first_line
from cgconvert.frames import PlaneFrame
from cgconvert.progress import Progress, shown_stage
from cgconvert.tensors.images import psnr

WORTH_BUILDING = 512 * 1024 * 1024
"""Network pixels of a video from which it is built: 2300 frames of 640x360. To build takes up to minutes."""

BOUND_DB = 40.0
"""Least PSNR of planes to those that are made in steps. One level of 8 bits everywhere would be 48."""


IN_ONE = "frames go from planes to planes in one"
"""The note of a job whose frames do."""


class WholePass:
    """Frames of one kind through what was built for them."""

    def __init__(
        self,
        kind: PlaneFrames,
        made_for: PlaneFrame,
        batch: int,
        run: Callable[..., Sequence[Tensor]],
        engine: CompileEngine,
    ) -> None:
        self.kind, self.made_for, self.batch, self.run, self.engine = kind, made_for.kind, batch, run, engine

    def takes(self, frames: Sequence[Any]) -> bool:
        """Whether it was built for such frames."""
        return frames[0].kind == self.made_for

    def __call__(self, sources: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Planes on the device to the planes of the results as they are stored, and the frames' contrasts."""
        with torch.inference_mode(), exact_float32(self.engine.device):
            parts = [
                self._part(part) for part in zip(*(one.split(self.batch) for one in sources), strict=True)
            ]
        joined = parts[0] if len(parts) == 1 else [torch.cat(same) for same in zip(*parts, strict=True)]
        *planes, contrasts = joined
        return self.kind.as_stored(planes), contrasts

    def close(self) -> None:
        """Give its memory back; it takes no more frames."""
        self.run = lambda *planes: planes
        self.engine.forget_planes()

    def _part(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """At most `batch` frames, filled up with the last of them."""
        count = len(planes[0])
        missing = self.batch - count
        if missing:
            planes = [torch.cat([one, one[-1:].expand(missing, *one.shape[1:])]) for one in planes]
        return [one[:count] for one in self.run(*(one.contiguous() for one in planes))]


def why_in_steps(job: EngineJob, kind: PlaneFrames, frame: PlaneFrame, pixels: int) -> str | None:
    """Say why frames go in steps; None means that they can go in one. `pixels` as for `whole_pass`."""
    target = kind.target
    height, width = kind.network_size([frame])
    if not isinstance(job.engine, CompileEngine):
        return f"{job.engine.name} takes images"
    if job.is_tiled(height, width) or not job.engine.built_for(height, width):
        return "nothing is built for their size"
    if target.from_hdr is not None or target.to_hdr is not None:
        return "they are of high dynamic range"
    if max(frame.format.depth, target.format.depth) > 8:
        return "they have more than 8 bits"
    if pixels < WORTH_BUILDING:
        return "the video is too short for it"
    return None


def whole_pass(
    job: EngineJob, kind: PlaneFrames, frames: Sequence[Any], pixels: int, progress: Progress
) -> WholePass | None:
    """What takes frames like these from planes to planes in one; None if they have to go in steps.

    `pixels` are those that the whole video puts through the network. It is built for the job's batch, and
    compared with the steps on these frames. If it cannot be built or is not equal, the job's notes say so.
    """
    if why_in_steps(job, kind, frames[0], pixels) is not None:
        return None
    engine = job.engine
    assert isinstance(engine, CompileEngine)
    frame = frames[0]
    passage = Passage(frame.format, (frame.height, frame.width), kind.target)
    batch = engine.together(job.batch)
    try:
        with shown_stage(progress, f"building {engine.name} from planes to planes"):
            run = engine.through_planes(passage, batch, progress)
            whole = WholePass(kind, frame, batch, run, engine)
            equal = _compared(whole, job, frames)
    except (UnavailableError, torch.OutOfMemoryError) as error:
        job.note(f"frames go from planes to planes in steps: {first_line(error, 200)}")
        return None
    if not equal >= BOUND_DB:
        job.note(f"frames go from planes to planes in steps: in one they are at {equal:.1f} dB")
        return None
    job.note(IN_ONE)
    return whole


def _compared(whole: WholePass, job: EngineJob, frames: Sequence[PlaneFrame]) -> float:
    """The PSNR in decibels of the planes that are made in one to those that are made in steps."""
    kind = whole.kind
    with torch.inference_mode():
        sources = kind.upload(frames)
        images, crop = kind.to_images(sources, frames)
        wanted = kind.to_stored(job(images), crop, frames, sources)
        got, _ = whole(sources)
        pairs = zip(got, wanted, strict=True)
        return min(psnr(one.float().cpu(), other.float().cpu(), 255.0) for one, other in pairs)
