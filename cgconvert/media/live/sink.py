"""Sends live results to a device, a stream or a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from cgconvert.errors import OutputError, UnavailableError, first_line
from cgconvert.frames import StreamInfo
from cgconvert.host.files import atomic_path
from cgconvert.media.live.places import WAIT, Place
from cgconvert.media.video.colour import FromPixels

TICKS = Fraction(1, 90000)
PAUSE = 2.0
"""Seconds between attempts to reach a stream that broke off."""

MATRIX = {True: 1, False: 6}
"""H.273's matrix of results: BT.709 from 720 lines on, BT.601 below, as players take untagged ones."""

ENCODER = {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}
"""Of x264: every picture leaves it at once."""

ERRORS = (av.error.FFmpegError, OSError)


class StreamSink:
    """Encodes results as they come. A stream that breaks off is connected again, and `note` is told."""

    def __init__(
        self, place: Place, info: StreamInfo, note: Callable[[str], None], overwrite: bool = False
    ) -> None:
        """`info` describes the source; results have its upright size. Raises `OutputError` for a file."""
        self.place, self.note = place, note
        self.is_device = place.format == "v4l2"
        width, height = (edge // 2 * 2 for edge in (max(info.width, 2), max(info.height, 2)))
        self.size, self.rate = (width, height), info.rate
        told = replace(
            info,
            rotation=0,
            pixel_format="yuv420p",
            bit_depth=8,
            colorspace=MATRIX[height >= 720],
            color_range=1,
            color_primaries=1,
            color_trc=1,
            siting=(0.0, 0.5),
        )
        self.to_frame = FromPixels(told, width, height, "yuv420p")
        self.container: Any = None
        self.stream: Any = None
        self.last_pts = -1
        self.lost = 0
        """Results that found the stream broken."""
        self.retry_at = 0.0
        self.reconnections = 0
        self.stack = ExitStack()
        self.url = place.url
        if place.kind == "file":
            self.url = str(self.stack.enter_context(atomic_path(Path(place.url), overwrite)))
        elif place.format is not None:
            try:
                av.format.ContainerFormat(place.format, "w")
            except ValueError as error:
                raise UnavailableError(f"{place.text}: this PyAV writes no {place.format}") from error

    def open(self) -> None:
        """Connect. Raises `OutputError`."""
        try:
            self._connect()
        except ERRORS as error:
            raise OutputError(f"{self.place.text}: cannot be opened ({first_line(error)})") from error

    def put(self, pixels: np.ndarray, seconds: float) -> bool:
        """Send a result, (H, W, 3), of this time in the source; whether it was sent. Raises `OutputError`."""
        if self.container is None and not self._again():
            self.lost += 1
            return False
        pts = max(round(seconds / TICKS), self.last_pts + 1)
        self.last_pts = pts
        try:
            frame = self.to_frame(pixels, pts, TICKS, 0)
            self.container.mux(self.stream.encode(frame))
        except ERRORS as error:
            if self.place.kind == "file":
                raise OutputError(f"{self.place.text}: cannot be written ({first_line(error)})") from error
            self.note(f"{self.place.text} broke off ({first_line(error)}): trying again")
            self._drop()
            self.lost += 1
            return False
        return True

    def close(self, keep: bool = True) -> None:
        """End the stream; a file appears at its name if it is to be kept. Raises `OutputError`."""
        container, self.container = self.container, None
        try:
            if container is not None and keep:
                container.mux(self.stream.encode(None))
            if container is not None:
                container.close()
        except ERRORS as error:
            if self.place.kind == "file" and keep:
                problem = OutputError(f"{self.place.text}: cannot be written ({first_line(error)})")
                self.stack.__exit__(type(problem), problem, None)
                raise problem from error
        if keep and self.last_pts >= 0:
            self.stack.close()
        else:
            nothing = OutputError(f"{self.place.text}: there was no picture for it")
            with suppress(OutputError):
                self.stack.__exit__(type(nothing), nothing, None)

    def _connect(self) -> None:
        container = av.open(
            self.url,
            "w",
            format=self.place.format,
            # What is shown is on the disk or on its way at once, whatever happens next.
            options={"flush_packets": "1", **self.place.options},
            timeout=None if self.place.kind == "file" else (WAIT, WAIT),
        )
        try:
            if self.is_device:
                stream: Any = container.add_stream("rawvideo", rate=round(self.rate))
            else:
                gop = {"g": str(max(1, round(2 * self.rate)))}
                stream = container.add_stream("libx264", rate=self.rate, options={**ENCODER, **gop})
            stream.width, stream.height = self.size
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = TICKS
            container.start_encoding()
        except BaseException:
            with suppress(*ERRORS):
                container.close()
            raise
        self.container, self.stream, self.last_pts = container, stream, -1

    def _again(self) -> bool:
        if time.monotonic() < self.retry_at:
            return False
        self.reconnections += 1
        try:
            self._connect()
        except ERRORS:
            self.retry_at = time.monotonic() + PAUSE
            return False
        return True

    def _drop(self) -> None:
        container, self.container = self.container, None
        self.retry_at = time.monotonic() + PAUSE
        with suppress(*ERRORS):
            container.close()
