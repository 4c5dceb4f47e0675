"""The other streams of a video: which of them a container can hold unchanged, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer

from cgconvert.media.video.codecs import held_by
from cgconvert.media.video.open import OPEN_OPTIONS

TIME_CODE = "from its time code"


@dataclass(frozen=True)
class StreamPlan:
    """What happens to a stream of the source, converted, copied, encoded, rewritten or dropped, and why."""

    index: int
    kind: str
    codec: str
    action: str
    reason: str = ""

    def goes_into_header(self, muxer: str) -> bool:
        """Whether it is part of the file's header, as attachments are, and covers in Matroska."""
        return self.kind == "attachment" or (self.kind == "cover" and muxer == "matroska")

    def describe(self) -> str:
        """Return a line such as `#2 subtitle (mov_text): dropped, webm cannot hold it`."""
        why = f", {self.reason}" if self.reason else ""
        return f"#{self.index} {self.kind} ({self.codec}): {self.action}{why}"


@dataclass(frozen=True)
class SourceStream:
    """A stream of the source as its container describes it.

    `kind` is FFmpeg's name for the type, or "cover". `is_main` marks the video that is converted. `begins` is
    the earliest time of its first packets in seconds, or None. `origin` says from what a QuickTime data track
    can be written again, and is "" for all other streams.
    """

    index: int
    kind: str
    codec: str
    is_main: bool = False
    begins: Fraction | None = None
    origin: str = ""


def describe_stream(stream: Any, container: InputContainer, is_main: bool) -> SourceStream:
    """Describe one stream of a container."""
    is_cover = stream.disposition & av.stream.Disposition.attached_pic
    context = stream.codec_context
    origin = ""
    if container.format.name.startswith("mov,") and stream.type in ("data", "unknown"):
        if stream.frames and stream.frames == len(container.chapters()):
            origin = "from the video's chapters"
        elif "timecode" in stream.metadata:
            origin = TIME_CODE
    return SourceStream(
        index=stream.index,
        kind="cover" if is_cover else stream.type,
        codec="unknown" if context is None else context.codec.canonical_name,
        is_main=is_main,
        origin=origin,
    )


def plan_streams(streams: Sequence[SourceStream], muxer: str) -> list[StreamPlan]:
    """Plan what happens to every stream of a video in a container format."""
    return [
        StreamPlan(stream.index, stream.kind, stream.codec, *_action(stream, muxer, held_by(muxer)))
        for stream in streams
    ]


def _action(stream: SourceStream, muxer: str, supported: frozenset[str]) -> tuple[str, str]:
    """Return what happens to a stream, and why."""
    if stream.is_main:
        return "converted", ""
    if stream.kind == "attachment":
        if muxer == "matroska":
            return "copied", ""
        return "dropped", f"{muxer} has no attachments; mkv has"
    if stream.kind in ("data", "unknown"):
        if stream.origin and (stream.origin != TIME_CODE or muxer in ("mov", "mp4")):
            return "rewritten", stream.origin
        return "dropped", "data tracks cannot be carried over"
    if (
        stream.codec not in supported
        and stream.kind == "audio"
        and muxer == "webm"
        and _decodes(stream.codec)
    ):
        return "encoded", f"as Opus, since {muxer} cannot hold it"
    if stream.codec not in supported:
        return "dropped", f"{muxer} cannot hold it{'' if muxer == 'matroska' else '; mkv may'}"
    return "copied", ""


def _decodes(codec: str) -> bool:
    try:
        return bool(av.codec.Codec(codec, "r"))
    except ValueError:  # UnknownCodecError
        return False


def read_cover(url: str, index: int) -> bytes:
    """Return the picture file in a cover stream, or no bytes if there is none."""
    with av.open(url, "r", options=dict(OPEN_OPTIONS), metadata_errors="replace") as container:
        for packet in container.demux(container.streams[index]):
            if packet.size:
                return bytes(packet)
    return b""
