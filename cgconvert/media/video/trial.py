"""Codecs and hardware decoders tried on a tiny clip: what can really be written and read here."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available

from cgconvert.errors import first_line
from cgconvert.media.video.codecs import VIDEO_CODECS, VideoCodec

EDGE = 256
"""The edge in pixels. Hardware encoders refuse much smaller pictures."""

FRAMES = 3


def try_codecs() -> Iterator[tuple[str, str | None]]:
    """Yield each codec's name, with the reason if frames cannot be written and read in it, else None."""
    for name, codec in VIDEO_CODECS.items():
        try:
            data = _encode(codec)
            count = _decode(data)
        except (av.FFmpegError, ValueError, OSError, RuntimeError) as error:
            yield name, _reason(codec.encoder, error)
        else:
            yield name, None if count == FRAMES else f"{count} of {FRAMES} frames came back"


def _encode(codec: VideoCodec, pixel_format: str | None = None) -> bytes:
    os.environ.setdefault("SVT_LOG", "1")  # else the AV1 encoder prints on standard error
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream(codec.encoder, rate=25, options=codec.options)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = EDGE
        formats = av.codec.Codec(codec.encoder, "w").video_formats or []
        stream.pix_fmt = pixel_format or (formats[0].name if formats else "yuv420p")
        for index in range(FRAMES):
            pixels = np.full((EDGE, EDGE, 3), 60 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _decode(data: bytes, hwaccel: HWAccel | None = None) -> int:
    with av.open(io.BytesIO(data), "r", hwaccel=hwaccel) as container:
        return len(list(container.decode(video=0)))


def _reason(encoder: str, error: Exception) -> str:
    text = first_line(error, 120)
    if encoder.endswith("_nvenc"):
        return f"needs an NVIDIA card with an encoder and its driver ({text})"
    return f"this build of PyAV cannot use {encoder} ({text}): pip install --upgrade av"


def try_hardware_decoders() -> Iterator[tuple[str, str | None]]:
    """Yield each hardware decoder of this build, with the reason if it decodes no h264, else None."""
    names = hwdevices_available()
    try:
        data = _encode(VIDEO_CODECS["h264"], "yuv420p") if names else b""
    except (av.FFmpegError, ValueError, OSError, RuntimeError) as error:
        yield from ((name, f"no clip could be made to try it ({first_line(error, 120)})") for name in names)
        return
    for name in names:
        yield name, _why_not_in_hardware(name, data)


def _why_not_in_hardware(name: str, data: bytes) -> str | None:
    """Say why a kind of device does not decode h264. None means that every frame came back."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)  # else FFmpeg and drivers print on standard error
    try:
        count = _decode(data, HWAccel(name, allow_software_fallback=False))
    except (av.FFmpegError, ValueError, OSError, RuntimeError, NotImplementedError) as error:
        return f"decodes no h264 here ({first_line(error, 120)})"
    finally:
        av.logging.set_level(level)
    return None if count == FRAMES else f"{count} of {FRAMES} frames came back"
