"""Single frames of a video by their number, as a conversion sees them: upright, in the right colours."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from cgconvert.media.video.colour import ToPixels
from cgconvert.media.video.open import main_video_stream, open_video
from cgconvert.media.video.probe import probe
from cgconvert.media.video.source import INDEXED


class VideoFrames:
    """The frames of a video's main stream, numbered from 0 in the order in which they are shown.

    Opening reads the packets of the stream once without decoding them. Nothing stays open afterwards, so that
    several threads may read at once. Raises `UsageError` and `InputError` like `open_video` and `probe`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = probe(path)
        times, keyframes = array("q"), array("q")
        self._count = 0
        with open_video(path) as container:
            # Elsewhere a frame is only found by counting from the beginning.
            seekable = container.format.name in INDEXED
            for packet in _packets(container, path):
                if packet.pts is None:
                    seekable = False
                    self._count += 1
                    continue
                if packet.is_keyframe:
                    keyframes.append(packet.pts)
                if not packet.is_discard:  # an edit list hides the others
                    times.append(packet.pts)
                    self._count += 1
        self._times, self._keyframes = array("q", sorted(times)), array("q", sorted(keyframes))
        distinct = all(a < b for a, b in itertools.pairwise(self._times))
        self._seekable = seekable and distinct and bool(keyframes)

    def __len__(self) -> int:
        return self._count

    def read(self, numbers: Iterable[int]) -> Generator[tuple[int, np.ndarray], None, None]:
        """The frames with these numbers in ascending order: (number, uint8 or uint16 RGB (H, W, 3)).

        They are decoded one after the other, each from the keyframe before it where the format can be
        searched (MP4, MOV, Matroska, WebM) and from the beginning of the file otherwise. A frame that
        is not there or cannot be decoded is left out.
        """
        wanted = sorted(number for number in set(numbers) if 0 <= number < self._count)
        to_pixels = ToPixels(self.info, self.info.width, self.info.height)
        with open_video(self.path) as container:
            main_video_stream(container, self.path).thread_type = "AUTO"
            found = self._sought(container, wanted) if self._seekable else self._counted(container, wanted)
            for number, frame in found:
                yield number, to_pixels(frame)

    def _sought(self, container: InputContainer, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames that share a keyframe are decoded together."""
        for place, group in itertools.groupby(wanted, self._keyframe_before):
            missing = {self._times[number]: number for number in group}
            # A search can miss by a keyframe or two, since frames are not stored in the order of their times.
            for start in dict.fromkeys((place, max(place - 2, 0))):
                last = max(missing)
                for frame in _decoded_from(container, self.path, self._keyframes[start]):
                    if frame.pts in missing:
                        yield missing.pop(frame.pts), frame
                    if frame.pts is not None and frame.pts >= last:
                        break
                if not missing:
                    break

    def _keyframe_before(self, number: int) -> int:
        return max(bisect_right(self._keyframes, self._times[number]) - 1, 0)

    def _counted(self, container: InputContainer, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        chosen = set(wanted)
        for number, frame in enumerate(_decoded_from(container, self.path)):
            if number in chosen:
                yield number, frame
            if number >= max(chosen):
                return


def _packets(container: InputContainer, path: Path) -> Iterator[av.Packet[av.VideoStream]]:
    """Packets of the main stream, up to the end or to where the file cannot be read on."""
    try:
        for packet in container.demux(main_video_stream(container, path)):
            if packet.size:
                yield packet
    except (av.error.FFmpegError, OSError):
        return


def _decoded_from(container: InputContainer, path: Path, pts: int | None = None) -> Iterator[av.VideoFrame]:
    """Frames in the order of their times, from the keyframe at or before `pts`; None: from the first.

    Damaged data is passed over, as a conversion does.
    """
    stream = main_video_stream(container, path)
    if pts is not None:
        container.seek(pts, stream=stream)
    for packet in _packets(container, path):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue
    try:
        yield from stream.decode(None)  # what the decoder still holds
    except av.error.FFmpegError:
        return
