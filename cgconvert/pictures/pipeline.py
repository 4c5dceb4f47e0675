"""Pictures through the network: find -> decode -> translate -> encode, overlapped.

    find -> jobs -> decode -> decoded -> translate -> translated -> encode
    one thread      as many as cores     one thread                 as many as cores

Between them are bounded channels, and the memory of all pictures on their way is bounded as a whole, so a
million pictures take the memory of a few. The caller's thread only watches: it shows the progress and hears
interrupts, also while the network is at work.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cgconvert.errors import CgconvertError, InputError, Interrupted, OutputError
from cgconvert.finish import Finish
from cgconvert.host.channels import Budget, Channel, Relayed, Workers
from cgconvert.host.files import write_atomically
from cgconvert.host.interrupts import Breakable, listening
from cgconvert.host.memory import available_memory
from cgconvert.media.picture.codec import Picture, checked_header, decode_picture, encode_picture, read_file
from cgconvert.media.picture.finish import finished
from cgconvert.media.picture.resize import resized
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.batching import Groups
from cgconvert.pictures.claims import Claims, Elsewhere, state_of
from cgconvert.pictures.files import ImageJob, is_finished
from cgconvert.pictures.plan import ImagePlan, plan_dir, plan_images
from cgconvert.pictures.result import Dropped, ImagesResult, Tally
from cgconvert.pictures.watch import watched
from cgconvert.progress import Progress, Silent
from cgconvert.scale.files import Failure
from cgconvert.scale.marker import write_marker

if TYPE_CHECKING:
    from cgconvert.pictures.network import Network

__all__ = ["Dropped", "Failure", "ImagesResult", "convert_dir", "convert_images", "run_images"]

PIXEL_MEMORY = 2 << 30
"""Bytes of pictures that may be under way at once; a quarter of what is free if that is less."""
CHANNEL_BYTES = 64 << 20
"""Of these, bytes of pixels that may wait before and after the network."""
JOBS_AHEAD = 64
"""Pictures that are found before they are read."""
PATIENCE = 0.05
"""Seconds that an idle network waits for a full batch, and that a watched folder is left alone."""


@dataclass
class Item:
    """A picture on its way; `charged` bytes of the memory are its own.

    `finish` says what is to be done with the result and the picture together, None that there is nothing.
    Such a picture keeps its own pixels, `seen` is what the network sees of it, and `result` what it makes
    of that.
    """

    job: ImageJob
    picture: Picture | None = None
    charged: int = 0
    finish: Finish | None = None
    seen: np.ndarray | None = None
    result: np.ndarray | None = None

    @property
    def pixels(self) -> np.ndarray:
        """Once it is decoded, what the network sees: uint8 or uint16 RGB (H, W, 3)."""
        assert self.seen is not None
        return self.seen

    @property
    def nbytes(self) -> int:
        """What it counts in a channel: its pixels, or one before it is decoded."""
        return 1 if self.picture is None else self.picture.pixels.nbytes


def run_images(
    plan: ImagePlan, progress: Progress, tally: Tally | None = None, workers_count: int | None = None
) -> ImagesResult:
    """Convert every picture of the plan that has no result yet.

    `tally` tells what has happened also where this raises. Raises `Interrupted`, `OutputError`, `ModelError`,
    `UsageError`; single pictures that fail are in the result. A watched folder ends with an interrupt, which
    is its normal end. However it ends, no half-written file is at a final name.
    """
    options, watch, finish = plan.options, plan.options.watch, plan.finish
    codecs = workers_count or min(16, max(2, os.cpu_count() or 2))
    tally = tally or Tally(plan)
    clock = tally.clock
    clock.threads = {"decode": codecs, "encode": codecs}
    jobs: Channel[Item] = Channel(JOBS_AHEAD)
    decoded: Channel[Item] = Channel(CHANNEL_BYTES, producers=codecs)
    translated: Channel[Item] = Channel(CHANNEL_BYTES)
    free = available_memory()
    memory = Budget(PIXEL_MEMORY if free is None else min(PIXEL_MEMORY, free // 4))
    workers = Workers(jobs, decoded, translated, memory)
    relayed = Relayed(workers, progress)

    claims = Claims()

    def skip(job: ImageJob) -> None:
        tally.skip(job)
        relayed.advance(tally.done)

    def find() -> None:
        """The pictures that have no result yet; those that another run is at when it is done with them."""
        marked = False
        elsewhere: list[Elsewhere] = []

        def look_elsewhere() -> None:
            for other in elsewhere.copy():
                settled = other.settle(claims, skip)
                if settled is not None:
                    elsewhere.remove(other)
                if settled is False:
                    jobs.put(Item(other.job))

        found = watched(plan, tally.skip, tally.fail) if watch else plan.jobs(tally.failures)
        for job in found:
            workers.check()
            if job is None:  # nothing new in a watched folder
                look_elsewhere()
                time.sleep(PATIENCE)
                continue
            if not watch and is_finished(job, options):
                skip(job)
                continue
            if not marked and plan.folder is not None and plan.output is not None:
                write_marker(plan.output, plan.card, plan.look())
                marked = True
            before = state_of(job.output)
            if not claims.take(job.output):
                elsewhere.append(Elsewhere(job, before))
            elif not watch and is_finished(job, options):  # since the look before
                claims.give_back(job.output)
                skip(job)
            else:
                jobs.put(Item(job))
        while elsewhere:
            workers.check()
            look_elsewhere()
            time.sleep(PATIENCE)
        jobs.close()

    def decode() -> None:
        """Files to pixels, as soon as there is memory for them."""
        for item in jobs:
            with failing_alone(item):
                with clock.busy("load"):
                    data = read_file(item.job.source)
                    header = checked_header(data)
                # Source, result and what codecs need, in 16 bits with alpha.
                item.charged = header.width * header.height * 4 * 2 * 3 + len(data)
                memory.take(item.charged)
                with clock.busy("decode"):
                    item.picture = decode_picture(data, header)
                    height, width = item.picture.pixels.shape[:2]
                    size = plan.seen_size(width, height)
                    item.seen = resized(item.picture.pixels, *size)
                    is_whole = size == (width, height)
                    item.finish = None if finish.is_plain and is_whole else finish
                decoded.put(item)
        decoded.close()

    def translate() -> None:
        """Pictures through the network, those of one padded size together."""
        item = decoded.take()
        if item is not None:  # a run without a picture loads neither torch nor a model
            with Breakable():
                from cgconvert.pictures.network import Network
            network: Network[Item] = Network(plan, item.pixels, relayed, clock)
            try:
                _translate_all(network, item)
            finally:
                tally.engine = network.job.describe()
                network.close()
        translated.close()

    def _translate_all(network: Network[Item], item: Item | None) -> None:
        groups: Groups[Item] = Groups()
        while True:
            if item is not None:
                size = network.padded_size(item.pixels)
                # Results that are to be finished have 16 bits, so they are not in a batch with others.
                key = size, item.pixels.dtype.name, item.finish is not None
                groups.add(key, item, network.batch_for(*size))
            batch = groups.take_full()
            if batch is None:
                # While the device is busy nothing is lost by looking whether more pictures are there; an idle
                # one waits a moment for its batch to fill. Then it gets what there is.
                item = decoded.take(0 if network.in_flight else PATIENCE if groups else None)
                if item is not None:
                    continue
                if network.in_flight:
                    pass_on(network.finish())
                    continue
                batch = groups.take_oldest()
                if batch is None:
                    if decoded.finished:
                        return
                    continue
            item = None
            pass_on(network.translate(batch))

    def pass_on(results: Iterator[tuple[Item, np.ndarray | InputError]]) -> None:
        for item, result in results:
            with failing_alone(item):
                if isinstance(result, InputError):
                    raise result
                item.result, item.seen = result, None
                translated.put(item)

    def encode() -> None:
        """Results to files."""
        for item in translated:
            with failing_alone(item):
                assert item.picture is not None
                assert item.result is not None
                if item.finish is not None:
                    with clock.busy("finish"):
                        item.result = finished(item.picture.pixels, item.result, item.finish)
                item.picture, item.result = item.picture.with_pixels(item.result), None
                with clock.busy("encode"):
                    data, dropped = encode_picture(item.picture, item.job.format, options.quality)
                    dropped, item.picture = (*item.picture.dropped, *dropped), None
                    workers.check()  # a run that is broken off begins no file
                    write_atomically(item.job.output, data, options.overwrite or watch)
                claims.give_back(item.job.output)
                tally.convert(item.job, dropped)
                memory.give_back(item.charged)
                relayed.advance(tally.done, clock.busiest)

    @contextmanager
    def failing_alone(item: Item) -> Iterator[None]:
        """What is wrong with one picture is told, and the others go on. A full disk or a bug ends the run."""
        try:
            yield
        except (CgconvertError, MemoryError) as error:
            if isinstance(error, OutputError) and _concerns_all(error):
                raise
            is_short = isinstance(error, MemoryError)
            tally.fail(
                item.job.source, "not enough memory to decode or encode it" if is_short else str(error)
            )
            claims.give_back(item.job.output)
            memory.give_back(item.charged)
            relayed.advance(tally.done, clock.busiest)

    def finished_so_far() -> str:
        done = tally.converted + tally.skipped
        return f"{done} images are finished, nothing half-written is left, the same command goes on from here"

    complete = False
    try:
        with listening() as stop:
            progress.begin("Watching" if watch else "Converting", None if watch else plan.total, "image")
            with workers:
                workers.start("find", find)
                for _ in range(codecs):
                    workers.start("decode", decode)
                workers.start("translate", translate)
                for _ in range(codecs):
                    workers.start("encode", encode)
                workers.watch(stop)
        complete = True
    except KeyboardInterrupt:
        if not watch:
            raise Interrupted(f"interrupted; {finished_so_far()}") from None
        complete = True
    except OutputError as error:
        raise OutputError(f"{error}; {finished_so_far()}") from error
    finally:
        claims.close()
        progress.finish()
        tally.stop(complete)
    return tally.result()


def _concerns_all(error: OutputError) -> bool:
    """Whether the next picture will meet the same: a full disk will, a name too long for the disk won't."""
    cause = error.__cause__
    return not (isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG)


def convert_dir(
    folder: str | Path,
    output: str | Path | None = None,
    model: str | Path = "photo2monet",
    options: ImageOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> ImagesResult:
    """Convert every picture in a folder and the folders in it, into the same tree below `output`.

    `output` None: `FOLDER.MODEL` beside it. Results that are there already are skipped, so a run that was
    broken off goes on. Pictures that cannot be converted are in the result's `failures`; the others are
    done. Raises `UsageError`, `ModelError`, `OutputError`, `Interrupted` (on Ctrl-C).
    """
    target = None if output is None else Path(output)
    plan = plan_dir(Path(folder), target, model, options or ImageOptions(), engine_options or EngineOptions())
    return run_images(plan, progress or Silent())


def convert_images(
    files: Iterable[str | Path],
    output: str | Path | None = None,
    model: str | Path = "photo2monet",
    options: ImageOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> ImagesResult:
    """Convert single files to `output`, a file (for one) or a folder; None: `NAME.MODEL.EXT` beside each.

    Raises as `convert_dir` does; a single file whose result is there already is an `OutputError`.
    """
    target = None if output is None else Path(output)
    paths = [Path(file) for file in files]
    plan = plan_images(paths, target, model, options or ImageOptions(), engine_options or EngineOptions())
    return run_images(plan, progress or Silent())
