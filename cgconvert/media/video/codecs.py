"""Codecs and containers: the encoder behind a codec's name, what it takes, and what a container holds."""

from __future__ import annotations

import difflib
import functools
import os
from dataclasses import dataclass, field
from pathlib import Path

import av

from cgconvert.errors import UsageError
from cgconvert.frames import StreamInfo


@dataclass(frozen=True)
class VideoCodec:
    """A codec as users name it.

    `encoder` and `codec` are FFmpeg's names for what writes it and for what is written. `quality_option` is
    the encoder's option that the parameter `crf` sets, within `quality_range`; "" means that it has none.
    `quality` and `preset` are defaults at which results are hard to tell from their source. `presets` lists
    all presets. With `odd_sizes` the encoder takes subsampled chroma even if a side is odd.
    `least_width` is the fewest pixels that a frame must have in width. `alpha_formats` are the pixel formats
    with transparency that are read back as they were written, where not all are.
    """

    encoder: str
    codec: str
    quality_option: str = "crf"
    quality: float | None = None
    quality_range: tuple[float, float] = (0, 51)
    preset_option: str = "preset"
    preset: str | None = None
    presets: tuple[str, ...] = ()
    odd_sizes: bool = False
    least_width: int = 1
    alpha_formats: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)


_X26X = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_NVENC = {
    "quality_option": "cq",
    "quality": 19.0,
    "preset": "p5",
    "presets": ("p1", "p2", "p3", "p4", "p5", "p6", "p7"),
    "options": {"rc": "vbr", "b": "0"},
}

VIDEO_CODECS: dict[str, VideoCodec] = {
    "h264": VideoCodec("libx264", "h264", quality=18, preset="medium", presets=_X26X),
    "h265": VideoCodec(
        "libx265",
        "hevc",
        quality=20,
        preset="medium",
        presets=_X26X,
        least_width=64,  # x265 writes beyond its own memory for narrower frames, which ends the process
        options={"x265-params": "log-level=error"},
    ),
    "av1": VideoCodec(
        "libsvtav1",
        "av1",
        quality=26,
        quality_range=(1, 63),
        preset="8",
        presets=tuple(map(str, range(14))),
        options={"g": "250"},  # key frames as in x264: where segments begin, so that these cost nothing
    ),
    "vp9": VideoCodec(
        "libvpx-vp9",
        "vp9",
        quality=24,
        quality_range=(0, 63),
        preset_option="cpu-used",
        preset="4",
        presets=tuple(map(str, range(9))),
        odd_sizes=True,
        alpha_formats=("yuva420p",),
        options={"b": "0", "row-mt": "1", "deadline": "good"},
    ),
    "prores": VideoCodec(
        "prores_ks",
        "prores",
        quality_option="",
        preset_option="profile",
        preset="hq",
        presets=("proxy", "lt", "standard", "hq", "4444", "4444xq"),
    ),
    "ffv1": VideoCodec(
        "ffv1", "ffv1", quality_option="", preset_option="", odd_sizes=True, options={"level": "3", "g": "1"}
    ),
    "h264_nvenc": VideoCodec("h264_nvenc", "h264", **_NVENC),  # type: ignore[arg-type]
    "hevc_nvenc": VideoCodec("hevc_nvenc", "hevc", **_NVENC),  # type: ignore[arg-type]
    "av1_nvenc": VideoCodec("av1_nvenc", "av1", **_NVENC),  # type: ignore[arg-type]
}

CONTAINERS: dict[str, tuple[str, str]] = {
    ".mp4": ("mp4", "h264"),
    ".m4v": ("mp4", "h264"),
    ".mov": ("mov", "h264"),
    ".mkv": ("matroska", "h264"),
    ".webm": ("webm", "vp9"),
}
"""FFmpeg's muxer by suffix, and the codec that is written into it if none is asked for."""

FALLBACK_SUFFIXES = (".mp4", ".mkv")
"""Containers for sources whose own cannot be written. MP4 keeps times exactly; Matroska rounds them to
milliseconds, but holds every stream."""


def find_codec(name: str) -> VideoCodec:
    """Return the codec of this name. Raises `UsageError`, which names the nearest."""
    try:
        return VIDEO_CODECS[name.lower()]
    except KeyError:
        nearest = difflib.get_close_matches(name.lower(), VIDEO_CODECS, n=1, cutoff=0.4)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UsageError(f"unknown codec {name!r}{hint} (known: {', '.join(VIDEO_CODECS)})") from None


def container_of(path: Path) -> tuple[str, str]:
    """Return muxer and default codec for an output path. Raises `UsageError` for an unknown suffix."""
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}; "
            f"use one of {', '.join(CONTAINERS)}"
        ) from None


REFUSED = {"mov": {"av1", "vp9"}}
"""Codecs that a muxer claims to hold but refuses to write."""


@functools.cache
def held_by(muxer: str) -> frozenset[str]:
    """Return the names of the codecs that a container format can hold."""
    with av.open(os.devnull, "w", format=muxer) as container:
        names = set(container.supported_codecs)
    return frozenset(names | {_canonical(name) for name in names}) - REFUSED.get(muxer, set())


def _canonical(name: str) -> str:
    """Return a codec's own name ("hdmv_pgs_subtitle") for one that FFmpeg lists by its decoder ("pgssub")."""
    try:
        return av.codec.Codec(name, "r").canonical_name
    except ValueError:  # UnknownCodecError: no decoder has this name, so it is the codec's own
        return name


def pixel_format_for(
    codec: VideoCodec, info: StreamInfo, asked: str | None, size: tuple[int, int], with_alpha: bool = False
) -> str:
    """Return the encoder's pixel format: as asked, or that of its formats which is nearest to the source's.

    The nearest keeps bit depth first, then chroma. If a side of `size` is odd, encoders that need even sides
    for subsampled chroma get a format without it. Only `with_alpha` it has transparency, in a plane of its
    own. Raises `UsageError` if `asked` is not supported.
    """
    supported = [video_format.name for video_format in av.codec.Codec(codec.encoder, "w").video_formats or []]
    if asked is not None:
        if asked not in supported:
            raise UsageError(
                f"{codec.encoder} has no pixel format {asked!r} (it has: {', '.join(supported)})"
            )
        return asked
    supported = [name for name in supported if has_alpha(name) == with_alpha]
    if with_alpha:
        supported = [name for name in supported if takes_alpha(codec, name)]
    wanted = info.pixel_format.replace("yuvj", "yuv")
    if not codec.odd_sizes:
        supported = [name for name in supported if _divides(av.VideoFormat(name, 16, 16), size)] or supported
    if wanted in supported:
        return wanted
    source = av.VideoFormat(wanted, 16, 16)
    candidates = [name for name in supported if not name.startswith("yuvj") and "gray" not in name]
    return min(candidates, key=lambda name: _distance(source, av.VideoFormat(name, 16, 16)))


def _distance(source: av.VideoFormat, target: av.VideoFormat) -> tuple[int, ...]:
    """Rank how far a pixel format is from the source's, by what it loses first and by what it wastes next."""
    depth, chroma = sample_depth(source), _chroma(source)
    return (
        max(0, depth - sample_depth(target)),
        max(0, chroma - _chroma(target)),
        int(source.is_rgb != target.is_rgb),
        max(0, sample_depth(target) - depth),
        max(0, _chroma(target) - chroma),
        int(not target.is_planar),
        int(target.is_big_endian),
    )


def _divides(target: av.VideoFormat, size: tuple[int, int]) -> bool:
    """Whether chroma planes of this format cover a picture of this size exactly."""
    if target.is_rgb or len(target.components) < 3:
        return True
    return size[0] % (16 // target.chroma_width(16)) == 0 and size[1] % (16 // target.chroma_height(16)) == 0


def sample_depth(video_format: str | av.VideoFormat) -> int:
    """Return the bits of the deepest channel of a pixel format."""
    if isinstance(video_format, str):
        video_format = av.VideoFormat(video_format, 16, 16)
    return max(component.bits for component in video_format.components)


def has_alpha(pixel_format: str) -> bool:
    """Whether a pixel format has a channel of transparency."""
    return any(component.is_alpha for component in av.VideoFormat(pixel_format, 16, 16).components)


def takes_alpha(codec: VideoCodec, pixel_format: str) -> bool:
    """Whether transparency can be given to a codec in this format: in the fourth of four planes."""
    found = av.VideoFormat(pixel_format, 16, 16)
    has_four_planes = found.is_planar and len(found.components) == 4
    return has_four_planes and (not codec.alpha_formats or pixel_format in codec.alpha_formats)


def _chroma(video_format: av.VideoFormat) -> int:
    """Count the chroma samples of a block of 16x16 pixels."""
    if video_format.is_rgb or len(video_format.components) < 3:
        return 0 if len(video_format.components) < 3 else 256
    return video_format.chroma_width(16) * video_format.chroma_height(16)
