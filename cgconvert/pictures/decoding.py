"""The threads of a run over pictures that read files: pictures, their frames, and large ones by strips."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from cgconvert.errors import CgconvertError, InputError, UsageError
from cgconvert.host.channels import LOOK
from cgconvert.host.files import output_error
from cgconvert.host.objects import ObjectPath
from cgconvert.host.parts import STATE, part_folder
from cgconvert.host.rectangles import RectangleFile, scratch_folder
from cgconvert.media.picture.codec import Picture, checked_header, decode_picture, read_file, too_many_pixels
from cgconvert.media.picture.headers import ImageHeader
from cgconvert.media.picture.resize import resized
from cgconvert.media.picture.sequences import check_holds, open_sequence
from cgconvert.media.picture.strips import (
    STRIP_BYTES,
    STRIP_FORMATS,
    LargePicture,
    can_write,
    is_available,
    read_large_header,
    read_pixels,
)
from cgconvert.pictures.files import ImageJob
from cgconvert.pictures.items import FrameResults, Item
from cgconvert.pictures.run import ImageRun

PIXEL_BYTES = 4 * 2 * 3
"""Of memory for each pixel of a picture: source, result and what codecs need, in 16 bits with alpha."""
PICTURES_AHEAD = 512
"""Pictures that may be on their way, however small they are: each holds a lock, which is an open file."""
LEAST_LARGE = 4_000_000
"""Pixels up to which a picture is taken into memory however little of that is free."""
HUGE = 20_000
"""Edge of a picture in pixels; if the network is to see all of it, large pictures may go by strips."""
MIDDLE = 1024
"""Edge of the square of a large picture that the engine is made ready with, in pixels."""
RESULT = "result.pixels"
"""The file of a large picture's result in the folder in which it is kept."""


def decode(run: ImageRun) -> None:
    """Files to pixels, as soon as there is memory for them."""
    for item in run.jobs:
        with run.failing_alone(item):
            item.begun = time.perf_counter()
            if (large := find_large(run, item.job)) is not None:
                decode_large(run, item, large)
                continue
            with run.clock.busy("load"):
                data = read_file(item.job.source)
                header = checked_header(data, run.pixel_limit(item.job), single=False)
            if header.frames > 1:
                check_holds(header, item.job.format)
                decode_frames(run, item.job, data, header)
                continue
            needed = header.width * header.height * PIXEL_BYTES + len(data)
            item.charged = max(needed, run.memory.limit // PICTURES_AHEAD)
            item.source_bytes = len(data)
            run.memory.take(item.charged)
            with run.clock.busy("decode"):
                prepare(run, item, decode_picture(data, header))
            run.decoded.put(item)
    run.decoded.close()
    run.sequences.close()


def prepare(run: ImageRun, item: Item, picture: Picture) -> None:
    """What the network is to see of a picture, and what is to be done with the result."""
    height, width = picture.pixels.shape[:2]
    own = run.options_of(item.job)
    size, finish = run.plan.seen_size(width, height, own), run.plan.finish_of(own)
    item.picture, item.seen = picture, resized(picture.pixels, *size)
    item.finish = None if finish.is_plain and size == (width, height) else finish


def find_large(run: ImageRun, job: ImageJob) -> LargePicture | None:
    """What goes from file to file in tiles: it takes too much memory, and the network sees all of it."""
    own, plan = run.options_of(job), run.plan
    try:
        is_seen_whole = plan.seen_size(HUGE, HUGE, own) == (HUGE, HUGE) and plan.finish_of(own).is_plain
    except UsageError:  # it would be enlarged beyond what any network may see
        is_seen_whole = False
    if not is_seen_whole or plan.engine.tile == "off" or not is_available():
        return None
    if job.format not in STRIP_FORMATS or isinstance(job.source, ObjectPath):
        return None
    large = read_large_header(job.source)
    least = max(LEAST_LARGE, run.memory.limit // PIXEL_BYTES)
    if large is None or large.width * large.height <= least:
        return None
    size = large.width, large.height
    if plan.seen_size(*size, own) != size or not can_write(large, job.format):
        return None
    if large.width * large.height > run.pixel_limit(job):
        raise too_many_pixels(*size, run.pixel_limit(job))
    return large


def decode_large(run: ImageRun, item: Item, large: LargePicture) -> None:
    """A large picture to a file of its pixels. The engine is made ready with the middle of it."""
    item.charged = 4 * STRIP_BYTES
    run.memory.take(item.charged)
    point = 3 * np.dtype(large.dtype).itemsize
    folder = scratch_folder()
    try:
        item.files = [RectangleFile(folder, None, large.height, large.width, point)]
        if isinstance(item.job.output, Path):
            item.kept = folder = part_folder(item.job.output)
            folder.mkdir(exist_ok=True)
        path = item.kept and item.kept / RESULT
        if path and not (path.exists() and path.stat().st_size == large.height * large.width * point):
            (path.parent / STATE).unlink(missing_ok=True)  # there is nothing to go on from
        item.files.append(RectangleFile(folder, path, large.height, large.width, point))
        folder = scratch_folder()
        with run.clock.busy("decode"):
            read_pixels(large, run.workers.check, item.files[0])
        rows, columns = (
            slice(max(0, (size - MIDDLE) // 2), min(size, (size + MIDDLE) // 2))
            for size in (large.height, large.width)
        )
        item.seen = item.files[0].read(rows, columns).view(large.dtype)
    except OSError as error:
        raise output_error(folder, error) from error
    item.large = large
    run.decoded.put(item)


def decode_frames(run: ImageRun, job: ImageJob, data: bytes, header: ImageHeader) -> None:
    """Decode an animation or pages, while no other thread does.

    Each frame takes memory as a picture would, and for the file and what it is drawn on. Two files at
    once could take all of it for frames that wait for earlier ones, which then would find none.
    """
    while not run.one_sequence.acquire(timeout=LOOK):
        run.workers.check()
    try:
        frames = FrameResults(job, open_sequence(data, header), run.workers, run.memory)
        run.sequences.put(frames)
        unit = header.parts[:-1]
        run.count_parts(job, header.frames, unit)
        width, height = header.largest
        upcoming = frames.sequence.pictures()
        for number in range(header.frames):
            frames.wait_to_read(number)
            item = Item(job, None, width * height * PIXEL_BYTES + len(data), frames, number)
            run.memory.take(item.charged)
            try:
                with run.clock.busy("decode"):
                    prepare(run, item, next(upcoming))
            except CgconvertError as error:
                frames.fail(InputError(f"{unit} {number + 1} of {header.frames}: {error}"))
            except MemoryError as error:
                frames.fail(error)
            if frames.error is not None:
                run.memory.give_back(item.charged)
                return
            run.decoded.put(item)
    finally:
        run.one_sequence.release()
