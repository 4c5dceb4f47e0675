"""Transparency of videos: read beside the colours, carried past the network, and given to the encoder.

Frames carry it as an array of its own, in full range: 0 is transparent, 255 or 65535 opaque. WebM keeps alpha
in a second picture beside each frame, which FFmpeg's own decoders leave out and libvpx's read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
import numpy as np

from cgconvert.frames import StreamInfo
from cgconvert.media.picture.resize import resized
from cgconvert.media.video.codecs import VideoCodec, has_alpha, sample_depth, takes_alpha
from cgconvert.media.video.fields import FrameFilter
from cgconvert.options import VideoOptions

DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read the picture beside each frame, by the codec."""

WRITABLE: Mapping[str, tuple[str, ...]] = {
    "libvpx-vp9": ("webm", "matroska"),
    "prores_ks": ("mov", "matroska"),
    "ffv1": ("matroska", "mp4"),
}
"""Encoders that take alpha, and the muxers that keep what they make of it."""

PROFILES = ("4444", "4444xq")
"""Profiles of ProRes that have alpha."""


def source_has_alpha(info: StreamInfo) -> bool:
    """Whether a video has a channel of transparency."""
    return info.alpha_beside or has_alpha(info.pixel_format)


def why_not_alpha(codec: VideoCodec, muxer: str, options: VideoOptions) -> str | None:
    """Say why a result has no alpha. None means that it can have it."""
    encoder, preset, pixel_format = codec.encoder, options.preset, options.pix_fmt
    if options.compare:
        return "`compare` shows source and result as RGB"
    if muxer not in WRITABLE.get(encoder, ()):
        return f"{encoder} in {muxer} has none; vp9 in .webm, prores in .mov and ffv1 in .mkv have it"
    if pixel_format is not None and not takes_alpha(codec, pixel_format):
        return f"{encoder} keeps none in {pixel_format}"
    if encoder == "prores_ks" and preset not in (None, *PROFILES):
        return f"the profile {preset} has none; {' and '.join(PROFILES)} have it"
    return None


def decoder_with_alpha(stream: av.VideoStream, info: StreamInfo) -> av.VideoCodecContext | None:
    """Return a decoder that reads alpha beside a stream's frames. None: the stream's own reads it."""
    name = DECODERS.get(stream.codec_context.name)
    if not info.alpha_beside or name is None:
        return None
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.extradata = stream.codec_context.extradata
    return context


class ToAlpha:
    """Takes the transparency of decoded frames, upright and of one size."""

    def __init__(self, info: StreamInfo, width: int, height: int) -> None:
        self.info, self.width, self.height = info, width, height
        self.extract = FrameFilter("alphaextract", info.time_base)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return (H, W), uint8 for frames of 8 bits, else uint16, in full range."""
        grey = next(self.extract(frame))
        depth = sample_depth(grey.format)
        alpha = plane_samples(grey, 0)[:, : grey.width]
        if depth > 8:
            alpha = rescaled(alpha, depth, 16)
        if self.info.rotation:
            alpha = np.rot90(alpha, -self.info.rotation // 90)
        return resized(np.ascontiguousarray(alpha)[..., None], self.width, self.height)[..., 0].copy()


def set_alpha(frame: av.VideoFrame, alpha: np.ndarray) -> None:
    """Write transparency (H, W), uint8 or uint16 in full range, into a planar frame of the encoder."""
    rows = plane_samples(frame, 3)
    depth = sample_depth(frame.format)
    rows[:, : frame.width] = rescaled(alpha, 8 * alpha.itemsize, depth)


def plane_samples(frame: av.VideoFrame, index: int) -> np.ndarray:
    """Return a view of a plane: (rows, samples of a row with its padding)."""
    plane = frame.planes[index]
    wide = ">u2" if frame.format.is_big_endian else "<u2"
    dtype = np.dtype(np.uint8 if sample_depth(frame.format) <= 8 else wide)
    return np.frombuffer(memoryview(plane), dtype).reshape(plane.height, plane.line_size // dtype.itemsize)


def rescaled(alpha: np.ndarray, depth: int, wanted: int) -> np.ndarray:
    """Return samples of `depth` bits as the nearest ones of `wanted` bits. Opaque stays opaque."""
    dtype: Any = np.uint8 if wanted <= 8 else np.uint16
    if depth == wanted:
        return alpha.astype(dtype, copy=False)
    whole = alpha.astype(np.uint32) * (2**wanted - 1)
    return ((whole + (2**depth - 1) // 2) // (2**depth - 1)).astype(dtype)
