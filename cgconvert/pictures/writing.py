"""The threads of a run over pictures that write: pictures, files of frames, and large ones by strips."""

from __future__ import annotations

import hashlib
import time
from contextlib import closing, suppress
from typing import Any

from cgconvert.errors import CgconvertError
from cgconvert.host.files import atomic_output, file_sha256, write_atomically
from cgconvert.host.parts import remove_folder
from cgconvert.media.picture.codec import encode_picture
from cgconvert.media.picture.finish import finished
from cgconvert.media.picture.sequences import write_sequence
from cgconvert.media.picture.strips import LargePicture, write_pixels
from cgconvert.pictures.items import FrameResults, Item
from cgconvert.pictures.run import ImageRun


def encode(run: ImageRun) -> None:
    """Results to files, and those of frames to the thread that writes their file."""
    for item in run.translated:
        with run.failing_alone(item):
            if item.large is not None:
                encode_large(run, item, item.large)
                continue
            assert item.picture is not None
            assert item.result is not None
            if item.finish is not None:
                with run.clock.busy("finish"):
                    item.result = finished(item.picture.pixels, item.result, item.finish)
            item.picture, item.result = item.picture.with_pixels(item.result), None
            if item.frames is not None:
                item.frames.put(item)
                continue
            with run.clock.busy("encode"):
                height, width = item.picture.pixels.shape[:2]
                quality = run.options_of(item.job).quality
                data, dropped = encode_picture(item.picture, item.job.format, quality)
                dropped, item.picture = (*item.picture.dropped, *dropped), None
                run.workers.check()  # a run that is broken off begins no file
                write_atomically(item.job.output, data, run.replaces(item.job))
            facts: dict[str, Any] = {}
            if run.tally.results is not None:
                facts = {
                    "width": width,
                    "height": height,
                    "source_bytes": item.source_bytes,
                    "output_bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
            settle(run, item, dropped, **facts)


def encode_large(run: ImageRun, item: Item, large: LargePicture) -> None:
    """A file of pixels to the result."""
    job, quality, facts = item.job, run.options_of(item.job).quality, dict[str, Any]()
    with run.clock.busy("encode"), atomic_output(job.output, run.replaces(job)) as temporary:
        dropped = write_pixels(
            large, item.files[0], temporary, job.format, quality, lambda: run.workers.aborted
        )
        run.workers.check()  # a run that is broken off finishes no file
        if run.tally.results is not None:
            facts = {
                "width": large.width,
                "height": large.height,
                "output_bytes": temporary.stat().st_size,
                "sha256": file_sha256(temporary),
            }
    item.files.pop().close()
    if item.kept is not None:
        with suppress(OSError):
            remove_folder(item.kept)
    settle(run, item, dropped, **facts)


def settle(run: ImageRun, item: Item, dropped: tuple[str, ...], **facts: Any) -> None:
    """A picture has its result; `facts` go into its line of results."""
    run.claims.give_back(item.job.output)
    if facts:
        facts = {"seconds": round(time.perf_counter() - item.begun, 3), **facts}
    run.tally.convert(item.job, dropped, **facts)
    run.memory.give_back(item.charged)
    run.advance()


def encode_frames(run: ImageRun) -> None:
    """Results of frames to files, one file after the other, in the order of the source."""
    for frames in run.sequences:
        started = time.perf_counter()
        try:
            _encode_sequence(run, frames, started)
        except (CgconvertError, MemoryError) as error:
            frames.fail(error)
            run.give_up(frames.job, error)
        run.clock.add("encode", time.perf_counter() - started - frames.waited)
        run.advance()


def _encode_sequence(run: ImageRun, frames: FrameResults, started: float) -> None:
    job, facts = frames.job, dict[str, Any]()
    with (
        atomic_output(job.output, run.replaces(job)) as temporary,
        temporary.open("w+b") as file,
        closing(frames.results(run.advance_parts)) as results,
    ):
        dropped = write_sequence(file, frames.sequence, results, job.format, run.options_of(job).quality)
        run.workers.check()  # a run that is broken off finishes no file
        file.flush()
        if run.tally.results is not None:
            facts = {"output_bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
    run.claims.give_back(job.output)
    if facts:
        facts = {"seconds": round(time.perf_counter() - started, 3), **facts}
    run.tally.convert(job, dropped, frames.sequence.count, **facts)
