"""A long video made in chunks of segments, each by itself: by other workers, on other machines.

Encoders start anew with each segment, so chunks of them give the packets that one run gives. They are laid
into the folder of the result, and the ordinary run, which finds all segments finished, joins them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cgconvert.engines.kept import KeptEngine
from cgconvert.errors import InputError, Interrupted, OutputError
from cgconvert.host.interrupts import listening
from cgconvert.host.parts import part_folder, remove_folder
from cgconvert.media.video.probe import frame_times
from cgconvert.media.video.source import Damage
from cgconvert.progress import Progress
from cgconvert.video import resume
from cgconvert.video.estimate import Measurement
from cgconvert.video.jobs import identity_of, kept_segments, request_of
from cgconvert.video.pipeline import work
from cgconvert.video.plan import VideoPlan
from cgconvert.video.resume import ResumableRun, resumable_run
from cgconvert.video.run import VideoRun

CHUNK_SEGMENTS = 4
"""Segments of a chunk: forty seconds at 25 frames/s. The same for any number of workers, so that another run
finds what an earlier one has finished."""


@dataclass(frozen=True)
class Chunk:
    """Some frames of a video: `frames` of them, which follow the one with the pts `after`; None: the first.

    `number` counts the chunks from zero, and `ends` are the pts of the last frame of each segment.
    """

    number: int
    frames: int
    after: int | None
    ends: tuple[int, ...]


def chunks_of(plan: VideoPlan) -> list[Chunk]:
    """Part a plan's video. Empty where it is too short for it, or has to be made from beginning to end.

    Results that are made steady depend on those before them. Raises `UsageError`, `InputError`.
    """
    options = plan.options
    is_whole = options.start is None and options.end is None and plan.deinterlacing is None
    if not options.resume or not is_whole or plan.steadiness is not None:
        return []
    size = CHUNK_SEGMENTS * resume.SEGMENT_FRAMES
    if (plan.expected_frames or 0) <= size:
        return []
    times = frame_times(plan.source)
    if times is None or len(times) <= size:
        return []
    chunks = []
    for number, first in enumerate(range(0, len(times), size)):
        mine = times[first : first + size]
        ends = [mine[end - 1] for end in range(resume.SEGMENT_FRAMES, len(mine), resume.SEGMENT_FRAMES)]
        after = times[first - 1] if first else None
        chunks.append(Chunk(number, len(mine), after, (*ends, mine[-1])))
    return chunks


def convert_chunk(plan: VideoPlan, chunk: Chunk, progress: Progress, engines: KeptEngine) -> None:
    """Make the segments of a chunk, in a folder beside the result, or go on with them.

    Raises as `run_video`, and `InputError` if the decoder gives other frames than the packets tell.
    """
    run = VideoRun(plan, progress, engines, Measurement(plan, lambda estimate: None))
    with listening() as stop, _kept_chunk(plan, chunk) as kept, ExitStack() as opened:
        left = chunk.frames - kept.frames
        if not left:
            return
        run.open(opened, kept, None, chunk.after)
        try:
            work(run, stop, left)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted in chunk {chunk.number} of {plan.output}") from None
        if [segment.last_pts for segment in kept.segments] != list(chunk.ends):
            raise InputError(f"{plan.source}: frames are at other times than its packets")


def lay_together(plan: VideoPlan, chunks: list[Chunk]) -> int:
    """Lay the segments of finished chunks into the folder of the result, and return how many frames they are.

    Those that an earlier run has finished stay. It ends at the first chunk that is not complete, is damaged
    or was made by another engine: the ordinary run makes the rest. Raises `OutputError`, `UsageError`.
    """
    with kept_segments(plan, keep=True) as whole:
        before = 0
        for chunk in chunks:
            with _kept_chunk(plan, chunk) as kept:
                if not _fits(kept, chunk, whole):
                    break
                if not whole.choices:
                    whole.choose(kept.choices)
                for number, segment in enumerate(kept.segments):
                    if before + number == len(whole.segments):
                        _link(kept.path_of(number), whole.new_path())
                        whole.add(segment)
                before += len(kept.segments)
        return whole.frames


def remove_chunks(plan: VideoPlan, chunks: list[Chunk]) -> None:
    """Remove what is kept of chunks, of which the result is made."""
    for chunk in chunks:
        with suppress(OSError):
            remove_folder(part_folder(_name(plan, chunk)))


def _fits(kept: ResumableRun, chunk: Chunk, whole: ResumableRun) -> bool:
    """Whether a chunk is complete and what the whole run would have made.

    Damage counts up from the beginning of a video, so that a damaged one is made from there.
    """
    is_complete = [segment.last_pts for segment in kept.segments] == list(chunk.ends)
    is_sound = all(dict(segment.damage) == asdict(Damage()) for segment in kept.segments)
    return is_complete and is_sound and whole.choices in ({}, kept.choices)


def _name(plan: VideoPlan, chunk: Chunk) -> Path:
    """A chunk's place beside the result."""
    return plan.output.with_name(f"{plan.output.name}.{chunk.number:06d}")


@contextmanager
def _kept_chunk(plan: VideoPlan, chunk: Chunk) -> Iterator[ResumableRun]:
    """The segments of a chunk, those that are kept already among them. Raises as `resumable_run`."""
    identity = {**identity_of(plan), "chunk": [chunk.number, chunk.frames, chunk.after]}
    with resumable_run(_name(plan, chunk), identity, request_of(plan), keep=True) as kept:
        yield kept


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
