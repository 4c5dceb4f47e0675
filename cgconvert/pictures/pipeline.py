"""Pictures through the network: find -> decode -> translate -> encode, overlapped.

    find -> jobs -> decode -> decoded -> translate -> translated -> encode
    one thread      as many as cores     one thread                 as many as cores

Between them are bounded channels, and the memory of all pictures on their way is bounded as a whole, so a
million pictures take the memory of a few. The caller's thread only watches: it shows the progress and hears
interrupts, also while the network is at work.

The frames of an animation and the pages of a TIFF take the same way as pictures of their own. One file at a
time is decoded to frames, and one thread puts the results into their file, in the order of the source.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgconvert.errors import (
    CgconvertError,
    InputError,
    Interrupted,
    OutputError,
    UsageError,
    first_line,
    printable,
)
from cgconvert.finish import Finish
from cgconvert.host.channels import LOOK, Budget, Channel, Relayed, Workers
from cgconvert.host.cuda import count_cuda_devices
from cgconvert.host.files import atomic_output, concerns_all, file_sha256, output_error, write_atomically
from cgconvert.host.interrupts import Breakable, listening
from cgconvert.host.memory import available_memory
from cgconvert.host.objects import AnyPath, ObjectPath, as_place
from cgconvert.host.parts import STATE, part_folder, remove_folder
from cgconvert.host.rectangles import RectangleFile, scratch_folder
from cgconvert.media.picture.codec import (
    Picture,
    checked_header,
    decode_picture,
    encode_picture,
    read_file,
    too_many_pixels,
)
from cgconvert.media.picture.finish import finished
from cgconvert.media.picture.headers import ImageHeader
from cgconvert.media.picture.resize import resized
from cgconvert.media.picture.sequences import PictureSequence, check_holds, open_sequence, write_sequence
from cgconvert.media.picture.strips import (
    STRIP_BYTES,
    STRIP_FORMATS,
    LargePicture,
    can_write,
    is_available,
    read_large_header,
    read_pixels,
    write_pixels,
)
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.batching import Groups
from cgconvert.pictures.claims import Claims, Elsewhere, state_of
from cgconvert.pictures.files import ImageJob, is_finished
from cgconvert.pictures.handover import Handover
from cgconvert.pictures.plan import ImagePlan, plan_dir, plan_images
from cgconvert.pictures.result import Dropped, ImagesResult, Tally
from cgconvert.pictures.watch import watched
from cgconvert.progress import Progress, Silent, counted
from cgconvert.scale.files import Failure
from cgconvert.scale.marker import write_marker

if TYPE_CHECKING:
    from cgconvert.pictures.network import Network

__all__ = ["Dropped", "Failure", "ImagesResult", "convert_dir", "convert_images", "run_images"]

PIXEL_MEMORY = 2 << 30
"""Bytes of pictures that may be under way at once; a quarter of what is free if that is less."""
PIXEL_BYTES = 4 * 2 * 3
"""Of memory for each pixel of a picture: source, result and what codecs need, in 16 bits with alpha."""
LEAST_LARGE = 4_000_000
"""Pixels up to which a picture is taken into memory however little of that is free."""
HUGE = 20_000
"""Edge of a picture in pixels; if the network is to see all of it, large pictures may go by strips."""
MIDDLE = 1024
"""Edge of the square of a large picture that the engine is made ready with, in pixels."""
RESULT = "result.pixels"
"""The file of a large picture's result in the folder in which it is kept."""
CHANNEL_BYTES = 64 << 20
"""Of these, bytes of pixels that may wait before and after the network."""
JOBS_AHEAD = 64
"""Pictures that are found before they are read."""
FRAMES_AHEAD = 64
"""Frames of one file that may be on their way, so that a long one takes no more memory than a short one."""
PATIENCE = 0.05
"""Seconds that an idle network waits for a full batch, and that a watched folder is left alone."""


class FrameResults:
    """The results of a file of several pictures: they come in any order and are taken in that of the file."""

    def __init__(self, job: ImageJob, sequence: PictureSequence, workers: Workers, memory: Budget) -> None:
        self.job, self.sequence = job, sequence
        self.workers, self.memory = workers, memory
        self.arrived: dict[int, Item] = {}
        self.error: CgconvertError | MemoryError | None = None
        self.changed = threading.Condition()
        self.taken = 0
        self.waited = 0.0

    @property
    def nbytes(self) -> int:
        """What it counts in a channel."""
        return 1

    def wait_to_read(self, number: int) -> None:
        """Return when few enough frames before this one are on their way. Raises `Aborted`."""
        with self.changed:
            while number - self.taken >= FRAMES_AHEAD and self.error is None:
                self.workers.check()
                self.changed.wait(LOOK)

    def put(self, item: Item) -> None:
        """A frame has its result. After an error it is given up."""
        with self.changed:
            if self.error is None:
                self.arrived[item.number] = item
                self.changed.notify_all()
                return
        self.memory.give_back(item.charged)

    def fail(self, error: CgconvertError | MemoryError) -> None:
        """A frame has none, so the file can have none. The first error counts."""
        with self.changed:
            self.error = self.error or error
            given_up = list(self.arrived.values())
            self.arrived.clear()
            self.changed.notify_all()
        for item in given_up:
            self.memory.give_back(item.charged)

    def results(self, tell: Callable[[int], None]) -> Generator[Picture]:
        """Yield the results in order, waiting for each, and tell how many that makes.

        Raises the error of a frame, and `Aborted`.
        """
        for number in range(self.sequence.count):
            started = time.perf_counter()
            with self.changed:
                while number not in self.arrived:
                    if self.error is not None:
                        raise self.error
                    self.workers.check()
                    self.changed.wait(LOOK)
                item = self.arrived.pop(number)
                self.taken = number + 1
                self.changed.notify_all()
            self.waited += time.perf_counter() - started
            assert item.picture is not None
            tell(number + 1)
            try:
                yield item.picture
            finally:
                self.memory.give_back(item.charged)


@dataclass
class Item:
    """A picture on its way; `charged` bytes of the memory are its own. `begun` is when it was read.

    A `large` one is not decoded to pixels: those of source and result wait in `files`, and what a run that
    was broken off goes on from in the folder `kept`.

    `finish` says what is to be done with the result and the picture together, None that there is nothing.
    Such a picture keeps its own pixels, `seen` is what the network sees of it, and `result` what it makes
    of that. `frames` are those of the animation or the document of which it is frame or page `number`.
    """

    job: ImageJob
    picture: Picture | None = None
    charged: int = 0
    frames: FrameResults | None = None
    number: int = 0
    begun: float = 0.0
    source_bytes: int = 0
    finish: Finish | None = None
    seen: np.ndarray | None = None
    result: np.ndarray | None = None
    large: LargePicture | None = None
    files: list[RectangleFile] = field(default_factory=list)
    kept: Path | None = None

    @property
    def pixels(self) -> np.ndarray:
        """Once it is decoded, what the network sees: uint8 or uint16 RGB (H, W, 3)."""
        assert self.seen is not None
        return self.seen

    @property
    def nbytes(self) -> int:
        """What it counts in a channel: its pixels, or one before it is decoded."""
        if self.large is not None:
            return CHANNEL_BYTES  # on the disk, of which no more than needed is taken
        return 1 if self.picture is None else self.picture.pixels.nbytes


def run_images(
    plan: ImagePlan, progress: Progress, tally: Tally | None = None, workers_count: int | None = None
) -> ImagesResult:
    """Convert every picture of the plan that has no result yet.

    `tally` tells what has happened also where this raises. Raises `Interrupted`, `OutputError`, `ModelError`,
    `UsageError`; single pictures that fail are in the result. A watched folder ends with an interrupt, which
    is its normal end. However it ends, no half-written file is at a final name.
    """
    options, watch = plan.options, plan.options.watch
    remote = isinstance(plan.folder, ObjectPath) or isinstance(plan.output, ObjectPath)
    # Threads that wait for a network take no processor.
    codecs = workers_count or (16 if remote else min(16, max(2, os.cpu_count() or 2)))
    tally = tally or Tally(plan)
    clock = tally.clock
    jobs: Channel[Item] = Channel(JOBS_AHEAD)
    decoded: Channel[Item] = Channel(CHANNEL_BYTES, producers=codecs)
    devices = _count_devices(plan.engine.device)
    translated: Channel[Item] = Channel(CHANNEL_BYTES, producers=devices)
    handover: Handover[Item] = Handover(devices)
    sequences: Channel[FrameResults] = Channel(JOBS_AHEAD, producers=codecs)
    one_sequence = threading.Lock()
    by_frame = False  # whether the progress counts the frames or tiles of the one file
    clock.threads = {"decode": codecs, "encode": codecs, "translate": devices}
    free = available_memory()
    memory = Budget(PIXEL_MEMORY if free is None else min(PIXEL_MEMORY, free // 4))
    workers = Workers(jobs, decoded, translated, sequences, memory)
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

        there = plan.names()
        found = watched(plan, tally.skip, tally.fail) if watch else plan.jobs(tally.failures)
        for job in found:
            workers.check()
            if job is None:  # nothing new in a watched folder
                look_elsewhere()
                time.sleep(PATIENCE)
                continue
            if not watch and is_finished(job, options, there):
                skip(job)
                continue
            if not marked and plan.folder is not None and plan.output is not None:
                write_marker(plan.output, plan.card, plan.look())
                marked = True
            before = state_of(job.output)
            if not claims.take(job.output):
                elsewhere.append(Elsewhere(job, before))
            elif not watch and is_finished(job, options, there):  # since the look before
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
                item.begun = time.perf_counter()
                if (large := find_large(item.job)) is not None:
                    decode_large(item, large)
                    continue
                with clock.busy("load"):
                    data = read_file(item.job.source)
                    header = checked_header(data, pixel_limit(item.job), single=False)
                if header.frames > 1:
                    check_holds(header, item.job.format)
                    decode_frames(item.job, data, header)
                    continue
                # Source, result and what codecs need, in 16 bits with alpha.
                item.charged = header.width * header.height * PIXEL_BYTES + len(data)
                item.source_bytes = len(data)
                memory.take(item.charged)
                with clock.busy("decode"):
                    prepare(item, decode_picture(data, header))
                decoded.put(item)
        decoded.close()
        sequences.close()

    def pixel_limit(job: ImageJob) -> int:
        return (job.options or options).pixel_limit * 1_000_000

    def find_large(job: ImageJob) -> LargePicture | None:
        """What goes from file to file in tiles: it takes too much memory, and the network sees all of it."""
        own = job.options or options
        try:
            is_seen_whole = plan.seen_size(HUGE, HUGE, own) == (HUGE, HUGE) and plan.finish_of(own).is_plain
        except UsageError:  # it would be enlarged beyond what any network may see
            is_seen_whole = False
        if not is_seen_whole or plan.engine.tile == "off" or not is_available():
            return None
        if job.format not in STRIP_FORMATS or isinstance(job.source, ObjectPath):
            return None
        large = read_large_header(job.source)
        least = max(LEAST_LARGE, memory.limit // PIXEL_BYTES)
        if large is None or large.width * large.height <= least:
            return None
        size = large.width, large.height
        if plan.seen_size(*size, own) != size or not can_write(large, job.format):
            return None
        if large.width * large.height > pixel_limit(job):
            raise too_many_pixels(*size, pixel_limit(job))
        return large

    def decode_large(item: Item, large: LargePicture) -> None:
        """A large picture to a file of its pixels. The engine is made ready with the middle of it."""
        item.charged = 4 * STRIP_BYTES
        memory.take(item.charged)
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
            with clock.busy("decode"):
                read_pixels(large, workers.check, item.files[0])
            rows, columns = (
                slice(max(0, (size - MIDDLE) // 2), min(size, (size + MIDDLE) // 2))
                for size in (large.height, large.width)
            )
            item.seen = item.files[0].read(rows, columns).view(large.dtype)
        except OSError as error:
            raise output_error(folder, error) from error
        item.large = large
        decoded.put(item)

    def prepare(item: Item, picture: Picture) -> None:
        """What the network is to see of a picture, and what is to be done with the result."""
        height, width = picture.pixels.shape[:2]
        own = item.job.options or options
        size, finish = plan.seen_size(width, height, own), plan.finish_of(own)
        item.picture, item.seen = picture, resized(picture.pixels, *size)
        item.finish = None if finish.is_plain and size == (width, height) else finish

    def decode_frames(job: ImageJob, data: bytes, header: ImageHeader) -> None:
        """Decode an animation or pages, while no other thread does.

        Each frame takes memory as a picture would, and for the file and what it is drawn on. Two files at
        once could take all of it for frames that wait for earlier ones, which then would find none.
        """
        nonlocal by_frame
        while not one_sequence.acquire(timeout=LOOK):
            workers.check()
        try:
            frames = FrameResults(job, open_sequence(data, header), workers, memory)
            sequences.put(frames)
            if plan.total == 1 and not watch:
                by_frame = True
                relayed.begin(f"Converting {printable(job.source.name)}", header.frames, header.parts[:-1])
            width, height = header.largest
            upcoming = frames.sequence.pictures()
            for number in range(header.frames):
                frames.wait_to_read(number)
                item = Item(job, None, width * height * PIXEL_BYTES + len(data), frames, number)
                memory.take(item.charged)
                try:
                    with clock.busy("decode"):
                        prepare(item, next(upcoming))
                except CgconvertError as error:
                    frames.fail(InputError(f"{header.parts[:-1]} {number + 1} of {header.frames}: {error}"))
                except MemoryError as error:
                    frames.fail(error)
                if frames.error is not None:
                    memory.give_back(item.charged)
                    return
                decoded.put(item)
        finally:
            one_sequence.release()

    def translate(number: int) -> None:
        """Pictures through the network of a device, those of one padded size together."""
        item = decoded.take() or handover.wait()
        if item is not None:  # a run without a picture loads neither torch nor a model
            with Breakable():
                from cgconvert.pictures.network import Network, device_of
            device = device_of(plan, number) if devices > 1 else plan.engine.device
            network: Network[Item] = Network(plan, item.pixels, relayed, clock, device)
            held: dict[int, Item] = {}
            share = {"device": device, "pictures": 0, "failed": False}
            try:
                _translate_all(network, item, held, share)
            except Exception as error:  # whatever a driver or a library makes of a device that is lost
                share["failed"] = True
                if not handover.leave(held.values()):
                    raise
                told = f"failed ({first_line(error, 200)}): {len(held)} pictures went to the others"
                network.job.note(told)
                relayed.note(f"{device} {told}")
            finally:
                tally.tell_engine(number, network.job.describe(), share)
                network.close()
        translated.close()

    def _translate_all(
        network: Network[Item], item: Item | None, held: dict[int, Item], share: dict[str, Any]
    ) -> None:
        """`held` are the items that have been taken and not passed on; `share` counts those that have."""

        def pass_on(results: Iterator[tuple[Item, np.ndarray | InputError]]) -> None:
            for item, result in results:
                del held[id(item)]
                share["pictures"] += 1
                with failing_alone(item):
                    if isinstance(result, InputError):
                        raise result
                    item.result, item.seen = result, None
                    translated.put(item)

        groups: Groups[Item] = Groups()
        while True:
            if item is not None:
                held[id(item)] = item
            if item is not None and item.large is not None:
                pass_on(network.finish())
                with failing_alone(item):
                    translate_large(network, item, item.large)
                del held[id(item)]
                share["pictures"] += 1
                item = None
                continue
            if item is not None:
                size = network.padded_size(item.pixels)
                # Results that are to be finished have 16 bits, so they are not in a batch with others.
                key = size, item.pixels.dtype.name, item.finish is not None
                groups.add(key, item, network.batch_for(*size))
            batch = groups.take_full()
            if batch is None:
                # While the device is busy nothing is lost by looking whether more pictures are there; an idle
                # one waits a moment for its batch to fill. Then it gets what there is.
                patience = 0 if network.in_flight else PATIENCE if groups or devices > 1 else None
                item = handover.take() or decoded.take(patience)
                if item is not None:
                    continue
                if network.in_flight:
                    pass_on(network.finish())
                    continue
                batch = groups.take_oldest()
                if batch is None:
                    if decoded.finished and (item := handover.wait()) is None:
                        return
                    continue
            item = None
            pass_on(network.translate(batch))

    def translate_large(network: Network[Item], item: Item, large: LargePicture) -> None:
        """The pixels of a large picture from one file to the other."""
        is_alone = plan.total == 1 and not watch

        def tell(done: int, total: int) -> None:
            nonlocal by_frame
            if not by_frame:
                by_frame = True
                relayed.begin(f"Converting {printable(item.job.source.name)}", total, "tile")
            relayed.advance(done, clock.busiest)

        source, result = item.files
        size = large.height, large.width
        kept = None
        if item.kept is not None:
            assert isinstance(item.job.source, Path)
            kept = item.job.source, item.kept
        tell_it = tell if is_alone else None
        network.translate_file(source, result, size, large.dtype, workers.check, tell_it, kept)
        item.files.pop(0).close()
        translated.put(item)

    def encode() -> None:
        """Results to files, and those of frames to the thread that writes their file."""
        for item in translated:
            with failing_alone(item):
                if item.large is not None:
                    encode_large(item, item.large)
                    continue
                assert item.picture is not None
                assert item.result is not None
                if item.finish is not None:
                    with clock.busy("finish"):
                        item.result = finished(item.picture.pixels, item.result, item.finish)
                item.picture, item.result = item.picture.with_pixels(item.result), None
                if item.frames is not None:
                    item.frames.put(item)
                    continue
                with clock.busy("encode"):
                    own = item.job.options or options
                    height, width = item.picture.pixels.shape[:2]
                    data, dropped = encode_picture(item.picture, item.job.format, own.quality)
                    dropped, item.picture = (*item.picture.dropped, *dropped), None
                    workers.check()  # a run that is broken off begins no file
                    write_atomically(item.job.output, data, own.overwrite or watch)
                claims.give_back(item.job.output)
                facts: dict[str, Any] = {}
                if tally.results is not None:
                    facts = {
                        "seconds": round(time.perf_counter() - item.begun, 3),
                        "width": width,
                        "height": height,
                        "source_bytes": item.source_bytes,
                        "output_bytes": len(data),
                        "sha256": hashlib.sha256(data).hexdigest(),
                    }
                tally.convert(item.job, dropped, **facts)
                memory.give_back(item.charged)
                advance()

    def encode_large(item: Item, large: LargePicture) -> None:
        """A file of pixels to the result."""
        job, own = item.job, item.job.options or options
        written: dict[str, Any] = {}
        with clock.busy("encode"), atomic_output(job.output, own.overwrite or watch) as temporary:
            dropped = write_pixels(
                large, item.files[0], temporary, job.format, own.quality, lambda: workers.aborted
            )
            workers.check()  # a run that is broken off finishes no file
            if tally.results is not None:
                written = {"output_bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
        item.files.pop().close()
        if item.kept is not None:
            with suppress(OSError):
                remove_folder(item.kept)
        claims.give_back(job.output)
        facts: dict[str, Any] = {}
        if tally.results is not None:
            facts = {
                "seconds": round(time.perf_counter() - item.begun, 3),
                "width": large.width,
                "height": large.height,
                **written,
            }
        tally.convert(job, dropped, **facts)
        memory.give_back(item.charged)
        advance()

    def encode_frames() -> None:
        """Results of frames to files, one file after the other."""
        for frames in sequences:
            job, started = frames.job, time.perf_counter()
            own = job.options or options
            try:
                with (
                    atomic_output(job.output, own.overwrite or watch) as temporary,
                    temporary.open("w+b") as file,
                    closing(frames.results(advance_frames)) as results,
                ):
                    dropped = write_sequence(file, frames.sequence, results, job.format, own.quality)
                    workers.check()  # a run that is broken off finishes no file
                    file.flush()
                    written: dict[str, Any] = {}
                    if tally.results is not None:
                        written = {"output_bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
                claims.give_back(job.output)
                facts: dict[str, Any] = {}
                if tally.results is not None:
                    facts = {"seconds": round(time.perf_counter() - started, 3), **written}
                tally.convert(job, dropped, frames.sequence.count, **facts)
            except (CgconvertError, MemoryError) as error:
                frames.fail(error)
                give_up(job, error)
            clock.add("encode", time.perf_counter() - started - frames.waited)
            advance()

    def advance_frames(done: int) -> None:
        if by_frame:
            relayed.advance(done, clock.busiest)

    def advance() -> None:
        if not by_frame:
            relayed.advance(tally.done, clock.busiest)

    @contextmanager
    def failing_alone(item: Item) -> Iterator[None]:
        """What is wrong with one picture is told, and the others go on. A full disk or a bug ends the run."""
        try:
            yield
        except (CgconvertError, MemoryError) as error:
            memory.give_back(item.charged)
            is_kept = isinstance(error, OutputError)  # a full disk can be tidied up
            for file in item.files:
                file.close(delete=not is_kept)
            if item.kept is not None and not is_kept:
                with suppress(OSError):
                    remove_folder(item.kept)
            if item.frames is not None:
                item.frames.fail(error)  # the thread that writes them tells it
            else:
                give_up(item.job, error)

    def give_up(job: ImageJob, error: CgconvertError | MemoryError) -> None:
        """There is no result for a file. Raises the error again if the other files would meet it as well."""
        if isinstance(error, OutputError) and concerns_all(error):
            raise error
        is_short = isinstance(error, MemoryError)
        tally.give_up(job, "not enough memory to decode or encode it" if is_short else str(error))
        claims.give_back(job.output)
        advance()

    def finished_so_far() -> str:
        done = tally.converted + tally.skipped
        finished = f"{counted(done, 'picture')} {'is' if done == 1 else 'are'} finished"
        return f"{finished}, nothing half-written is left, the same command goes on from here"

    complete = False
    try:
        with listening() as stop:
            progress.begin("Watching" if watch else "Converting", None if watch else plan.total, "picture")
            with workers:
                workers.start("find", find)
                for _ in range(codecs):
                    workers.start("decode", decode)
                for number in range(devices):
                    workers.start("translate", partial(translate, number))
                workers.start("encode-frames", encode_frames)
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


def _count_devices(text: str) -> int:
    """How many devices are named, without torch, which a run without a picture does not load."""
    return max(1, count_cuda_devices()) if text.lower() == "all" else text.count(",") + 1


def convert_dir(
    folder: str | AnyPath,
    output: str | AnyPath | None = None,
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
    target = None if output is None else as_place(output)
    plan = plan_dir(
        as_place(folder), target, model, options or ImageOptions(), engine_options or EngineOptions()
    )
    return run_images(plan, progress or Silent())


def convert_images(
    files: Iterable[str | AnyPath],
    output: str | AnyPath | None = None,
    model: str | Path = "photo2monet",
    options: ImageOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> ImagesResult:
    """Convert single files to `output`, a file (for one) or a folder; None: `NAME.MODEL.EXT` beside each.

    Raises as `convert_dir` does; a single file whose result is there already is an `OutputError`.
    """
    target = None if output is None else as_place(output)
    paths = [as_place(file) for file in files]
    plan = plan_images(paths, target, model, options or ImageOptions(), engine_options or EngineOptions())
    return run_images(plan, progress or Silent())
