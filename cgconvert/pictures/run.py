"""A run over pictures: the channels between its threads, their memory, and what becomes of each file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cgconvert.errors import CgconvertError, OutputError, printable
from cgconvert.host.channels import Budget, Channel, Relayed, Workers
from cgconvert.host.cuda import count_cuda_devices
from cgconvert.host.files import concerns_all
from cgconvert.host.memory import available_memory
from cgconvert.host.objects import ObjectPath
from cgconvert.host.parts import remove_folder
from cgconvert.options import ImageOptions
from cgconvert.pictures.claims import Claims
from cgconvert.pictures.files import ImageJob
from cgconvert.pictures.handover import Handover
from cgconvert.pictures.items import CHANNEL_BYTES, FrameResults, Item
from cgconvert.pictures.plan import ImagePlan
from cgconvert.pictures.result import Tally
from cgconvert.progress import Progress, counted

PIXEL_MEMORY = 2 << 30
"""Bytes of pictures that may be under way at once; a quarter of what is free if that is less."""
JOBS_AHEAD = 64
"""Pictures that are found before they are read."""
PATIENCE = 0.05
"""Seconds that an idle network waits for a full batch, and that a watched folder is left alone."""


class ImageRun:
    """What the threads of one run share; `pictures.pipeline` shows how they stand together.

    `codecs` threads decode and as many encode; each of `devices` has one that translates.
    """

    def __init__(self, plan: ImagePlan, progress: Progress, tally: Tally, codecs: int | None = None) -> None:
        self.plan, self.options, self.watch = plan, plan.options, plan.options.watch
        self.tally, self.clock = tally, tally.clock
        remote = isinstance(plan.folder, ObjectPath) or isinstance(plan.output, ObjectPath)
        # Threads that wait for a network take no processor.
        self.codecs = codecs or (16 if remote else min(16, max(2, os.cpu_count() or 2)))
        self.devices = _count_devices(plan.engine.device)
        self.clock.threads = {"decode": self.codecs, "encode": self.codecs, "translate": self.devices}
        self.jobs: Channel[Item] = Channel(JOBS_AHEAD)
        self.decoded: Channel[Item] = Channel(CHANNEL_BYTES, producers=self.codecs)
        self.translated: Channel[Item] = Channel(CHANNEL_BYTES, producers=self.devices)
        self.handover: Handover[Item] = Handover(self.devices)
        self.sequences: Channel[FrameResults] = Channel(JOBS_AHEAD, producers=self.codecs)
        self.one_sequence = threading.Lock()
        """Held while a file of several pictures is decoded."""
        free = available_memory()
        self.memory = Budget(PIXEL_MEMORY if free is None else min(PIXEL_MEMORY, free // 4))
        self.workers = Workers(self.jobs, self.decoded, self.translated, self.sequences, self.memory)
        self.progress = Relayed(self.workers, progress)
        self.claims = Claims()
        self._counts_parts = False

    def options_of(self, job: ImageJob) -> ImageOptions:
        """The options of a file: its own, or those of the run."""
        return job.options or self.options

    def pixel_limit(self, job: ImageJob) -> int:
        """The most pixels that a picture may have."""
        return self.options_of(job).pixel_limit * 1_000_000

    def replaces(self, job: ImageJob) -> bool:
        """Whether its result may take the place of a file."""
        return self.options_of(job).overwrite or self.watch

    def skip(self, job: ImageJob) -> None:
        """A file has its result already."""
        self.tally.skip(job)
        self.progress.advance(self.tally.done)

    def count_parts(self, job: ImageJob, total: int, unit: str) -> None:
        """Show the progress within the file, if it is the only one: its frames, pages or tiles."""
        if self.plan.total == 1 and not self.watch and not self._counts_parts:
            self._counts_parts = True
            self.progress.begin(f"Converting {printable(job.source.name)}", total, unit)

    def advance_parts(self, done: int) -> None:
        """So many of the only file's frames, pages or tiles are done."""
        if self._counts_parts:
            self.progress.advance(done, self.clock.busiest)

    def advance(self) -> None:
        """A file is dealt with."""
        if not self._counts_parts:
            self.progress.advance(self.tally.done, self.clock.busiest)

    @contextmanager
    def failing_alone(self, item: Item) -> Iterator[None]:
        """What is wrong with one picture is told, and the others go on. A full disk or a bug ends the run."""
        try:
            yield
        except (CgconvertError, MemoryError) as error:
            self.memory.give_back(item.charged)
            is_kept = isinstance(error, OutputError)  # a full disk can be tidied up
            for file in item.files:
                file.close(delete=not is_kept)
            if item.kept is not None and not is_kept:
                with suppress(OSError):
                    remove_folder(item.kept)
            if item.frames is not None:
                item.frames.fail(error)  # the thread that writes them tells it
            else:
                self.give_up(item.job, error)

    def give_up(self, job: ImageJob, error: CgconvertError | MemoryError) -> None:
        """There is no result for a file. Raises the error again if the other files would meet it as well."""
        if isinstance(error, OutputError) and concerns_all(error):
            raise error
        is_short = isinstance(error, MemoryError)
        self.tally.give_up(job, "not enough memory to decode or encode it" if is_short else str(error))
        self.claims.give_back(job.output)
        self.advance()

    def finished_so_far(self) -> str:
        """In words, what a run that ends early has done."""
        done = self.tally.converted + self.tally.skipped
        finished = f"{counted(done, 'picture')} {'is' if done == 1 else 'are'} finished"
        return f"{finished}, nothing half-written is left, the same command goes on from here"


def _count_devices(text: str) -> int:
    """How many devices are named, without torch, which a run without a picture does not load."""
    return max(1, count_cuda_devices()) if text.lower() == "all" else text.count(",") + 1
