"""How long a video will take and how large its result will be, measured on some of its frames.

A run measures on its own first frames, and says so if it will take longer than `WORTH_SAYING`.
`cgconvert/video/trial.py` converts a few frames from all over a video for it, before anything is begun.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cgconvert.frames import Frame, PlaneFrame
from cgconvert.host.memory import peak_memory
from cgconvert.media.video.encoder import ENCODING_ERRORS, PacketEncoder
from cgconvert.media.video.probe import declared_bytes
from cgconvert.progress import counted, seconds_as_clock, size_in_words
from cgconvert.video import resume
from cgconvert.video.plan import VideoPlan

FEW = 8
"""Frames that are measured at one place of a video."""
PLACES = 3
"""Places of a video whose frames are measured before a run."""
WORTH_SAYING = 60.0
"""Seconds that a run must last for what it measured on its first frames to be said."""
PATIENCE = 15.0
"""Seconds after which fewer frames have to do."""
KEPT_BYTES = 64 * 2**20
"""Pictures that are kept to be encoded for their size."""


@dataclass(frozen=True)
class Estimate:
    """What a conversion takes. `frames` are those to come, `rate` is frames per second.

    `setup` are the seconds before the first frame. `result_bytes` are those of the whole result, and
    `disk_bytes` what is needed until it is complete; both None where nothing could be measured. `memory` is
    the most that this process has had, in bytes. `free` are the bytes of the disk.
    """

    frames: int
    rate: float
    setup: float
    result_bytes: int | None
    disk_bytes: int | None
    free: int | None
    memory: int | None

    @property
    def seconds(self) -> float:
        """Seconds from the start to the end."""
        return self.setup + self.frames / self.rate

    @property
    def is_too_large(self) -> bool:
        """Whether the disk is too small for it."""
        return self.disk_bytes is not None and self.free is not None and self.disk_bytes > self.free

    def describe(self) -> str:
        """One line for people."""
        line = (
            f"about {seconds_as_clock(self.seconds)} for {counted(self.frames, 'frame')} "
            f"({self.rate:.1f} frames/s)"
        )
        if self.result_bytes is not None:
            line += f", a result of about {size_in_words(self.result_bytes)}"
            if self.disk_bytes is not None and self.free is not None:
                more = " and too few" if self.is_too_large else ""
                line += (
                    f" ({size_in_words(self.disk_bytes)} of disk until it is complete, "
                    f"{size_in_words(self.free)} are free{more})"
                )
        if self.memory is not None:
            line += f", memory {size_in_words(self.memory)}"
        return line


class Measurement:
    """What some frames of a run tell of all of `plan`. `see` takes each frame before it is encoded.

    `said` takes the estimate once it is made, if the rest takes `least` seconds or more.
    """

    def __init__(
        self, plan: VideoPlan, said: Callable[[Estimate], None], least: float = WORTH_SAYING
    ) -> None:
        self.plan, self.said, self.least = plan, said, least
        self.total: int | None = None
        self.encoder: Callable[[], PacketEncoder] | None = None
        self.began, self.setup = 0.0, 0.0
        self.count = 0
        self.kept: list[Frame | PlaneFrame] = []

    def begin(self, setup: float, resumed: int, encoder: Callable[[], PacketEncoder]) -> None:
        """The engine is ready after `setup` seconds; `resumed` frames are there already.

        `encoder` makes an encoder like the run's own.
        """
        expected = self.plan.expected_frames
        self.total = max(1, expected - resumed) if expected is not None else None
        self.encoder = encoder
        self.began, self.setup = time.perf_counter(), setup

    def see(self, frame: Frame | PlaneFrame) -> None:
        """A frame is about to be encoded."""
        if self.total is None:
            return
        self.count += 1
        is_kept = not (isinstance(frame, PlaneFrame) and frame.on_card)
        if is_kept and self.count * frame.nbytes <= KEPT_BYTES:
            self.kept.append(frame)
        is_enough = self.count >= min(FEW, self.total)
        if is_enough or (self.count >= 2 and time.perf_counter() - self.began > PATIENCE):
            self.conclude()

    def conclude(self) -> None:
        """No more frames come, or they are enough."""
        if self.total is None or not self.count:
            return
        rate = self.count / max(time.perf_counter() - self.began, 1e-6)
        if self.total / rate >= self.least:
            self.said(make_estimate(self.plan, self.total, rate, self.setup, self._sizes()))
        self.total = None
        self.kept.clear()

    def _sizes(self) -> tuple[float, float] | None:
        """Bytes of a keyframe and of another frame, by encoding what was kept; None if nothing was."""
        if not self.kept or self.encoder is None:
            return None
        try:
            encoder = self.encoder()
            packets = [packet for frame in [*self.kept, None] for packet in encoder.encode(frame)]
        except ENCODING_ERRORS:  # the run meets it too, and says it
            return None
        keys = [len(packet.data) for packet in packets if packet.keyframe]
        others = [len(packet.data) for packet in packets if not packet.keyframe]
        if not keys:
            return None
        key = sum(keys) / len(keys)
        return key, sum(others) / len(others) if others else key


def make_estimate(
    plan: VideoPlan, frames: int, rate: float, setup: float, sizes: tuple[float, float] | None
) -> Estimate:
    """Put together what was measured: frames/s, seconds of set-up, bytes of a keyframe and of others."""
    result = disk = free = None
    whole = plan.expected_frames
    if sizes is not None and whole:
        key, other = sizes
        keys = -(-whole // resume.SEGMENT_FRAMES)
        video = key * keys + other * (whole - keys)
        copied = [stream.index for stream in plan.streams if stream.action == "copied"]
        share = whole / plan.info.frames if plan.info.frames else 1.0
        result = round(video + share * declared_bytes(plan.source, copied))
        # Segments stay until they are joined.
        disk = result + round(video) if plan.options.resume else result
    with suppress(OSError):
        free = shutil.disk_usage(plan.output.absolute().parent).free
    return Estimate(frames, rate, setup, result, disk, free, peak_memory())
