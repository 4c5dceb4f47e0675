"""The pictures that a preview shows: frames of a video at some times, or pictures. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgconvert.errors import InputError, UsageError, printable
from cgconvert.frames import Frame, StreamInfo
from cgconvert.media.picture.codec import to_8_bit
from cgconvert.media.picture.formats import SUFFIXES, VIDEO_SUFFIXES
from cgconvert.media.picture.sequences import read_first
from cgconvert.media.video.fields import choose_deinterlacing
from cgconvert.media.video.probe import VideoProbe
from cgconvert.media.video.source import VideoSource
from cgconvert.progress import seconds_as_clock
from cgconvert.scale.files import Failure, find_files

MOST_PICTURES = 6
"""Pictures of a folder in a preview. Of more, evenly spaced ones are shown."""
DEFAULT_TIMES = 3
"""Frames of a video in a preview, if no times are given: in the middles of so many equal parts."""


@dataclass(frozen=True)
class Shot:
    """A frame or a picture: `pixels` are uint8 RGB (H, W, 3), upright and of the source's size.

    HDR is tone mapped and fields are joined, as a conversion does. `info` describes the video; None for
    pictures.
    """

    source: Path
    label: str
    pixels: np.ndarray
    info: StreamInfo | None = None


def is_picture(path: Path) -> bool:
    """Whether the name of a file is that of a picture."""
    return path.suffix.lower() in SUFFIXES


def is_video(path: Path) -> bool:
    """Whether the name of a file is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_picture_shot(path: Path) -> Shot:
    """Read a picture, or the first one of an animation. Raises `InputError`."""
    try:
        pixels = read_first(path).pixels
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from error
    return Shot(path, printable(path.name), to_8_bit(pixels))


def read_frame_shot(path: Path, seconds: float) -> Shot:
    """Read the first frame of a video at or after a time in seconds from its beginning, or else the last.

    Raises `UsageError` for a time past the end, and `InputError`.
    """
    with VideoProbe(path) as video:
        info = video.info
    if info.duration and seconds >= info.duration:
        raise UsageError(
            f"{seconds_as_clock(seconds)} is past the end of {printable(path)} "
            f"({seconds_as_clock(info.duration)})"
        )
    deinterlacing, _ = choose_deinterlacing(path, info, "auto")
    if deinterlacing is not None:
        info = deinterlacing.described(info)
    # Behind the last frame of a video there is time that it is shown for: then that one is looked for.
    for start, is_exact in ((seconds, True), (max(0.0, seconds - 1), False), (0.0, False)):
        found = None
        with VideoSource(
            path, info, (info.width, info.height), start=start or None, deinterlacing=deinterlacing
        ) as source:
            for item in source:
                if isinstance(item, Frame):
                    found = item
                    if is_exact:
                        break
        if found is not None:
            return Shot(path, seconds_as_clock(seconds), to_8_bit(found.pixels), info)
    raise InputError(f"{printable(path)}: no frame can be decoded at {seconds_as_clock(seconds)}")


def default_times(path: Path) -> list[float]:
    """Times in seconds that show a video of whatever length. Raises `InputError`, `UsageError`."""
    with VideoProbe(path) as video:
        duration = video.info.duration
    if not duration:
        return [0.0]
    return [duration * (2 * number + 1) / (2 * DEFAULT_TIMES) for number in range(DEFAULT_TIMES)]


def read_shots(sources: Sequence[Path], times: Sequence[float]) -> list[Shot]:
    """Read what a preview shows of videos, pictures and folders of pictures.

    `times` are seconds, for videos; empty: `DEFAULT_TIMES` of them. Raises `UsageError`, `InputError`.
    """
    shots: list[Shot] = []
    for path in sources:
        if path.is_dir():
            found = list(find_files(path, None, list[Failure](), SUFFIXES))
            if not found:
                raise UsageError(f"{printable(path)}: there is no picture in this folder")
            count = min(len(found), MOST_PICTURES)
            shots += [
                read_picture_shot(path / found[(2 * n + 1) * len(found) // (2 * count)]) for n in range(count)
            ]
        elif is_picture(path):
            shots.append(read_picture_shot(path))
        else:
            frames = [read_frame_shot(path, seconds) for seconds in times or default_times(path)]
            if len(sources) > 1:
                frames = [
                    Shot(path, f"{printable(path.name)} {shot.label}", shot.pixels, shot.info)
                    for shot in frames
                ]
            shots += frames
    return shots
