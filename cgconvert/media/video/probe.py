"""What a video says of itself before it is converted, and pictures from all over it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange

from cgconvert.errors import InputError
from cgconvert.frames import StreamInfo
from cgconvert.media.video.colour import ToPixels
from cgconvert.media.video.open import main_video_stream, open_video
from cgconvert.media.video.siting import siting_of


def probe(path: Path) -> StreamInfo:
    """What the video's main stream says of itself and of its first frame. Raises `InputError`."""
    with open_video(path) as container:
        stream = main_video_stream(container, path)
        frame = _first_frame(container, stream, path)
        assert stream.time_base is not None
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        duration = stream_duration(container, stream)
        rotation = -round(frame.rotation / 90) * 90 % 360
        size = (frame.height, frame.width) if rotation in (90, 270) else (frame.width, frame.height)
        aspect = stream.sample_aspect_ratio or None
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
        )


def _first_frame(container: InputContainer, stream: av.VideoStream, path: Path) -> av.VideoFrame:
    for packet in container.demux(stream):
        try:
            for frame in packet.decode():
                return frame
        except av.error.FFmpegError:
            continue
    raise InputError(f"{path}: no frame of its video can be decoded")


def stream_duration(container: InputContainer, stream: av.VideoStream) -> float | None:
    """Seconds of a stream as its container says them, None if it says nothing."""
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


def sample_pixels(path: Path, info: StreamInfo, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Up to `count` pictures (H, W, 3) spread evenly over a video, at `size` (width, height).

    What cannot be reached or decoded is left out; a video without a known length gives its first pictures.
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
