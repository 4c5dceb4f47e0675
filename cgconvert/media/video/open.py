"""Opens a video and chooses the stream to convert."""

from __future__ import annotations

from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from cgconvert.errors import InputError, UsageError
from cgconvert.host.files import real_path

MAX_PIXELS = 16384 * 16384
"""Frames larger than this are taken for an attack on memory, not for a video."""

OPEN_OPTIONS = {"protocol_whitelist": "file,crypto,data", "max_pixels": str(MAX_PIXELS)}
"""Only local files are opened, so that a playlist inside a video cannot make us fetch anything."""

PICTURE_BRANDS = ("avif", "heic", "heix", "mif1")
"""Brands of AVIF and HEIF pictures, which FFmpeg reads with its MP4 demuxer."""

LISTS = {"concat", "hls", "dash"}
"""Formats that only name other files. Whoever wrote the list could name any file."""


def open_video(path: Path, card: HWAccel | None = None) -> InputContainer:
    """Open a video for reading. If there is a `card`, it decodes the video stream.

    Raises `UsageError`, `InputError`.
    """
    if not path.exists():
        raise UsageError(f"no such file: {path}")
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder: convert its videos one by one, its pictures with `cgconvert dir`"
        )
    if not path.is_file():
        raise UsageError(f"{path} is not a regular file: save the video to a file first")
    try:
        container = av.open(
            f"file:{real_path(path)}",
            "r",
            options=dict(OPEN_OPTIONS),
            metadata_errors="replace",
            hwaccel=card,
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: not a video that can be read ({reason})") from error
    if _holds_a_picture(container):
        container.close()
        raise UsageError(f"{path} is a picture: use `cgconvert image`")
    if container.format.name in LISTS:
        container.close()
        raise InputError(f"{path}: a list of other files, not a video; convert those files themselves")
    # The options above reach the demuxer only. A GIF of 13 bytes made its decoder allocate a gigabyte.
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.options = {"max_pixels": OPEN_OPTIONS["max_pixels"]}
    return container


def _holds_a_picture(container: InputContainer) -> bool:
    """Whether a file is a single picture, which FFmpeg would read as a video of one frame."""
    is_picture = container.format.name.endswith("_pipe") or container.format.name.startswith("image2")
    return is_picture or container.metadata.get("major_brand") in PICTURE_BRANDS


def main_video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """Return the stream that FFmpeg would play, but never a cover picture. Raises `InputError`."""
    pictures = av.stream.Disposition.attached_pic
    candidates = [s for s in container.streams.video if not s.disposition & pictures and s.codec_context]
    best = container.streams.best("video")
    if best in candidates:
        assert isinstance(best, av.VideoStream)
        return best
    if candidates:
        return candidates[0]
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
    raise InputError(f"{path}: has no video to convert (it holds: {kinds})")
