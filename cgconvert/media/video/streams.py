"""The other streams of a video: which of them a container can take over unchanged, and why not the rest."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from cgconvert.media.video.codecs import held_by
from cgconvert.media.video.open import OPEN_OPTIONS, main_video_stream, open_video

LOOK_AHEAD = 200
"""Packets within which every stream should have begun."""


@dataclass(frozen=True)
class StreamPlan:
    """What happens to a stream of the source: `converted`, `copied`, `rewritten` or `dropped`, and why."""

    index: int
    kind: str
    codec: str
    action: str
    reason: str = ""

    def goes_into_header(self, muxer: str) -> bool:
        """Whether it is written with the beginning of the file: attachments, in Matroska covers as well."""
        return self.kind == "attachment" or (self.kind == "cover" and muxer == "matroska")

    def describe(self) -> str:
        """For a person: `#2 subtitle (mov_text): dropped, webm cannot hold it`."""
        why = f", {self.reason}" if self.reason else ""
        return f"#{self.index} {self.kind} ({self.codec}): {self.action}{why}"


def codec_name(stream: Any) -> str:
    """The name of a stream's codec, or "unknown"."""
    context = stream.codec_context
    return "unknown" if context is None else context.codec.canonical_name


def plan_streams(path: Path, muxer: str) -> list[StreamPlan]:
    """What to do with every stream of a video, going into a container format. Raises `InputError`."""
    with open_video(path) as container:
        main = main_video_stream(container, path)
        supported = held_by(muxer)
        return [_plan(stream, stream == main, muxer, supported, container) for stream in container.streams]


def _plan(
    stream: Any, is_main: bool, muxer: str, supported: set[str], container: InputContainer
) -> StreamPlan:
    kind, codec = stream.type, codec_name(stream)
    if stream.disposition & av.stream.Disposition.attached_pic:
        kind = "cover"
    if is_main:
        return StreamPlan(stream.index, kind, codec, "converted")
    if kind == "attachment":
        if muxer == "matroska":
            return StreamPlan(stream.index, kind, codec, "copied")
        return StreamPlan(stream.index, kind, codec, "dropped", f"{muxer} has no attachments; mkv has")
    if kind in ("data", "unknown"):
        return _plan_data(stream, kind, codec, muxer, container)
    if codec not in supported:
        hint = "" if muxer == "matroska" else "; mkv may"
        return StreamPlan(stream.index, kind, codec, "dropped", f"{muxer} cannot hold it{hint}")
    return StreamPlan(stream.index, kind, codec, "copied")


def _plan_data(stream: Any, kind: str, codec: str, muxer: str, container: InputContainer) -> StreamPlan:
    """A data track: chapters and time codes are written anew from what they say, the others are lost."""
    is_quicktime = container.format.name.startswith("mov,")
    if is_quicktime and stream.frames and stream.frames == len(container.chapters()):
        return StreamPlan(stream.index, kind, codec, "rewritten", "from the video's chapters")
    if is_quicktime and "timecode" in stream.metadata and muxer in ("mov", "mp4"):
        return StreamPlan(stream.index, kind, codec, "rewritten", "from its time code")
    return StreamPlan(stream.index, kind, codec, "dropped", "data tracks cannot be carried over")


def first_time(path: Path, kept: frozenset[int]) -> Fraction:
    """The earliest time, in seconds, at which any of the kept streams begins; zero if none says.

    In Matroska it is zero: what its sound has before that is declared as delay, and comes back as such.
    """
    times: list[Fraction] = []
    with open_video(path) as container:
        if container.format.name == "matroska,webm":
            return Fraction(0)
        streams = [stream for stream in container.streams if stream.index in kept]
        waiting = {stream.index for stream in streams if stream.type in ("video", "audio")}
        for packet, _ in zip(container.demux(*streams), range(LOOK_AHEAD), strict=False):
            # Sound that an edit list hides is kept, for decoders need it; hidden subtitles are not.
            if packet.pts is not None and packet.time_base and packet.stream.type in ("video", "audio"):
                times.append(packet.pts * packet.time_base)
            waiting.discard(packet.stream.index)
            if not waiting:
                break
    return min(times, default=Fraction(0))


def read_cover(url: str, index: int) -> bytes:
    """The picture file that a cover stream holds, empty if it holds none."""
    with av.open(url, "r", options=dict(OPEN_OPTIONS), metadata_errors="replace") as container:
        for packet in container.demux(container.streams[index]):
            if packet.size:
                return bytes(packet)
    return b""
