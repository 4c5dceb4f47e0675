"""Reads from a video what its plan needs, and sample pictures from all over it."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange

from cgconvert.errors import InputError
from cgconvert.frames import StreamInfo
from cgconvert.media.video.colour import ToPixels
from cgconvert.media.video.open import main_video_stream, open_video
from cgconvert.media.video.siting import siting_of
from cgconvert.media.video.streams import describe_stream
from cgconvert.media.video.tags import read_field_order, read_hdr

LOOK_AHEAD = 200
"""The number of packets within which every stream should have begun."""


class VideoProbe:
    """A video opened once to plan its conversion.

    `info` describes the main video stream and its first frame, `streams` every stream in the order of the
    file. `container` stays open within the `with` block. Raises `UsageError`, `InputError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.container = open_video(path)
        try:
            main = main_video_stream(self.container, path)
            frame, begins = _read_beginning(self.container, main, path)
            self.info = describe_video(self.container, main, frame)
            self.streams = [
                replace(
                    describe_stream(stream, self.container, stream == main), begins=begins.get(stream.index)
                )
                for stream in self.container.streams
            ]
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoProbe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    def first_time(self, kept: Collection[int]) -> Fraction:
        """Return the earliest time in seconds at which a kept stream begins, or zero if none says.

        In Matroska it is zero, since sound before that is declared as delay and copied as such.
        """
        if self.container.format.name == "matroska,webm":
            return Fraction(0)
        times = [stream.begins for stream in self.streams if stream.index in kept]
        return min((time for time in times if time is not None), default=Fraction(0))


def probe(path: Path) -> StreamInfo:
    """Describe the main stream of a video and its first frame. Raises `UsageError`, `InputError`."""
    with VideoProbe(path) as video:
        return video.info


def frame_times(path: Path) -> list[int] | None:
    """The pts of all frames of the main stream in ascending order, read from its packets without decoding.

    None if a packet has none or two have the same, or if the file cannot be read to its end: then only a
    decoder can tell. Raises `UsageError`, `InputError`.
    """
    with open_video(path) as container:
        stream = main_video_stream(container, path)
        times: list[int | None] = []
        try:
            times = [packet.pts for packet in container.demux(stream) if packet.size]
        except (av.error.FFmpegError, OSError):
            return None
    known = sorted({time for time in times if time is not None})
    return known if len(known) == len(times) else None


def _read_beginning(
    container: InputContainer, main: av.VideoStream, path: Path
) -> tuple[av.VideoFrame, dict[int, Fraction]]:
    """Return the first frame of the main stream, and the times at which streams of sound and video begin.

    Sound that an edit list hides counts, since it is kept for decoders that need it. Hidden subtitles do not.
    """
    first: av.VideoFrame | None = None
    begins: dict[int, Fraction] = {}
    waiting = {stream.index for stream in container.streams if stream.type in ("video", "audio")}
    packets = container.demux()
    for number in itertools.count():
        try:
            packet = next(packets, None)
            if packet is None:
                break
            index = packet.stream.index
            if index in waiting or index in begins:
                waiting.discard(index)
                if packet.pts is not None and packet.time_base:
                    time = packet.pts * packet.time_base
                    begins[index] = min(time, begins.get(index, time))
            if first is None and packet.stream == main:
                frame = next(iter(packet.decode()), None)
                first = frame if isinstance(frame, av.VideoFrame) else None
        except av.error.FFmpegError:
            continue
        if first is not None and (not waiting or number >= LOOK_AHEAD):
            break
    if first is None:
        raise InputError(f"{path}: no frame of its video can be decoded")
    return first, begins


def describe_video(container: InputContainer, stream: av.VideoStream, frame: av.VideoFrame) -> StreamInfo:
    """Describe the main stream by its container and its first frame, which knows its format and colours."""
    assert stream.time_base is not None
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    duration = stream_duration(container, stream)
    rotation = -round(frame.rotation / 90) * 90 % 360
    size = (frame.height, frame.width) if rotation in (90, 270) else (frame.width, frame.height)
    aspect = stream.sample_aspect_ratio or None
    mastering_display, light_levels = read_hdr(frame)
    return StreamInfo(
        width=size[0],
        height=size[1],
        time_base=Fraction(stream.time_base),
        rate=Fraction(rate),
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        frames=stream.frames or (round(duration * rate) if duration else None),
        duration=duration,
        rotation=rotation,
        sample_aspect_ratio=1 / aspect if aspect and rotation in (90, 270) else aspect,
        colorspace=int(frame.colorspace),
        color_range=int(frame.color_range or ColorRange.UNSPECIFIED),
        color_primaries=int(frame.color_primaries),
        color_trc=int(frame.color_trc),
        siting=siting_of(frame),
        decoder=stream.codec_context.name,
        field_order=read_field_order(stream, frame),
        mastering_display=mastering_display,
        light_levels=light_levels,
        alpha_beside=stream.metadata.get("alpha_mode") == "1",
    )


def stream_duration(container: InputContainer, stream: av.stream.Stream) -> float | None:
    """Return the seconds of a stream by its container, or None if that says nothing."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = next((value for key, value in stream.metadata.items() if key.upper() == "DURATION"), "")
    parts = tag.split(":")
    if len(parts) == 3:
        try:
            return int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2])
        except ValueError:
            pass
    return container.duration / av.time_base if container.duration else None


def declared_bytes(path: Path, streams: Collection[int]) -> int:
    """Return the bytes of some streams by the bit rates that the container declares, 0 where it does not."""
    total = 0.0
    with open_video(path) as container:
        for index in streams:
            stream = container.streams[index]
            declared = stream.metadata.get("BPS") or getattr(stream.codec_context, "bit_rate", None) or 0
            seconds = stream_duration(container, stream)
            if str(declared).isdigit() and seconds:
                total += int(declared) * seconds / 8
    return round(total)


def sample_pixels(path: Path, info: StreamInfo, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Return up to `count` pictures (H, W, 3) spread evenly over a video, at `size` (width, height).

    Pictures that cannot be reached or decoded are left out. A video of unknown length gives its first ones.
    """
    pictures: list[np.ndarray] = []
    with open_video(path) as container:
        stream = main_video_stream(container, path)
        stream.thread_type = "AUTO"
        to_pixels = ToPixels(info, *size)
        for number in range(count):
            try:
                if info.duration:
                    seconds = Fraction(info.duration) * (2 * number + 1) / (2 * count)
                    container.seek((stream.start_time or 0) + round(seconds / info.time_base), stream=stream)
                pictures.append(to_pixels(next(container.decode(stream))))
            except (av.error.FFmpegError, StopIteration):
                continue
    return pictures
