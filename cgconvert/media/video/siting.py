"""The place of subsampled chroma. FFmpeg's frames hold it, but PyAV does not show it; swscale uses it."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

CENTRE = (0.5, 0.5)
NAMES = {
    (0.0, 0.5): "left",
    CENTRE: "center",
    (0.0, 0.0): "topleft",
    (0.5, 0.0): "top",
    (0.0, 1.0): "bottomleft",
    (0.5, 1.0): "bottom",
}
"""FFmpeg's name by luma pixels right of and below the middle of the first pixel. MPEG-2, H.264 and H.265 are
"left" unless they say otherwise. Frames that say nothing are "center", as swscale takes them."""

EDGE = 16
SLOPE = 16


def siting_of(frame: av.VideoFrame) -> tuple[float, float]:
    """Return where the chroma of a decoded frame sits, as a key of `NAMES`.

    PyAV has no attribute for it. So swscale brings a ramp in a small frame with the same properties to full
    resolution, and the values there show how far the ramp has moved.
    """
    if len(frame.format.components) < 3 or frame.format.is_rgb or "pal" in frame.format.name:
        return CENTRE
    edge = EDGE if (frame.width, frame.height) != (EDGE, EDGE) else 2 * EDGE
    # The result has the frame's properties, and samples that may be overwritten.
    carrier = VideoReformatter().reformat(frame, edge, edge, "yuv420p", threads=1)
    ramp = (8 + SLOPE * np.arange(edge // 2)).clip(0, 255).astype(np.uint8)
    for plane, values in zip(carrier.planes[1:], (ramp[None, :], ramp[:, None]), strict=True):
        view = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        view[:, : plane.width] = values
    full = VideoReformatter().reformat(
        carrier, edge, edge, "yuv444p", interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND
    )
    _, blue, red = full.to_ndarray().astype(float)
    middle = EDGE // 2
    across = middle - 2 * (blue[middle, middle] - 8) / SLOPE
    # swscale upsamples each field by itself, from a place of its own.
    down = 0.5 if frame.interlaced_frame else middle - 2 * (red[middle, middle] - 8) / SLOPE
    found = round(2 * across) / 2, round(2 * down) / 2
    return found if found in NAMES else CENTRE


class Siting:
    """Marks frames with a place of chroma, by which swscale then subsamples them."""

    def __init__(self, siting: tuple[float, float]) -> None:
        self.name = NAMES[siting]
        self.graph: av.filter.Graph | None = None
        self.kind: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the same picture with the mark, without copying its samples."""
        if self.name == NAMES[CENTRE]:
            return frame
        kind = frame.width, frame.height, frame.format.name
        if self.graph is None or self.kind != kind:
            self.graph, self.kind = self._build(frame), kind
        frame.pts = 0
        self.graph.push(frame)
        marked = self.graph.pull()
        assert isinstance(marked, av.VideoFrame)
        return marked

    def _build(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        begin = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(1, av.time_base),
        )
        mark, end = graph.add("setparams", f"chroma_location={self.name}"), graph.add("buffersink")
        begin.link_to(mark)
        mark.link_to(end)
        graph.configure()
        return graph
