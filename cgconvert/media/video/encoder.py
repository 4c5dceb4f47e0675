"""An encoder: its settings, its stream in a container, and the packets that it makes of frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import av
import cv2
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import OutputContainer

from cgconvert.frames import Frame, PlaneFrame, StreamInfo
from cgconvert.media.video.alpha import set_alpha
from cgconvert.media.video.codecs import VideoCodec, has_alpha
from cgconvert.media.video.colour import FromPixels
from cgconvert.media.video.packets import EncodedPacket
from cgconvert.media.video.planes import FromPlanes

OWN_TAGS = {
    *("encoder", "duration", "major_brand", "minor_version", "compatible_brands", "vendor_id", "bps"),
    "alpha_mode",
}
"""Metadata that describes the old file rather than its content."""

ENCODING_ERRORS = (av.error.FFmpegError, OSError)
"""Errors that encoders and muxers raise."""


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded, with sizes in pixels.

    `tags` are options that keep what the source's frames are tagged with (`media.video.tags`).
    """

    codec: VideoCodec
    width: int
    height: int
    pixel_format: str
    quality: float | None
    preset: str | None
    tags: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, str]:
        """Return the encoder's options as FFmpeg takes them."""
        options = dict(self.codec.options)
        if self.quality is not None:
            options[self.codec.quality_option] = f"{self.quality:g}"
        if self.preset is not None:
            options[self.codec.preset_option] = self.preset
        if self.codec.encoder == "libvpx-vp9" and has_alpha(self.pixel_format):
            # Its alternate reference frames are hidden packets, which the picture beside has at other places.
            options["auto-alt-ref"] = "0"
        for name, value in self.tags.items():
            options[name] = f"{options[name]}:{value}" if name in options else value
        return options


@cache
def has_avx512() -> bool:
    """Whether the processor has AVX-512. OpenCV marks what it lacks with a question mark."""
    names = (name.lstrip("*") for name in cv2.getCPUFeaturesLine().split())
    return any(name.startswith("AVX512") and not name.endswith("?") for name in names)


def repeatable(encoder: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return an encoder's options with what makes its packets the same in every run on this machine.

    With AVX-512 the macroblock tree of libx264 (core 165) reads memory that it never wrote, so that the same
    frames give other packets from run to run. With AVX2 it does not, and is as fast.
    """
    if encoder != "libx264" or not has_avx512():
        return dict(options)
    told = filter(None, [options.get("x264-params"), "asm=avx2"])
    return {**options, "x264-params": ":".join(told)}


def video_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Return the metadata without what describes the old file or the old encoding."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in OWN_TAGS and not key.startswith(("_STATISTICS", "NUMBER_OF_"))
    }


LEAST_FOR_X265 = 3
"""With fewer frames x265 never sets a dts. FFmpeg hands on what lay in memory, which muxers refuse."""


class FrameEncoder:
    """Encodes frames with the source's time base, tags and durations.

    Use: `add_to` a container or `stand_alone`, then `encode` frames in order of pts, then `encode(None)` once
    to drain it. With `card` the encoder takes frames from the memory of that card.
    """

    def __init__(self, info: StreamInfo, encoding: Encoding, card: HWAccel | None = None) -> None:
        self.info, self.encoding, self.card = info, encoding, card
        self.from_planes = FromPlanes(info, encoding.pixel_format)
        self.from_pixels = FromPixels(info, encoding.width, encoding.height, encoding.pixel_format)
        self._durations: dict[int, int] = {}
        self._encode: Callable[[av.VideoFrame | None], list[av.Packet[Any]]] | None = None
        self.frames = 0
        """The frames that went in. An encoder that has seen none cannot be drained."""

    def add_to(self, container: OutputContainer, template: Any) -> av.VideoStream:
        """Add the encoder's stream to a container, with metadata and disposition of the source's stream."""
        os.environ.setdefault("SVT_LOG", "1")  # else SVT-AV1 prints its banner among our messages
        stream = container.add_stream(
            self.encoding.codec.encoder,
            rate=self.info.rate,
            options=repeatable(self.encoding.codec.encoder, self.encoding.options()),
            hwaccel=self.card,
        )
        assert isinstance(stream, av.VideoStream)
        self._set_up(stream.codec_context)
        stream.time_base = self.info.time_base
        stream.metadata.update(video_metadata(template.metadata))
        stream.disposition = template.disposition
        self._encode = stream.encode
        return stream

    def stand_alone(self, muxer: str) -> None:
        """Encode packets that are kept, with headers laid out as `muxer` wants them.

        A container and its streams hold each other, so that an encoder within them would stay in memory, with
        all its frames, until Python looks for such circles: after minutes.
        """
        os.environ.setdefault("SVT_LOG", "1")
        context = av.CodecContext.create(self.encoding.codec.encoder, "w", self.card)
        assert isinstance(context, av.VideoCodecContext)
        context.options = repeatable(self.encoding.codec.encoder, self.encoding.options())
        # As containers set up the encoders of their streams.
        context.framerate, context.bit_rate, context.bit_rate_tolerance = self.info.rate, 0, 128000
        if av.format.Flags.global_header in av.format.Flags(av.ContainerFormat(muxer, "w").flags):
            context.flags |= av.codec.context.Flags.global_header
        self._set_up(context)
        self._encode = context.encode

    def _set_up(self, context: av.VideoCodecContext) -> None:
        context.width, context.height = self.encoding.width, self.encoding.height
        context.pix_fmt = self.encoding.pixel_format
        # The source's own units of time, since with any other the encoder would round the time stamps.
        context.time_base = self.info.time_base
        if self.info.sample_aspect_ratio:
            context.sample_aspect_ratio = self.info.sample_aspect_ratio
        sample = self.from_pixels(np.zeros((16, 16, 3), np.uint8), 0, self.info.time_base, 0)
        context.colorspace, context.color_range = sample.colorspace, sample.color_range
        context.color_primaries, context.color_trc = sample.color_primaries, sample.color_trc

    def encode(self, frame: Frame | PlaneFrame | None) -> list[av.Packet[Any]]:
        """Encode a frame and return the packets that are ready. None drains the encoder.

        Raises FFmpeg's errors.
        """
        picture: av.VideoFrame | None = None
        if isinstance(frame, PlaneFrame):
            picture = self.from_planes(frame, self.info.time_base)
        elif frame is not None:
            picture = self.from_pixels(frame.pixels, frame.pts, self.info.time_base, frame.duration)
            if frame.alpha is not None:
                set_alpha(picture, frame.alpha)
        if frame is not None and frame.duration:
            self._durations[frame.pts] = frame.duration
        assert self._encode is not None
        self.frames += frame is not None
        packets = self._encode(picture)
        if self.encoding.codec.encoder == "libx265" and frame is None and self.frames < LEAST_FOR_X265:
            for packet in packets:
                packet.dts = packet.pts
        for packet in packets:
            # Not every encoder hands durations on, and without them the last frame would have none.
            if packet.pts is not None and not packet.duration:
                packet.duration = self._durations.get(packet.pts, 0)
            self._durations.pop(packet.pts or 0, None)
        return packets


class PacketEncoder:
    """A `FrameEncoder` whose packets are given instead of written, with headers as `muxer` wants them."""

    def __init__(self, encoder: FrameEncoder, muxer: str) -> None:
        self._encoder = encoder
        encoder.stand_alone(muxer)

    def encode(self, frame: Frame | PlaneFrame | None) -> list[EncodedPacket]:
        """The packets that are ready after this frame; None drains the encoder. Raises `ENCODING_ERRORS`."""
        packets = []
        for packet in self._encoder.encode(frame):
            assert packet.pts is not None
            packets.append(EncodedPacket.of(packet))
        return packets
