"""Interlaced video: whether it is one, by its marks and its pictures, and whole pictures of its fields.

The pictures are looked at by FFmpeg's `idet` and made whole by its `bwdif` (Bob Weaver with the edge-directed
interpolation of w3fdif), which keeps what stands still at full resolution.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from cgconvert.errors import InputError
from cgconvert.frames import StreamInfo
from cgconvert.media.video.open import main_video_stream, open_video

LOOK = 12
"""Frames that are looked at, from a third of the video on, where it has seldom begun with black still."""

CLEAR = 6
"""Frames with the marks of fields from which a video counts as interlaced that does not say so."""

BROADCAST_HEIGHTS = frozenset((480, 486, 512, 576, 608, 1080, 1088))
"""Heights of formats that have fields. Others are looked at only if they say that they are interlaced."""

MODES = ("auto", "double", "off", "refuse")


@dataclass(frozen=True)
class Deinterlacing:
    """How fields become whole pictures: `order` is "tff" or "bff", by the field that is shown first.

    Each frame gives one picture, or two where `double`, one for each field and half a frame's time apart.
    """

    order: str
    double: bool = False

    @property
    def pictures(self) -> int:
        """Pictures that a frame becomes."""
        return 2 if self.double else 1

    def described(self, info: StreamInfo) -> StreamInfo:
        """What is known of the stream of whole pictures."""
        count = self.pictures
        return StreamInfo(
            **{
                **info.__dict__,
                "field_order": "",
                "time_base": info.time_base / count,
                "rate": info.rate * count,
                "frames": info.frames * count if info.frames else None,
            }
        )


def choose_deinterlacing(path: Path, info: StreamInfo, mode: str) -> tuple[Deinterlacing | None, list[str]]:
    """Decide whether a video's fields are joined, as asked by one of `MODES`, and what there is to say.

    Raises `InputError` if it is interlaced and `mode` is "refuse".
    """
    if mode == "off" or not (info.field_order or info.height in BROADCAST_HEIGHTS):
        return None, []
    seen = look_for_fields(path, info)
    fields, whole = seen["tff"] + seen["bff"], seen["progressive"]
    marked = bool(info.field_order)
    if marked and whole > fields:
        return None, [
            "the video is marked as interlaced, but its frames are whole pictures and stay as they are"
        ]
    if not marked and (fields < CLEAR or fields <= 4 * whole):
        return None, []
    order = info.field_order or max("tff", "bff", key=lambda name: seen[name])
    first = "top" if order == "tff" else "bottom"
    said = f"interlaced, {first} field first" + ("" if marked else ", though it is not marked so")
    if mode == "refuse":
        raise InputError(f'{path}: {said}: use `deinterlace="auto"` to make whole pictures of its fields')
    chosen = Deinterlacing(order, mode == "double")
    each = "a picture of each field" if chosen.double else "one picture of each frame's two fields"
    return chosen, [f"{said}: {each} (bwdif), {float(info.rate * chosen.pictures):g} pictures/s"]


def look_for_fields(path: Path, info: StreamInfo) -> Counter[str]:
    """Count frames that show their top field first ("tff"), the bottom one ("bff"), or are "progressive".

    Frames in which nothing moves are neither.
    """
    seen: Counter[str] = Counter()
    with open_video(path) as container:
        stream = main_video_stream(container, path)
        stream.thread_type = "AUTO"
        try:
            if info.duration and info.duration > 1:
                third = round(Fraction(info.duration) / 3 / info.time_base)
                container.seek((stream.start_time or 0) + third, stream=stream)
            looking = FrameFilter("idet", info.time_base)
            for frame in itertools.islice(container.decode(stream), LOOK):
                seen.update(_kinds(looking(frame)))
            seen.update(_kinds(looking.finish()))
        except av.error.FFmpegError:  # what is damaged there is told when it is converted
            pass
    return seen


def _kinds(frames: Iterator[av.VideoFrame]) -> Iterator[str]:
    return (frame.metadata.get("lavfi.idet.multiple.current_frame", "") for frame in frames)


class FrameFilter:
    """Frames through one of FFmpeg's filters, which gives them later than it takes them.

    A frame of another size or format than those before begins anew.
    """

    def __init__(self, name: str, time_base: Fraction, options: str = "") -> None:
        self.name, self.time_base, self.options = name, time_base, options
        self.graph: av.filter.Graph | None = None
        self.kind: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """The frames that are ready after this one."""
        kind = frame.width, frame.height, frame.format.name
        if kind != self.kind:
            yield from self.finish()
            self.graph, self.kind = self._build(frame), kind
        assert self.graph is not None
        frame.time_base = self.time_base
        self.graph.push(frame)
        yield from self._ready()

    def finish(self) -> Iterator[av.VideoFrame]:
        """The frames that are left."""
        if self.graph is not None:
            self.graph.push(None)
            yield from self._ready()
        self.graph = self.kind = None

    def _ready(self) -> Iterator[av.VideoFrame]:
        assert self.graph is not None
        while True:
            try:
                frame = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, av.VideoFrame)
            yield frame

    def _build(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        begin = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self.time_base
        )
        work, end = graph.add(self.name, self.options), graph.add("buffersink")
        begin.link_to(work)
        work.link_to(end)
        graph.configure()
        return graph


class Deinterlacer:
    """Decoded frames to whole pictures, with pts in units of `Deinterlacing.described`'s time base."""

    def __init__(self, how: Deinterlacing, time_base: Fraction) -> None:
        self.how = how
        mode = "send_field" if how.double else "send_frame"
        # bwdif gives pts in half of its input's units.
        options = f"mode={mode}:parity={how.order}:deint=all"
        self.filter = FrameFilter("bwdif", time_base * how.pictures, options)

    def __call__(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """The pictures that are ready after this frame; None: all that are left."""
        for picture in self.filter(frame) if frame is not None else self.filter.finish():
            if not self.how.double:
                picture.pts = picture.pts // 2 if picture.pts is not None else None
                picture.duration = (picture.duration or 0) // 2
            yield picture
