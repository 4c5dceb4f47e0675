"""Frames whose size changes in mid-video, brought to the size of the first without being stretched."""

from __future__ import annotations

from fractions import Fraction

import av

from cgconvert.frames import StreamInfo
from cgconvert.media.video.fields import FrameFilter
from cgconvert.media.video.planes import stored_size


class Fitting:
    """Scales frames to the stored size and pixel format of a stream, with black bars where they do not reach.

    A frame keeps the shape in which it is shown, by its own sample aspect ratio and the stream's.
    """

    def __init__(self, info: StreamInfo) -> None:
        self.info, self.size = info, stored_size(info)
        width, height = self.size
        aspect = info.sample_aspect_ratio or Fraction(1)
        shown = 1 / aspect if info.rotation in (90, 270) else aspect  # of a pixel as stored
        # `dar` is the display aspect ratio, of each frame since the filter is told nothing else by PyAV. Even
        # sizes keep chroma where it belongs.
        ratio = f"dar*{shown.denominator}/{shown.numerator}"
        across = f"min({width},2*round({height}*{ratio}/2))"
        down = f"min({height},2*round({width}/({ratio})/2))"
        flags = "bicubic+accurate_rnd+full_chroma_int"
        self.scale = FrameFilter("scale", info.time_base, f"w='{across}':h='{down}':eval=frame:flags={flags}")
        self.pad = FrameFilter("pad", info.time_base, f"{width}:{height}:-1:-1:black")
        self.form = FrameFilter("format", info.time_base, info.pixel_format)

    def __call__(self, frame: av.VideoFrame) -> tuple[av.VideoFrame, bool]:
        """Return the frame in the stream's size with its own colours, and whether it got bars."""
        fitted = next(self.scale(frame))
        bars = (fitted.width, fitted.height) != self.size
        fitted = next(self.form(next(self.pad(fitted)) if bars else fitted))
        fitted.colorspace, fitted.color_range = frame.colorspace, frame.color_range
        fitted.color_primaries, fitted.color_trc = frame.color_primaries, frame.color_trc
        return fitted, bars
