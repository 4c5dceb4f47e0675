"""Sound that a container cannot hold as it is, decoded and encoded anew in step with the video."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from cgconvert.media.video.source import Damage

OPUS_RATE = 48_000
BITS_PER_CHANNEL = 64_000
"""Bits a second, so 128 kbit/s in stereo."""

LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
"""The order of channels that Opus has for each number of them, from one (RFC 7845, section 5.1.1.2)."""


class EncodedSound:
    """One stream of sound that becomes Opus: `write` takes packets of the source, `finish` ends it.

    Every sample keeps its time. Those before zero, which WebM has no times for, are left out, as players do.
    `packets` counts what was written.
    """

    def __init__(self, container: av.container.OutputContainer, template: Any, damage: Damage) -> None:
        self.container, self.damage = container, damage
        self.name = f"stream #{template.index} (audio)"
        channels = min(max(template.codec_context.channels, 1), len(LAYOUTS))
        self.layout = LAYOUTS[channels - 1]
        self.output = container.add_stream(
            "libopus",
            rate=OPUS_RATE,
            layout=self.layout,
            options={"b": str(BITS_PER_CHANNEL * channels)},
        )
        self.output.disposition = template.disposition
        self.resampler: av.AudioResampler | None = None
        self.kind: tuple[str, str, int] | None = None
        self.packets = 0

    def write(self, packet: av.Packet[Any]) -> None:
        """Encode the sound in one packet. Raises `FFmpegError` or `OSError` where the disk fails."""
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self.damage.undecodable_packets += 1
            self.damage.note(f"{self.name}: damaged sound that cannot be decoded, left out")
            return
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            if kind != self.kind:
                self._flush_resampler()
                self.resampler, self.kind = av.AudioResampler("flt", self.layout, OPUS_RATE), kind
            assert self.resampler is not None
            self._encode(self.resampler.resample(frame))

    def finish(self) -> None:
        """Write what decoder, resampler and encoder still hold. Raises as `write` does."""
        self._flush_resampler()
        if self.packets:
            self._mux(self.output.encode(None))

    def _flush_resampler(self) -> None:
        if self.resampler is not None:
            self._encode(self.resampler.resample(None))

    def _encode(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            assert frame.pts is not None and frame.time_base is not None
            early = -round(frame.pts * frame.time_base * OPUS_RATE)
            if early >= frame.samples:
                continue
            if early > 0:
                samples = frame.to_ndarray()[:, early * len(frame.layout.channels) :]
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples, np.float32), "flt", self.layout
                )
                frame.sample_rate, frame.time_base, frame.pts = OPUS_RATE, Fraction(1, OPUS_RATE), 0
            self._mux(self.output.encode(frame))

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            self.container.mux_one(packet)
            self.packets += 1
