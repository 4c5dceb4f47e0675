"""Packets of other streams on their way into the result: what a muxer would refuse is repaired or counted."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from cgconvert.media.video.source import Damage

MOST_UNITS = 2**31 - 1
"""The longest duration of a packet that MP4 can hold, in units of its track's time base."""

STRICT = ("mp4", "mov")
"""Muxers in which each packet of a stream but subtitles must come after the one before, not with it."""

RAW_AAC = ("mp4", "mov", "matroska")
"""Muxers that hold AAC without the ADTS header that each packet has in a transport stream."""


class CopiedStream:
    """One stream that is copied: `write` brings packets into the output, as FFmpeg's stream copy would.

    Times that go back are moved after the packet before, since a muxer refuses the whole file otherwise.
    What is repaired or left out is counted in `damage`. `packets` counts what was written.
    """

    def __init__(
        self, container: av.container.OutputContainer, template: Any, output: Any, muxer: str, damage: Damage
    ) -> None:
        self.container, self.output, self.damage = container, output, damage
        self.name = f"stream #{template.index} ({template.type})"
        self.step = 1 if muxer in STRICT and template.type not in ("subtitle", "data") else 0
        self.last: int | None = None
        self.packets = 0
        self.filter: BitStreamFilterContext | None = None
        context = template.codec_context
        if context is not None and context.name == "aac" and not context.extradata and muxer in RAW_AAC:
            self.filter = BitStreamFilterContext("aac_adtstoasc", template)

    def write(self, packet: av.Packet[Any]) -> None:
        """Write one packet, which has a time. Raises `FFmpegError` or `OSError` where the disk fails."""
        self._repair(packet)
        try:
            for ready in self.filter.filter(packet) if self.filter else [packet]:
                ready.stream = self.output
                self.container.mux_one(ready)
                self.packets += 1
        except (av.error.InvalidDataError, av.error.ArgumentError):
            self.damage.refused_packets += 1
            self.damage.note(
                f"{self.name}: damaged packets that {self.container.format.name} refuses, left out"
            )

    def _repair(self, packet: av.Packet[Any]) -> None:
        """Bring a packet into the units of the output and after the one before it."""
        base, units = packet.time_base, self.output.time_base
        assert base is not None and packet.dts is not None and packet.pts is not None
        dts, pts = (_rescaled(value, base, units) for value in (packet.dts, packet.pts))
        duration = _rescaled(packet.duration or 0, base, units)
        earliest = self.last + self.step if self.last is not None else dts
        if dts < earliest or pts < dts:
            dts = max(dts, earliest)
            pts = max(dts, pts)
            self.damage.repaired_packets += 1
            self.damage.note(f"{self.name}: time stamps that go back, moved after the packet before")
        packet.time_base, packet.dts, packet.pts = units, dts, pts
        packet.duration = duration if 0 <= duration <= MOST_UNITS else 0
        self.last = dts


def _rescaled(value: int, base: Fraction, units: Fraction) -> int:
    """A time in other units, rounded to the nearest, halves away from zero, as FFmpeg does."""
    scaled = abs(value) * base / units
    nearest = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return nearest if value >= 0 else -nearest
