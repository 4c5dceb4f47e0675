"""Decoding and encoding in the memory of an NVIDIA card, tried on one frame to see whether it works."""

from __future__ import annotations

import io
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from cgconvert.errors import CgconvertError, first_line
from cgconvert.frames import PlaneFrame, StreamInfo
from cgconvert.media.video.encoder import Encoding
from cgconvert.media.video.open import main_video_stream, open_video
from cgconvert.media.video.planes import FromPlanes, stored_size, yuv_format

FORMS_ON_CARD = {"yuv420p": "nv12", "nv12": "nv12", "p010le": "p010le", "yuv420p10le": "p010le"}
"""Pixel formats that a card can hold, with their names there."""


def card_access(index: int, fallback: bool = False) -> HWAccel:
    """Return FFmpeg's access to CUDA device number `index`, in the context that torch has made current.

    FFmpeg's own access to that context refuses the flags that torch gave it. With `fallback` the processor
    decodes what the card cannot.
    """
    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    return HWAccel("cuda", str(index), fallback, options, is_hw_owned=True)


def why_not_decoding(path: Path, info: StreamInfo, index: int) -> str | None:
    """Say why CUDA device number `index` cannot decode this video. None means that it decoded a frame."""
    if "cuda" not in hwdevices_available():
        return "this build of PyAV has no NVDEC"
    if info.pixel_format not in ("yuv420p", "yuvj420p", "yuv420p10le", "nv12", "p010le"):
        return f"NVDEC gives no {info.pixel_format} that could be used"
    if any(side % 2 for side in stored_size(info)):
        return "NVDEC gives no odd sizes"
    try:
        with open_video(path, card_access(index)) as container:
            frame = next(container.decode(main_video_stream(container, path)))
            stored = frame.sw_format
            if stored is None or yuv_format(stored.name, info) is None:
                return f"the decoder gave {(stored or frame.format).name}, not on the card"
            if (frame.width, frame.height) != stored_size(info):
                return f"the card gave pictures of {frame.width}x{frame.height}"
            for plane in frame.planes:
                plane.__dlpack__()
    except StopIteration:
        return "no frame came back"
    except (av.error.FFmpegError, CgconvertError, RuntimeError, ValueError, TypeError) as error:
        return f"{info.decoder} on the card: {first_line(error.__cause__ or error)}"
    return None


def why_not_encoding(encoding: Encoding, info: StreamInfo, blank: PlaneFrame, index: int) -> str | None:
    """Say why an encoder cannot take frames from the card's memory. None means that it took `blank`."""
    try:
        with av.open(io.BytesIO(), "w", format="matroska") as container:
            stream = container.add_stream(
                encoding.codec.encoder, rate=info.rate, options=encoding.options(), hwaccel=card_access(index)
            )
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = encoding.width, encoding.height
            stream.pix_fmt = encoding.pixel_format
            frame = FromPlanes(info, encoding.pixel_format)(blank, info.time_base)
            packets = [*stream.encode(frame), *stream.encode(None)]
    except (av.error.FFmpegError, RuntimeError, ValueError, TypeError) as error:
        return f"{encoding.codec.encoder} from the card's memory: {first_line(error.__cause__ or error)}"
    return None if packets else f"{encoding.codec.encoder} gave nothing back"
