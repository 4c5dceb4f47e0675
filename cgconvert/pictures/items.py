"""What goes through the pipeline of pictures: each picture, and the results of one file's frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cgconvert.errors import CgconvertError
from cgconvert.finish import Finish
from cgconvert.host.channels import LOOK, Budget, Workers
from cgconvert.host.rectangles import RectangleFile
from cgconvert.media.picture.codec import Picture
from cgconvert.media.picture.sequences import PictureSequence
from cgconvert.media.picture.strips import LargePicture
from cgconvert.pictures.files import ImageJob

CHANNEL_BYTES = 64 << 20
"""Bytes of pixels that may wait before, and after, the network."""
FRAMES_AHEAD = 64
"""Frames of one file that may be on their way, so that a long one takes no more memory than a short one."""


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
