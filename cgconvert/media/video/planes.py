"""Planes of decoded frames, and frames for the encoder made of planes, without any computing."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from cgconvert.frames import PlaneFrame, StreamInfo, YuvFormat
from cgconvert.media.video.colour import EXACT, matrix, tag, yuv_range

WEIGHTS = {
    Colorspace.ITU709: (0.2126, 0.0722),
    Colorspace.FCC: (0.30, 0.11),
    Colorspace.ITU601: (0.299, 0.114),
    Colorspace.SMPTE170M: (0.299, 0.114),
    Colorspace.SMPTE240M: (0.212, 0.087),
    Colorspace.BT2020: (0.2627, 0.0593),
}
"""The weights of red and blue in luma, by matrix (ITU-T H.273)."""

_PLANAR = re.compile(r"yuvj?4(?P<sampling>20|22|44)p(?P<depth>10|12)?(le)?")
_SUBSAMPLING = {"20": (2, 2), "22": (2, 1), "44": (1, 1)}


def yuv_format(name: str, info: StreamInfo) -> YuvFormat | None:
    """Return how a pixel format holds pictures in a stream's colours, or None if it is not plain YUV."""
    kr, kb = WEIGHTS[matrix(info)]
    full = yuv_range(info) == ColorRange.JPEG
    if name in ("nv12", "p010le"):
        high = name == "p010le"
        return YuvFormat(10 if high else 8, 2, 2, kr, kb, full, info.siting, True, high)
    match = _PLANAR.fullmatch(name)
    if not match:
        return None
    sub_x, sub_y = _SUBSAMPLING[match["sampling"]]
    return YuvFormat(int(match["depth"] or 8), sub_x, sub_y, kr, kb, full, info.siting)


def stored_size(info: StreamInfo) -> tuple[int, int]:
    """Return width and height of a stream's pictures as stored, before they are turned upright."""
    return (info.height, info.width) if info.rotation in (90, 270) else (info.width, info.height)


class ToPlanes:
    """Converts decoded frames to `PlaneFrame`s, in the form and size of the stream's first frame.

    Planes in host memory are views of the decoder's memory. On a card the decoder has few frames, so
    `take_over` copies each plane within the card. If size or pixel format change in mid-video, swscale brings
    the frames to those of the first.
    """

    def __init__(self, info: StreamInfo, take_over: Callable[[Any], Any] | None = None) -> None:
        self.info, self.take_over = info, take_over
        self.width, self.height = stored_size(info)
        form = yuv_format(info.pixel_format, info)
        if form is None:
            raise ValueError(f"{info.pixel_format} is not made of YUV planes")
        self.form = form
        self.reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, pts: int, duration: int) -> PlaneFrame:
        """Return the frame's planes with this time."""
        fits = (frame.width, frame.height) == (self.width, self.height)
        stored = frame.sw_format
        if stored is not None and fits and self.take_over is not None:
            form = yuv_format(stored.name, self.info)
            if form is not None:
                taken = [self.take_over(plane) for plane in frame.planes]
                return PlaneFrame(taken, form, self.width, self.height, pts, duration, True)
        if not fits or frame.format.name != self.info.pixel_format:
            frame = self._as_the_first(frame)
        planes = plane_arrays(frame, self.form, self.width, self.height)
        return PlaneFrame(planes, self.form, self.width, self.height, pts, duration)

    def _as_the_first(self, frame: av.VideoFrame) -> av.VideoFrame:
        colours, levels = matrix(self.info), yuv_range(self.info)
        return self.reformatter.reformat(
            frame,
            self.width,
            self.height,
            self.info.pixel_format,
            src_colorspace=colours,
            dst_colorspace=colours,
            src_color_range=levels,
            dst_color_range=levels,
            interpolation=EXACT,
            threads=1,
        )


def plane_arrays(frame: av.VideoFrame, form: YuvFormat, width: int, height: int) -> list[np.ndarray]:
    """Return views of a frame's planes in host memory, in the shapes that its form says."""
    return [
        samples(plane, form)[:, : shape[1] * (shape[2] if len(shape) > 2 else 1)].reshape(shape)
        for plane, shape in zip(frame.planes, form.shapes(height, width), strict=True)
    ]


def samples(plane: av.video.plane.VideoPlane, form: YuvFormat) -> np.ndarray:
    """Return a view of a plane in host memory: (rows, samples of a row with its padding)."""
    dtype = np.dtype(np.uint8 if form.depth <= 8 else "<u2")
    rows = np.frombuffer(memoryview(plane), dtype).reshape(
        plane.height, abs(plane.line_size) // dtype.itemsize
    )
    return rows if plane.line_size > 0 else rows[::-1]


class FromPlanes:
    """Converts `PlaneFrame`s to frames for the encoder, tagged with the source's colours."""

    def __init__(self, info: StreamInfo, pixel_format: str) -> None:
        self.info, self.pixel_format = info, pixel_format
        self.context: av.video.frame.CudaContext | None = None

    def __call__(self, frame: PlaneFrame, time_base: Fraction) -> av.VideoFrame:
        """Return a frame with this time. Planes in host memory are copied, planes on a card are not."""
        picture = self._on_card(frame) if frame.on_card else self._written(frame)
        return tag(picture, self.info, self.pixel_format, frame.pts, time_base, frame.duration)

    def _written(self, frame: PlaneFrame) -> av.VideoFrame:
        picture = av.VideoFrame(frame.width, frame.height, self.pixel_format)
        for plane, source in zip(picture.planes, frame.planes, strict=True):
            rows = source.reshape(len(source), -1)
            samples(plane, frame.format)[:, : rows.shape[1]] = rows
        return picture

    def _on_card(self, frame: PlaneFrame) -> av.VideoFrame:
        """Return a frame of planes on the card, which it keeps alive until the encoder has read them."""
        if self.context is None:
            # The context that torch has made, since FFmpeg's access to the primary one refuses torch's flags.
            device = frame.planes[0].__dlpack_device__()[1]
            self.context = av.video.frame.CudaContext(device, primary_ctx=False, current_ctx=True)
        return av.VideoFrame.from_dlpack(
            tuple(frame.planes),
            self.pixel_format,
            frame.width,
            frame.height,
            cuda_context=self.context,
        )
