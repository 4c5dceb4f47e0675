"""Decoded frames to RGB pixels and back, by the matrix, range and bit depth of the source.

swscale converts. Its fast paths shift colours by up to two levels, so they are switched off. What remains
is rounding, and the averaging of chroma in formats that subsample it.
"""

from __future__ import annotations

import functools
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from cgconvert.frames import StreamInfo
from cgconvert.media.video.siting import Siting
from cgconvert.media.video.tone import is_hdr, tone_mapping

EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
MATRIX_OF_TAG = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
"""AVCOL_SPC tags (ITU-T H.273 matrix coefficients) that swscale has a matrix for."""

HD_HEIGHT = 720
"""Untagged videos from this height on are taken as BT.709, smaller ones as BT.601, as players do."""


DEEP_WHITE = 255 * 256
"""White in RGB of 16 bits that swscale makes of YUV of limited range, or makes any YUV of. Ours is 65535."""


def matrix(info: StreamInfo) -> Colorspace:
    """Return the YUV matrix of a stream. An untagged stream's is guessed by its height."""
    guess = Colorspace.ITU709 if info.height >= HD_HEIGHT else Colorspace.ITU601
    return MATRIX_OF_TAG.get(info.colorspace, guess)


def yuv_range(info: StreamInfo) -> ColorRange:
    """Return the range of a stream. Untagged streams are limited, except in the yuvj formats."""
    full = info.color_range == ColorRange.JPEG or info.pixel_format.startswith("yuvj")
    return ColorRange.JPEG if full else ColorRange.MPEG


def is_rgb(pixel_format: str) -> bool:
    """Whether a pixel format holds RGB, which has no matrix."""
    return bool(av.VideoFormat(pixel_format, 16, 16).is_rgb)


def rgb_format(info: StreamInfo) -> str:
    """Return the pixel format of our pixels: 8 bits a channel, or 16 for deeper sources and for HDR."""
    return "rgb24" if info.bit_depth <= 8 and not is_hdr(info) else "rgb48le"


@functools.cache
def _rescaled(white: int, wanted: int) -> np.ndarray:
    """For each value of 16 bits the one that it becomes where `white` becomes `wanted`, (65536,) uint16."""
    values = np.arange(65536) * (wanted / white)
    return values.round().clip(0, 65535).astype(np.uint16)


def _stored_range(info: StreamInfo, pixel_format: str) -> ColorRange:
    """Return the range of the result. RGB is always full, YUV has the source's."""
    return ColorRange.JPEG if is_rgb(pixel_format) else yuv_range(info)


def tag(
    frame: av.VideoFrame,
    info: StreamInfo,
    pixel_format: str,
    pts: int,
    time_base: Fraction,
    duration: int,
) -> av.VideoFrame:
    """Set a frame's time and colour tags to those of the source, and return it."""
    frame.pts, frame.time_base, frame.duration = pts, time_base, duration
    frame.colorspace = 0 if is_rgb(pixel_format) else info.colorspace
    frame.color_range = _stored_range(info, pixel_format) if info.color_range else ColorRange.UNSPECIFIED
    frame.color_primaries, frame.color_trc = info.color_primaries, info.color_trc
    return frame


class ToPixels:
    """Converts decoded frames to upright RGB pixels of one size. It keeps its scaler between frames.

    HDR is tone mapped, so that pixels are always what a viewer of SDR sees.
    """

    def __init__(self, info: StreamInfo, width: int, height: int) -> None:
        turned = info.rotation in (90, 270)
        self.info, self.tone = info, tone_mapping(info)
        self.width, self.height = (height, width) if turned else (width, height)
        self.reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return uint8 or uint16 RGB (H, W, 3)."""
        colours = matrix(self.info)
        source_range = ColorRange.JPEG if is_rgb(frame.format.name) else yuv_range(self.info)
        rgb = self.reformatter.reformat(
            frame,
            self.width,
            self.height,
            rgb_format(self.info),
            src_colorspace=colours,
            dst_colorspace=colours,
            src_color_range=source_range,
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
            threads=1,
        )
        pixels: np.ndarray = rgb.to_ndarray()
        if pixels.dtype == np.uint16 and not is_rgb(frame.format.name):
            depth = frame.format.components[0].bits
            full_white = (2**depth - 1) << (16 - depth)  # of full range it takes the samples as they are
            white = full_white if source_range == ColorRange.JPEG else DEEP_WHITE
            pixels = _rescaled(white, 65535).take(pixels)
        if self.tone is not None:
            pixels = self.tone.pixels_to_sdr(pixels)
        if self.info.rotation:
            pixels = np.rot90(pixels, -self.info.rotation // 90).copy()
        return pixels


class FromPixels:
    """Converts RGB pixels to frames in the encoder's format and size, tagged with the colours of `info`.

    If these are HDR the pixels are expanded to it.
    """

    def __init__(self, info: StreamInfo, width: int, height: int, pixel_format: str) -> None:
        self.info, self.tone = info, tone_mapping(info)
        self.width, self.height, self.pixel_format = width, height, pixel_format
        self.siting = Siting(info.siting)
        self.reformatter = VideoReformatter()

    def __call__(self, pixels: np.ndarray, pts: int, time_base: Fraction, duration: int) -> av.VideoFrame:
        """Return a frame with this time, ready to encode."""
        if self.tone is not None:
            pixels = self.tone.pixels_to_hdr(pixels)
        if pixels.dtype == np.uint16 and not is_rgb(self.pixel_format):
            pixels = _rescaled(65535, DEEP_WHITE).take(pixels)
        source = av.VideoFrame.from_ndarray(pixels, "rgb24" if pixels.dtype == np.uint8 else "rgb48le")
        source = self.siting(source)
        colours = matrix(self.info)
        frame = self.reformatter.reformat(
            source,
            self.width,
            self.height,
            self.pixel_format,
            src_colorspace=colours,
            dst_colorspace=colours,
            src_color_range=ColorRange.JPEG,
            dst_color_range=_stored_range(self.info, self.pixel_format),
            interpolation=EXACT,
            threads=1,
        )
        return tag(frame, self.info, self.pixel_format, pts, time_base, duration)
