"""Pictures through the house: read, decode and encode in workers, the network beside them, one coordinator.

    jobs -> load -> decode -> (group by padded size) -> translate -> encode and write
            workers          coordinator               network       workers

Everything that happens is an event in one queue that the coordinator reads; only it changes the state, so
there is nothing to lock. What is under way is bounded by number and by bytes, so a million pictures take
the memory of a few.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from cgconvert.errors import CgconvertError, InputError, Interrupted, OutputError
from cgconvert.host.files import write_atomically
from cgconvert.host.memory import available_memory
from cgconvert.host.threads import wait_without_spinning
from cgconvert.media.picture.codec import Picture, checked_header, decode_picture, encode_picture, read_file
from cgconvert.media.picture.headers import ImageHeader
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.batching import Groups
from cgconvert.pictures.files import ImageFailure, ImageJob, is_finished
from cgconvert.pictures.network import Network, NetworkFailed, Note, Ready, Stage, Translated
from cgconvert.pictures.plan import ImagePlan, plan_dir, plan_images, write_marker
from cgconvert.pictures.result import ImagesResult, Loss, Tally
from cgconvert.pictures.watch import watched
from cgconvert.pictures.workers import Done, Failed, Workers
from cgconvert.progress import Progress, Silent

__all__ = ["ImageFailure", "ImageRun", "ImagesResult", "Loss", "convert_dir", "convert_images"]

PIXEL_MEMORY = 2 << 30
"""Bytes of pictures that may be under way at once; a quarter of what is free if that is less."""
PATIENCE = 0.05
"""Seconds that an idle network waits for a full batch while pictures are being decoded."""
LEAVING = 1.0
"""Seconds that a run that is broken off waits for what is under way."""


@dataclass
class Item:
    """A picture on its way; `charged` bytes of the memory limit are its own."""

    job: ImageJob
    data: bytes = b""
    header: ImageHeader | None = None
    picture: Picture | None = None
    losses: tuple[str, ...] = ()
    charged: int = 0
    written: bool = False

    @property
    def cost(self) -> int:
        """Bytes that it takes at most: source, result and what codecs need, in 16 bits with alpha."""
        assert self.header is not None
        return self.header.width * self.header.height * 4 * 2 * 3 + len(self.data)

    @property
    def decoded(self) -> Picture:
        """The picture, once it is decoded."""
        assert self.picture is not None
        return self.picture


class ImageRun:
    """One run over a plan. `run` once; `result` tells of it, also when `run` raised."""

    def __init__(self, plan: ImagePlan, progress: Progress, workers: int | None = None) -> None:
        wait_without_spinning()
        self.plan = plan
        self.progress = progress
        self.tally = Tally(plan)
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.encoding: dict[int, Item] = {}
        self.workers: Workers[Item] = Workers(
            workers or min(16, max(2, os.cpu_count() or 2)), self.events.put
        )
        self.network = Network(plan, self.events.put)
        self.ready: Ready | None = None
        self.network_started = self.network_idle = self.marked = False
        self.groups: Groups[Item] = Groups()
        self.before_ready: list[Item] = []
        self.without_room: deque[Item] = deque()
        self.at_network: list[Item] = []
        self.reading = self.under_way = self.memory = 0
        self.largest_batch = plan.engine.batch or 1
        free = available_memory()
        self.memory_limit = PIXEL_MEMORY if free is None else min(PIXEL_MEMORY, free // 4)

    @property
    def result(self) -> ImagesResult:
        """What has happened so far."""
        return self.tally.result()

    def run(self) -> ImagesResult:
        """Convert every picture of the plan that has no result yet.

        A watched folder ends with `KeyboardInterrupt`, which is its normal end. Raises `Interrupted`,
        `OutputError`, `ModelError`, `UsageError`; single pictures that fail are in the result. However it
        ends, no half-written file is at a final name.
        """
        watch = self.plan.options.watch
        complete = False
        try:
            self.progress.begin(
                "Watching" if watch else "Converting", None if watch else self.plan.total, "image"
            )
            self._loop(self._jobs())
            complete = True
        except KeyboardInterrupt:
            self._break_off()
            if not watch:
                raise Interrupted(f"interrupted; {self._finished_so_far()}") from None
            complete = True
        except OutputError as error:
            self._break_off()
            raise OutputError(f"{error}; {self._finished_so_far()}") from error
        finally:
            self.progress.finish()
            self.workers.close(None if complete and not watch else LEAVING)
            if self.network_started:
                self.network.close(None if complete and not watch else LEAVING / 2)
            self.tally.engine = dict(self.network.description)
            self.tally.stop(complete)
        return self.result

    def _break_off(self) -> None:
        """Begin no more files, wait a moment for those begun, and count what is there but not yet told of."""
        self.workers.close(LEAVING)
        for item in filter(lambda item: item.written, self.encoding.values()):
            self.tally.convert(item.job, item.losses)

    def _finished_so_far(self) -> str:
        done = self.tally.converted + self.tally.skipped
        return f"{done} images are finished, nothing half-written is left, the same command goes on from here"

    def _jobs(self) -> Iterator[ImageJob | None]:
        if self.plan.options.watch:
            return watched(self.plan, self.tally.skip, self.tally.fail)
        return iter(self.plan.jobs(self.tally.failures))

    def _loop(self, jobs: Iterator[ImageJob | None]) -> None:
        """Feed, hand to the network, and deal with what happens, until nothing is left."""
        while True:
            exhausted = self._feed(jobs)
            self._offer()
            if exhausted and not self.under_way:
                return
            waits = self.plan.options.watch or (self.network_idle and len(self.groups) > 0)
            try:
                event = self.events.get(timeout=PATIENCE if waits else None)
            except Empty:
                self._offer(patient=False)
            else:
                self._handle(event)

    def _feed(self, jobs: Iterator[ImageJob | None]) -> bool:
        """Start jobs while there is room; whether there are no more. None from a watched folder: none yet."""
        room = 3 * self.largest_batch + 2 * self.workers.count
        while self.under_way < room:
            try:
                job = next(jobs)
            except StopIteration:
                return True
            if job is None:
                return False
            if not self.plan.options.watch and is_finished(job, self.plan.options):
                self.tally.skip(job)
                self._advance()
                continue
            if not self.marked:
                write_marker(self.plan)
                self.marked = True
            self.under_way += 1
            self.reading += 1
            self.workers.submit("load", _load, Item(job), self._loaded)
        return False

    def _handle(self, event: Any) -> None:
        if isinstance(event, Done):
            self.tally.add_seconds(event.stage, event.seconds)
            event.then(event.item)
        elif isinstance(event, Translated):
            self._translated(event)
        elif isinstance(event, Failed):
            self._failed(event)
        elif isinstance(event, Ready):
            self._network_ready(event)
        elif isinstance(event, Note):
            self.progress.note(event.line)
        elif isinstance(event, Stage):
            self.progress.stage(event.what)
        elif isinstance(event, NetworkFailed):
            raise event.error

    def _loaded(self, item: Item) -> None:
        """The file's bytes are here and its size is known: decode it as soon as there is memory for it."""
        if self.memory and self.memory + item.cost > self.memory_limit:
            self.reading -= 1
            self.without_room.append(item)
            return
        item.charged = item.cost
        self.memory += item.charged
        self.workers.submit("decode", _decode, item, self._decoded)

    def _decoded(self, item: Item) -> None:
        self.reading -= 1
        if not self.network_started:  # not before there is work for it
            self.network_started = True
            self.network.start(item.decoded.pixels)
        if self.ready is None:
            self.before_ready.append(item)
        else:
            self._group(item, self.ready)

    def _network_ready(self, ready: Ready) -> None:
        self.ready, self.network_idle = ready, True
        self.tally.add_seconds("prepare", ready.seconds - ready.building)
        self.tally.add_seconds("build", ready.building)
        early, self.before_ready = self.before_ready, []
        for item in early:
            self._group(item, ready)

    def _group(self, item: Item, ready: Ready) -> None:
        pixels = item.decoded.pixels
        size = ready.padded_size(*pixels.shape[:2])
        batch = ready.batch_for(*size)
        self.largest_batch = max(self.largest_batch, batch)
        self.groups.add((size, pixels.dtype.name), item, batch)

    def _offer(self, patient: bool = True) -> None:
        """Give an idle network a full batch; or what there is, if no more is coming or patience is over."""
        if not self.network_idle:
            return
        batch = self.groups.take_full()
        if batch is None and (not self.reading or not patient):
            batch = self.groups.take_oldest()
        if batch:
            self.network_idle, self.at_network = False, batch
            self.network.translate([item.decoded.pixels for item in batch])

    def _translated(self, event: Translated) -> None:
        batch, self.at_network, self.network_idle = self.at_network, [], True
        self.tally.add_seconds("translate", event.seconds - event.building)
        self.tally.add_seconds("build", event.building)
        self._offer()  # before all else: the network must not wait for us
        for item, result in zip(batch, event.results, strict=True):
            if isinstance(result, InputError):
                self.tally.fail(item.job.source, str(result))
                self._left(item)
            else:
                item.picture = item.decoded.with_pixels(result)
                self.encoding[id(item)] = item
                self.workers.submit("encode", self._encode, item, self._written)

    def _encode(self, item: Item) -> None:
        """Encode and write; in a worker."""
        options, picture = self.plan.options, item.decoded
        encoded, losses = encode_picture(picture, item.job.format, options.quality)
        item.picture, item.losses = None, (*picture.losses, *losses)
        if not self.workers.stopping:  # a run that is broken off begins no file
            write_atomically(item.job.output, encoded, options.overwrite or options.watch)
            item.written = True

    def _written(self, item: Item) -> None:
        self.tally.convert(item.job, item.losses)
        self._left(item)

    def _failed(self, event: Failed[Item]) -> None:
        error = event.error
        if event.stage in ("load", "decode"):
            self.reading -= 1
        if isinstance(error, MemoryError):
            error = InputError("not enough memory to decode or encode it")
        if not isinstance(error, CgconvertError) or (isinstance(error, OutputError) and _concerns_all(error)):
            raise error  # a full disk stops the run; a bug of ours keeps its traceback
        self.tally.fail(event.item.job.source, str(error))
        self._left(event.item)

    def _left(self, item: Item) -> None:
        """A picture is through, one way or the other: make room for the next."""
        self.encoding.pop(id(item), None)
        self.under_way -= 1
        self.memory -= item.charged
        while self.without_room and (
            not self.memory or self.memory + self.without_room[0].cost <= self.memory_limit
        ):
            self.reading += 1
            self._loaded(self.without_room.popleft())
        self._advance()

    def _advance(self) -> None:
        self.progress.advance(self.tally.done, self.tally.busiest(self.workers.count))


def _load(item: Item) -> None:
    item.data = read_file(item.job.source)
    item.header = checked_header(item.data)


def _decode(item: Item) -> None:
    item.picture, item.data = decode_picture(item.data, item.header), b""


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
    done. Raises `UsageError`, `ModelError`, `OutputError`, `Interrupted` (on `KeyboardInterrupt`).
    """
    target = None if output is None else Path(output)
    plan = plan_dir(Path(folder), target, model, options or ImageOptions(), engine_options or EngineOptions())
    return ImageRun(plan, progress or Silent()).run()


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
    return ImageRun(plan, progress or Silent()).run()
