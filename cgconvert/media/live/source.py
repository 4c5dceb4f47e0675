"""Reads live pictures: each when it comes, and those of a file when they are due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags

from cgconvert.errors import InputError, UnavailableError, UsageError, first_line
from cgconvert.frames import StreamInfo
from cgconvert.media.live.places import WAIT, Place
from cgconvert.media.video.open import MAX_PIXELS, main_video_stream, open_video
from cgconvert.media.video.probe import describe_video

PAUSES = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Seconds before each new attempt to reach a source that broke off; the last ones are all the same."""

BEHIND = 0.5
"""Seconds that a file may be decoded too late before its clock is set anew: it cannot be played in time."""

NETWORK_ERRORS = (av.error.FFmpegError, OSError)


@dataclass(frozen=True)
class Arrival:
    """A picture as decoded, when it came by `time.monotonic`, and its time in the source in seconds."""

    frame: av.VideoFrame
    at: float
    seconds: float


class LiveSource:
    """Pictures of a camera, a screen, a stream, or a file that is played in real time.

    `open` reads the first picture, `arrivals` yields them as they come, until `ending` is set or a file is
    over, which with `loop` begins again. What breaks off is opened again, and `note` is told.
    """

    def __init__(
        self, place: Place, ending: threading.Event, note: Callable[[str], None], loop: bool = False
    ) -> None:
        self.place, self.ending, self.note, self.loop = place, ending, note, loop
        self.container: Any = None
        self.reconnections = 0

    def open(self) -> StreamInfo:
        """Open the source, and describe it by its first picture. Raises `InputError`, `UsageError`."""
        self._connect()
        for frame in self._decoded():
            return describe_video(self.container, self._stream(), frame)
        raise InputError(f"{self.place.text}: no picture comes from it")

    def arrivals(self) -> Iterator[Arrival]:
        """Pictures in order. Those of a file begin at its beginning. Raises `InputError`."""
        if self.place.kind == "file":
            self.close()
        failures, began = 0, time.monotonic()
        while not self.ending.is_set():
            problem = "it has ended"
            try:
                if self.container is None:
                    self._connect()
                frames = self._played() if self.place.kind == "file" else self._coming(began)
                for arrival in frames:
                    failures = 0
                    yield arrival
                    if self.ending.is_set():
                        return
            except (InputError, *NETWORK_ERRORS) as error:
                if self.place.kind == "file":
                    raise
                problem = first_line(error)
            self.close()
            if self.place.kind == "file":
                if not self.loop:
                    return
                continue
            if not failures:
                self.note(f"{self.place.text} broke off ({problem}): trying again")
            self.reconnections += 1
            self.ending.wait(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    def close(self) -> None:
        """Close the source."""
        container, self.container = self.container, None
        if container is not None:
            container.close()

    def _connect(self) -> None:
        place = self.place
        if place.kind == "file":
            self.container = open_video(Path(place.url))
        else:
            if place.format is not None and place.format not in av.formats_available:
                raise UnavailableError(f"{place.text}: this PyAV has no {place.format}")
            listens = "listen" in (place.options.get("rtsp_flags"), place.options.get("mode", "")[:6])
            listens = listens or "listen" in place.options
            try:
                self.container = av.open(
                    place.url,
                    "r",
                    format=place.format,
                    options={**place.options, "max_pixels": str(MAX_PIXELS)},
                    timeout=None if listens else (WAIT, WAIT),
                    metadata_errors="replace",
                )
            except (ValueError, *NETWORK_ERRORS) as error:
                raise InputError(f"{place.text}: cannot be opened ({first_line(error)})") from error
        stream = self._stream()
        stream.thread_type = "SLICE"  # threads that take a frame each keep as many frames back
        stream.codec_context.flags |= Flags.low_delay

    def _stream(self) -> av.VideoStream:
        return main_video_stream(self.container, Path(self.place.text))

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Pictures as fast as they can be read; what is damaged is left out."""
        for packet in self.container.demux(self._stream()):
            try:
                for frame in packet.decode():
                    assert isinstance(frame, av.VideoFrame)
                    yield frame
            except av.error.FFmpegError:
                continue
            if self.ending.is_set():
                return

    def _coming(self, began: float) -> Iterator[Arrival]:
        for frame in self._decoded():
            now = time.monotonic()
            yield Arrival(frame, now, now - began)

    def _played(self) -> Iterator[Arrival]:
        """Pictures of a file when they are due."""
        begin: float | None = None
        for frame in self._decoded():
            seconds = frame.time or 0.0
            now = time.monotonic()
            if begin is None or now - (begin + seconds) > BEHIND:
                begin = now - seconds
            due = begin + seconds
            if due > now and self.ending.wait(due - now):
                return
            yield Arrival(frame, due, seconds)


def check_readable(place: Place) -> None:
    """Raise `UsageError` for a file that is not there, before a model is loaded."""
    if place.kind == "file" and not Path(place.url).is_file():
        raise UsageError(f"no such file: {place.url}")


def noise_like(info: StreamInfo) -> av.VideoFrame:
    """A picture of noise as a source of this description decodes them, in its size and pixel format."""
    noise = np.random.default_rng(0).integers(0, 256, (info.height, info.width, 3), np.uint8)
    turned = np.rot90(noise, info.rotation // 90) if info.rotation else noise
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(turned), "rgb24")
    return frame.reformat(format=info.pixel_format)
