"""Tags of frames other than their colours, read from the source and given to the encoder as options.

HDR10 metadata is SMPTE ST 2086 (mastering display) and CTA-861.3 (light levels).
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.sidedata.sidedata import Type

from cgconvert.frames import StreamInfo
from cgconvert.media.video.siting import CENTRE, NAMES

SITED_DECODERS = ("h264", "hevc", "mjpeg")
"""Decoders that always give chroma a place. From others, the centre may mean that the file says nothing."""

FIELD_ORDERS = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""The field shown first, top or bottom, by FFmpeg's AVFieldOrder."""


def read_hdr(frame: av.VideoFrame) -> tuple[tuple[Fraction, ...], tuple[int, ...]]:
    """Return mastering display and light levels of a decoded frame, empty if it has none.

    The first has 10 numbers: x and y of red, green, blue and white (CIE 1931), the least and the largest
    luminance in cd/m2. The second has MaxCLL and MaxFALL in cd/m2.
    """
    mastering: tuple[Fraction, ...] = ()
    light: tuple[int, ...] = ()
    side_data: Any = frame.side_data  # its stub has no iteration
    for data in side_data:
        if data.type == Type.MASTERING_DISPLAY_METADATA:
            *numbers, has_primaries, has_luminance = struct.unpack_from("=22i", bytes(data))
            pairs = list(zip(numbers[0::2], numbers[1::2], strict=True))
            if has_primaries and has_luminance and all(below for _, below in pairs):
                mastering = tuple(Fraction(above, below) for above, below in pairs)
        elif data.type == Type.CONTENT_LIGHT_LEVEL:
            light = struct.unpack_from("=2I", bytes(data))
    return mastering, light


def read_field_order(stream: Any, frame: av.VideoFrame) -> str:
    """Return "tff" or "bff" by the field shown first, or "" if frames hold whole pictures."""
    if not frame.interlaced_frame:
        return ""
    return FIELD_ORDERS.get(int(stream.codec_context.field_order or 0), "tff")


class HdrParameters(NamedTuple):
    """How an encoder takes HDR10 metadata: FFmpeg's option for its parameters, their names and units.

    Coordinates are given in units of 1 / `coordinate`, luminances in units of 1 / `luminance` cd/m2.
    """

    option: str
    display: str
    light: str
    coordinate: int
    luminance: int

    def describe(self, info: StreamInfo) -> list[str]:
        """Return the parameters for a source's metadata."""
        told: list[str] = []
        if info.mastering_display:
            xy = [self._number(value, self.coordinate) for value in info.mastering_display[:8]]
            red, green, blue, white = (f"({x},{y})" for x, y in zip(xy[0::2], xy[1::2], strict=True))
            least, most = (self._number(value, self.luminance) for value in info.mastering_display[8:])
            told.append(f"{self.display}=G{green}B{blue}R{red}WP{white}L({most},{least})")
        if info.light_levels:
            told.append(f"{self.light}={info.light_levels[0]},{info.light_levels[1]}")
        return told

    @staticmethod
    def _number(value: Fraction, unit: int) -> str:
        return f"{float(value):.5f}" if unit == 1 else str(round(value * unit))


HDR_ENCODERS = {
    "libx264": HdrParameters("x264-params", "mastering-display", "cll", 50000, 10000),
    "libx265": HdrParameters("x265-params", "master-display", "max-cll", 50000, 10000),
    "libsvtav1": HdrParameters("svtav1-params", "mastering-display", "content-light", 1, 1),
}


def tag_options(info: StreamInfo, encoder: str, with_fields: bool) -> tuple[dict[str, str], list[str]]:
    """Return the encoder's options that keep the tags of a source's frames, and in words what is dropped.

    `with_fields` says that pictures reach the encoder line by line as in the source.
    """
    options: dict[str, str] = {}
    dropped: list[str] = []
    if info.siting != CENTRE or info.decoder in SITED_DECODERS:
        options["chroma_sample_location"] = NAMES[info.siting]
    if info.mastering_display or info.light_levels:
        parameters = HDR_ENCODERS.get(encoder)
        if parameters:
            options[parameters.option] = ":".join(parameters.describe(info))
        else:
            what = "HDR10 metadata (mastering display, light levels)"
            dropped.append(f"{what} is lost: {encoder} does not take it")
    if info.field_order:
        if with_fields and encoder == "libx264":
            told = [options["x264-params"]] if "x264-params" in options else []
            options["x264-params"] = ":".join([*told, f"{info.field_order}=1"])
        else:
            reason = f"{encoder} encodes whole pictures" if with_fields else "frames are scaled or turned"
            what = "the mark that frames are interlaced"
            dropped.append(f"{what} is lost: {reason}; both fields stay in each picture")
    return options, dropped
