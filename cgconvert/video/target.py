"""Where a video's result goes, which container it gets, and what that container and codec cannot keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cgconvert.errors import OutputError, UnavailableError, UsageError
from cgconvert.host.files import output_error
from cgconvert.host.objects import AnyPath
from cgconvert.media.video.codecs import (
    CONTAINERS,
    FALLBACK_SUFFIXES,
    find_codec,
    has_alpha,
    held_by,
    sample_depth,
)
from cgconvert.media.video.encoder import Encoding
from cgconvert.media.video.probe import VideoProbe
from cgconvert.media.video.sink import check_writable
from cgconvert.media.video.streams import StreamPlan, plan_streams
from cgconvert.options import VideoOptions


@dataclass(frozen=True)
class Place:
    """A folder and the name of a result in it. What the source holds decides whether its suffix stays.

    `is_shared`: another result there differs in its suffix only, so a new suffix is added to the old one.
    """

    folder: AnyPath
    name: str
    is_shared: bool = False

    def path(self, suffix: str) -> AnyPath:
        """The result's path if it gets this suffix, which is in lower case."""
        own = Path(self.name)
        if own.suffix.lower() == suffix:
            return self.folder / self.name
        return self.folder / f"{self.name if self.is_shared else own.stem}{suffix}"

    def paths(self) -> list[AnyPath]:
        """Every path that the result can have."""
        own = Path(self.name).suffix.lower()
        suffixes = [own] if own in CONTAINERS else []
        return [self.path(suffix) for suffix in dict.fromkeys([*suffixes, *FALLBACK_SUFFIXES])]


def beside(source: AnyPath, folder: AnyPath, model: str) -> Place:
    """Return the place in a folder that is called like the source and the model: NAME.MODEL.EXT."""
    return Place(folder, f"{source.stem}.{model}{source.suffix.lower()}")


def choose_target(
    video: VideoProbe, output: Path | Place | None, model: str, options: VideoOptions
) -> tuple[Path, list[str]]:
    """Return the result's path and notes on its container.

    An `output` of None puts it beside the source, a folder puts it there, both times as NAME.MODEL.EXT.
    Raises `OutputError`, `UsageError`.
    """
    source = video.path
    notes: list[str] = []
    try:
        if output is None or (isinstance(output, Path) and output.is_dir()):
            output = beside(source, output or source.parent, model)
        if isinstance(output, Place):
            suffix, notes = _choose_suffix(video, options)
            place = output.path(suffix)
            assert isinstance(place, Path)  # objects are staged
            target = place
        else:
            target = output
        if target.exists() and target.samefile(source):
            raise UsageError(f"{target} is the source itself: choose another `output`")
        taken = target.exists() or target.is_symlink()
    except OSError as error:
        raise output_error(output if isinstance(output, Path) else source, error) from error
    if taken and not options.overwrite:
        raise OutputError(f"{target} exists already: use `overwrite` to replace it, or another `output`")
    return target, notes


def _choose_suffix(video: VideoProbe, options: VideoOptions) -> tuple[str, list[str]]:
    """Return the source's suffix if its container holds codec and streams, else another with the reason."""
    suffix = video.path.suffix.lower()
    # The fallback is the container that drops the fewest streams of those that can hold the codec.
    able = [other for other in FALLBACK_SUFFIXES if _holds_codec(other, options)]
    fallback = min(able, key=lambda other: _count_dropped(video, other))
    if suffix not in CONTAINERS:
        return fallback, [f"{suffix or 'no suffix'} cannot be written: the result is {fallback}"]
    if not _holds_codec(suffix, options):
        codec = options.codec or CONTAINERS[suffix][1]
        return fallback, [f"{suffix} cannot hold {codec}: the result is {fallback}"]
    if _count_dropped(video, fallback) < _count_dropped(video, suffix):
        return fallback, [f"{suffix} cannot hold every stream: the result is {fallback}"]
    return suffix, []


def _holds_codec(suffix: str, options: VideoOptions) -> bool:
    muxer, default_codec = CONTAINERS[suffix]
    return find_codec(options.codec or default_codec).codec in held_by(muxer)


def _count_dropped(video: VideoProbe, suffix: str) -> int:
    plans = plan_streams(video.streams, CONTAINERS[suffix][0])
    return sum(plan.action in ("dropped", "encoded") for plan in plans)


def plan_writable_streams(
    video: VideoProbe, target: Path, muxer: str, encoding: Encoding
) -> tuple[StreamPlan, ...]:
    """Plan what happens to every stream, and try it on the container. Streams that it refuses are dropped.

    Raises `UnavailableError` if the converted video itself cannot be written.
    """
    streams = plan_streams(video.streams, muxer)
    try:
        check_writable(video, target, muxer, encoding, streams)
        return tuple(streams)
    except UnavailableError:
        converted = [stream for stream in streams if stream.action == "converted"]
        check_writable(video, target, muxer, encoding, converted)
    settled: list[StreamPlan] = []
    for stream in streams:
        if stream.action in ("copied", "encoded"):
            try:
                check_writable(video, target, muxer, encoding, [*converted, stream])
            except UnavailableError:
                stream = replace(stream, action="dropped", reason=f"{muxer} refuses it")
        settled.append(stream)
    return tuple(settled)


def dropped_metadata(
    video: VideoProbe, target: Path, muxer: str, encoding: Encoding, streams: Sequence[StreamPlan]
) -> list[str]:
    """Say in words what of the source the result cannot keep, apart from whole streams."""
    info = video.info
    notes: list[str] = []
    depth = sample_depth(encoding.pixel_format)
    encoder = encoding.codec.encoder + (" with alpha" if has_alpha(encoding.pixel_format) else "")
    if depth < info.bit_depth:
        notes.append(f"{info.bit_depth} bits a channel become {depth}: {encoder} has no more")
    if muxer in ("matroska", "webm"):
        kept = {plan.index for plan in streams if plan.action in ("copied", "converted")}
        early = -video.first_time(kept)
        if early > 0:
            notes.append(
                f"{target.suffix} has no times before zero: everything comes "
                f"{float(early) * 1000:.0f} ms later"
            )
    return notes
