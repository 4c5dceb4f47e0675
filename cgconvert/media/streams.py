"""The other streams of a film: which of them a container can take over unchanged, and why not the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from cgconvert.media.codecs import held_by
from cgconvert.media.video_source import main_video_stream, open_film

CODEC_NAMES = {
    "libdav1d": "av1",
    "libvpx": "vp8",
    "libvpx-vp9": "vp9",
    "libopus": "opus",
    "libvorbis": "vorbis",
}
"""Decoders whose name is not the codec's."""


@dataclass(frozen=True)
class StreamPlan:
    """What happens to one stream of the source: `converted`, `copied` or `dropped`, and why."""

    index: int
    kind: str
    codec: str
    action: str
    reason: str = ""

    def describe(self) -> str:
        """For a person: `#2 subtitle (mov_text): dropped, webm cannot hold it`."""
        why = f", {self.reason}" if self.reason else ""
        return f"#{self.index} {self.kind} ({self.codec}): {self.action}{why}"


def codec_name(stream: Any) -> str:
    """The name of a stream's codec, or "unknown"."""
    context = stream.codec_context
    if context is None:
        return "unknown"
    return CODEC_NAMES.get(context.name, context.codec.canonical_name)


def plan_streams(path: Path, muxer: str) -> list[StreamPlan]:
    """What to do with every stream of a film, going into a container format. Raises `InputError`."""
    with open_film(path) as container:
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
        return StreamPlan(stream.index, kind, codec, "dropped", "data tracks cannot be carried over")
    if codec not in supported:
        return StreamPlan(stream.index, kind, codec, "dropped", f"{muxer} cannot hold it; mkv may")
    return StreamPlan(stream.index, kind, codec, "copied")
