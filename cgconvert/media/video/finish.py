"""Results of the network finished in the encoder's planes: see `cgconvert.finish`.

Where source and result of a video are stored in one format, its samples are blended themselves, so that
strength 0 gives every sample of the source, and kept colours are the source's own chroma planes.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from cgconvert.finish import Finish, lacks_detail
from cgconvert.frames import Frame, PlaneFrame, StreamInfo, YuvFormat
from cgconvert.media.picture.finish import detail_gain, rounded
from cgconvert.media.video.colour import EXACT, FromPixels, ToPixels, is_rgb, matrix, yuv_range
from cgconvert.media.video.planes import plane_arrays, yuv_format

_NO_TIME = 0, Fraction(1), 0
_WIDE = {(2, 2): "yuv420p16le", (2, 1): "yuv422p16le", (1, 1): "yuv444p16le"}
"""Formats of 16 bits, by how many luma samples there are for one of chroma along each side."""


class ToEncoded:
    """Converts decoded frames to planes of the encoder's format and size, whose samples can be blended.

    If a frame has them already they are taken as they are. Turned and RGB frames go by way of RGB pixels, as
    results do.
    """

    def __init__(self, info: StreamInfo, width: int, height: int, pixel_format: str) -> None:
        form = yuv_format(pixel_format, info)
        if form is None:
            raise ValueError(f"{pixel_format} is not made of YUV planes")
        self.info, self.form, self.pixel_format = info, form, pixel_format
        self.width, self.height = width, height
        self.reformatter = VideoReformatter()
        self.to_pixels = ToPixels(info, width, height)
        self.from_pixels = FromPixels(info, width, height, pixel_format)

    def __call__(self, frame: av.VideoFrame) -> PlaneFrame:
        """Return the frame's planes, without a time."""
        if self.info.rotation or is_rgb(frame.format.name):
            picture = self.from_pixels(self.to_pixels(frame), *_NO_TIME)
        else:
            colours, levels = matrix(self.info), yuv_range(self.info)
            picture = self.reformatter.reformat(
                frame,
                self.width,
                self.height,
                self.pixel_format,
                src_colorspace=colours,
                dst_colorspace=colours,
                src_color_range=levels,
                dst_color_range=levels,
                interpolation=EXACT,
                threads=1,
            )
        planes = plane_arrays(picture, self.form, self.width, self.height)
        return PlaneFrame(planes, self.form, self.width, self.height, 0)


class PlaneFinisher:
    """Finishes results whose `source` has come from `ToEncoded`, in the format that the encoder takes.

    The look is made with 16 bits a sample, so that what is written is dithered once, at the end.
    """

    def __init__(self, info: StreamInfo, width: int, height: int, pixel_format: str, finish: Finish) -> None:
        form = yuv_format(pixel_format, info)
        if form is None:
            raise ValueError(f"{pixel_format} is not made of YUV planes")
        self.form, self.finish, self.width, self.height = form, finish, width, height
        self.wide = replace(form, depth=16, interleaved=False, high_bits=False)
        self.from_pixels = FromPixels(info, width, height, _WIDE[form.sub_x, form.sub_y])

    def __call__(self, frame: Frame) -> PlaneFrame:
        """Return the finished planes, with the times and the state of the result, whose pixels are uint16."""
        form, source = self.form, frame.source
        assert isinstance(source, PlaneFrame)
        light = _samples(source.planes[0], form)
        look, *chroma = self._look(frame.pixels)
        if lacks_detail(frame.pixels.shape[:2], light.shape):
            look = look + _detail(light, frame.pixels, form)
        planes = [self._blended(light, look)]
        if form.interleaved:
            chroma = [np.dstack(chroma)]
        for own, painted in zip(source.planes[1:], chroma, strict=True):
            kept = self.finish.keep_colours
            planes.append(own if kept else self._blended(_samples(own, form), painted))
        return PlaneFrame(planes, form, self.width, self.height, frame.pts, frame.duration, state=frame.state)

    def _look(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the planes of a result in float32, in samples of the form's depth that are not rounded."""
        picture = self.from_pixels(pixels, *_NO_TIME)
        planes = plane_arrays(picture, self.wide, self.width, self.height)
        if not self.form.full_range:
            return [plane.astype(np.float32) / 2 ** (16 - self.form.depth) for plane in planes]
        unit, middle = np.float32((2**self.form.depth - 1) / 65535), 2.0 ** (self.form.depth - 1)
        light, *chroma = (plane.astype(np.float32) for plane in planes)
        return [light * unit, *((plane - 32768) * unit + np.float32(middle) for plane in chroma)]

    def _blended(self, source: np.ndarray, look: np.ndarray) -> np.ndarray:
        """Blend samples with `strength`, dithered and rounded, as they are stored."""
        if self.finish.strength < 1:
            look = source + np.float32(self.finish.strength) * (look - source)
        form = self.form
        whole = rounded(look, 2.0**form.depth - 1)
        if form.depth <= 8:
            return whole.astype(np.uint8)
        return whole.astype(np.uint16) << (16 - form.depth if form.high_bits else 0)


def _samples(plane: np.ndarray, form: YuvFormat) -> np.ndarray:
    """Return samples of a plane as float32, from 0 to what `form.depth` bits hold."""
    return (plane >> (16 - form.depth) if form.high_bits else plane).astype(np.float32)


def _detail(light: np.ndarray, result: np.ndarray, form: YuvFormat) -> np.ndarray:
    """Return what is to be added to the luma of an enlarged result (H, W), in its units."""
    height, width = light.shape
    smooth = cv2.resize(light, result.shape[1::-1], interpolation=cv2.INTER_AREA)
    # Of the result's luma only the slope over the source's counts, so black needs not be added.
    span = (1.0 if form.full_range else 219 / 255) * (2.0**form.depth - 1) / np.iinfo(result.dtype).max
    weights = np.array([[form.kr, 1 - form.kr - form.kb, form.kb]]) * span
    painted = cv2.transform(result.astype(np.float32), weights.astype(np.float32))
    gain = detail_gain(smooth, painted, 2.0 ** (form.depth - 8))
    large = [cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in (gain, smooth)]
    return large[0] * (light - large[1])
