"""Where a video's result goes, which container it gets, and what that container and codec cannot keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cgconvert.errors import OutputError, UnavailableError, UsageError
from cgconvert.frames import StreamInfo
from cgconvert.host.files import output_error
from cgconvert.media.video.codecs import (
    CONTAINERS,
    FALLBACK_SUFFIXES,
    find_codec,
    has_alpha,
    held_by,
    sample_depth,
)
from cgconvert.media.video.encoder import Encoding
from cgconvert.media.video.sink import check_writable
from cgconvert.media.video.streams import StreamPlan, first_time, plan_streams
from cgconvert.options import VideoOptions


def choose_target(
    source: Path, output: Path | None, model: str, options: VideoOptions
) -> tuple[Path, list[str]]:
    """The result's path, and what there is to say about its container.

    `output` None: beside the source; a folder: in it; as NAME.MODEL.EXT. Raises `OutputError`, `UsageError`.
    """
    notes: list[str] = []
    try:
        folder = source.parent if output is None else output if output.is_dir() else None
        if folder is None:
            assert output is not None
            target = output
        else:
            target = folder / f"{source.stem}.{model}{_suffix(source, options, notes)}"
        if target.exists() and target.samefile(source):
            raise UsageError(f"{target} is the source itself: choose another `output`")
        taken = target.exists() or target.is_symlink()
    except OSError as error:
        raise output_error(output or source, error) from error
    if taken and not options.overwrite:
        raise OutputError(f"{target} exists already: use `overwrite` to replace it, or another `output`")
    return target, notes


def _suffix(source: Path, options: VideoOptions, notes: list[str]) -> str:
    """The source's own suffix if its container can hold codec and streams, else the first that can."""
    suffix = source.suffix.lower()
    if suffix not in CONTAINERS:
        chosen = _fallback(source, options)
        notes.append(f"{suffix or 'no suffix'} cannot be written: the result is {chosen}")
        return chosen
    muxer, default_codec = CONTAINERS[suffix]
    codec = options.codec or default_codec
    if find_codec(codec).codec not in held_by(muxer):
        chosen = _fallback(source, options)
        notes.append(f"{suffix} cannot hold {codec}: the result is {chosen}")
        return chosen
    dropped = _dropped(source, muxer)
    if dropped:
        chosen = _fallback(source, options)
        if _dropped(source, CONTAINERS[chosen][0]) < dropped:
            notes.append(f"{suffix} cannot hold every stream: the result is {chosen}")
            return chosen
    return suffix


def _dropped(source: Path, muxer: str) -> int:
    return sum(plan.action == "dropped" for plan in plan_streams(source, muxer))


def _fallback(source: Path, options: VideoOptions) -> str:
    """Of the containers that can hold the codec the one that drops fewest streams, the first if equal."""
    able = []
    for suffix in FALLBACK_SUFFIXES:
        muxer, default_codec = CONTAINERS[suffix]
        if find_codec(options.codec or default_codec).codec in held_by(muxer):
            able.append(suffix)
    return min(able, key=lambda suffix: _dropped(source, CONTAINERS[suffix][0]))


def writable_streams(
    source: Path,
    target: Path,
    muxer: str,
    info: StreamInfo,
    encoding: Encoding,
    streams: Sequence[StreamPlan],
) -> tuple[StreamPlan, ...]:
    """The streams after a trial: those that the container refuses after all are dropped, with its reason.

    Raises `UnavailableError` where the video itself cannot be written.
    """
    try:
        check_writable(source, target, muxer, info, encoding, streams)
        return tuple(streams)
    except UnavailableError:
        video = [stream for stream in streams if stream.action == "converted"]
        check_writable(source, target, muxer, info, encoding, video)
    settled: list[StreamPlan] = []
    for stream in streams:
        if stream.action == "copied":
            try:
                check_writable(source, target, muxer, info, encoding, [*video, stream])
            except UnavailableError:
                stream = replace(stream, action="dropped", reason=f"{muxer} refuses it")
        settled.append(stream)
    return tuple(settled)


def losses(
    source: Path,
    target: Path,
    muxer: str,
    info: StreamInfo,
    encoding: Encoding,
    streams: Sequence[StreamPlan],
) -> list[str]:
    """What the result cannot keep of the source, other than whole streams, in words."""
    notes: list[str] = []
    if has_alpha(info.pixel_format):
        notes.append("the video's transparency (alpha) is lost: networks and most codecs know only RGB")
    depth = sample_depth(encoding.pixel_format)
    if depth < info.bit_depth:
        notes.append(f"{info.bit_depth} bits a channel become {depth}: {encoding.codec.encoder} has no more")
    if muxer in ("matroska", "webm"):
        kept = frozenset(plan.index for plan in streams if plan.action in ("copied", "converted"))
        early = -first_time(source, kept)
        if early > 0:
            notes.append(
                f"{target.suffix} has no times before zero: everything comes "
                f"{float(early) * 1000:.0f} ms later"
            )
    return notes
