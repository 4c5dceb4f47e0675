"""Reads a video as frames to translate and packets to copy, in the order of the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from cgconvert.errors import InputError
from cgconvert.frames import Frame, PlaneFrame, StreamInfo
from cgconvert.media.video.alpha import ToAlpha, decoder_with_alpha
from cgconvert.media.video.colour import ToPixels
from cgconvert.media.video.fields import Deinterlacer, Deinterlacing
from cgconvert.media.video.finish import ToEncoded
from cgconvert.media.video.fitting import Fitting
from cgconvert.media.video.open import main_video_stream, open_video
from cgconvert.media.video.planes import ToPlanes, stored_size
from cgconvert.media.video.probe import stream_duration
from cgconvert.media.video.times import PacketTimes

INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""Formats in which a seek reaches the keyframe before a time. In others it may miss by seconds or fail."""

EARLY_END = 0.5
"""Seconds that may be missing at the end before a file counts as cut short."""


@dataclass(frozen=True)
class CopiedPacket:
    """A packet of another stream that is copied. `stream` is the stream's index in the source."""

    packet: av.Packet[Any]
    stream: int

    @property
    def nbytes(self) -> int:
        """Bytes that this packet keeps alive."""
        return self.packet.size


@dataclass(frozen=True)
class Cut:
    """The part of a video that is converted, from `start` until before `end`, in seconds of its clock."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None


WHOLE = Cut()


@dataclass
class Damage:
    """What was wrong with the source, counted while it was read and copied.

    Packets are those of copied streams. `repaired` ones had time stamps that went back, `untimed` ones had
    none and were placed, `refused` ones the result's container did not take, and `dropped` ones had no place
    in time.
    """

    corrupt_frames: int = 0
    undecodable_packets: int = 0
    repaired_timestamps: int = 0
    time_jumps: int = 0
    repaired_packets: int = 0
    untimed_packets: int = 0
    refused_packets: int = 0
    dropped_packets: int = 0
    missing_seconds: float = 0.0
    messages: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.messages)

    def become(self, other: Damage) -> None:
        """Take over all values of `other`."""
        for name, value in asdict(other).items():
            setattr(self, name, value)

    def note(self, message: str) -> None:
        """Remember a message once, since a thousand damaged frames need only one line."""
        if message not in self.messages and len(self.messages) < 20:
            self.messages.append(message)


class VideoSource:
    """Reads a video once, from `start` to `end` in seconds from its beginning. None means its ends.

    Iterating yields `Frame`s of the main video stream at `size`, and `CopiedPacket`s of the streams in
    `copied`. Time stamps stay as they are, but a video that is cut at its start begins at zero. With
    `source_size` each frame keeps its source at that size, as pixels or, with `source_format`, as planes of
    that pixel format. With `as_planes` pictures come as `PlaneFrame`s of
    the stored size, decoded on `card` if it can decode them, from whose memory `take_over` copies a plane.
    With `after` the frames are those that follow the one with this pts, and `damage` continues from
    `earlier`. With `deinterlacing` pictures are made of fields, and `info` describes these. With `alpha_size`
    each frame keeps its transparency at that size. `damage` counts what was wrong.
    """

    def __init__(
        self,
        path: Path,
        info: StreamInfo,
        size: tuple[int, int],
        copied: frozenset[int] = frozenset(),
        start: float | None = None,
        end: float | None = None,
        source_size: tuple[int, int] | None = None,
        source_format: str | None = None,
        as_planes: bool = False,
        card: HWAccel | None = None,
        take_over: Callable[[Any], Any] | None = None,
        after: int | None = None,
        earlier: Damage | None = None,
        deinterlacing: Deinterlacing | None = None,
        alpha_size: tuple[int, int] | None = None,
    ) -> None:
        self.path, self.info, self.copied = path, info, copied
        self.earlier = earlier or Damage()
        self.damage = Damage()
        self.container = open_video(path, card)
        self.stream = main_video_stream(self.container, path)
        jumps = av.format.Flags.ts_discont in av.format.Flags(self.container.format.flags)
        self.times = PacketTimes(jumps, self.damage)
        if card is None:
            self.stream.thread_type = "AUTO"  # it also makes decoders flag frames that they had to conceal
        self.to_planes = ToPlanes(info, take_over) if as_planes else None
        self.to_pixels = ToPixels(info, *size)
        self.keep_source = source_size is not None
        self.to_source: ToPixels | ToEncoded | None = None
        if source_size is not None and source_format is not None:
            self.to_source = ToEncoded(info, *source_size, source_format)
        elif source_size is not None and source_size != size:
            self.to_source = ToPixels(info, *source_size)
        self.to_alpha = ToAlpha(info, *alpha_size) if alpha_size is not None else None
        self.decoder: av.VideoCodecContext | None = None
        """Decodes instead of the stream's own decoder, which does not know alpha."""
        self.units = deinterlacing.pictures if deinterlacing else 1
        """Units of `info.time_base` in one of the stream's own."""
        self.deinterlacer = (
            Deinterlacer(deinterlacing, info.time_base * self.units) if deinterlacing is not None else None
        )
        origin = (self.stream.start_time or 0) * self.units
        self.first_pts = origin + math.ceil(Fraction(str(start)) / info.time_base) if start else None
        self.end_time = (origin * info.time_base + Fraction(str(end))) if end is not None else None
        self.shift = self.first_pts * info.time_base if self.first_pts is not None else Fraction(0)
        self.cut = Cut(self.shift, self.end_time)
        self.after = None if after is None else after + (self.first_pts or 0)
        self.last_end = Fraction(0)
        self.last_pts: int | None = None
        self.passed = after is None
        """Whether the frame `after` has been read."""
        self.fitting: Fitting | None = None

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame | PlaneFrame | CopiedPacket]:
        if self.after is not None:
            yield from self._continued()
            return
        if self.first_pts is not None and self.container.format.name in INDEXED:
            self.container.seek(self.first_pts // self.units, stream=self.stream)
        yield from self._read()

    def _continued(self) -> Iterator[Frame | PlaneFrame | CopiedPacket]:
        """Yield what follows the frame with pts `after`, by seeking or else by decoding from the beginning.

        Repaired time stamps depend on earlier frames, so a seek counts only if this very frame is read.
        """
        assert self.after is not None
        if self.container.format.name in INDEXED:
            self.container.seek(self.after // self.units, stream=self.stream)
            yield from self._read()
            if self.passed:
                return
            self.last_pts, self.last_end = None, Fraction(0)
            self.container.seek(self.container.start_time or 0)
        yield from self._read()
        if not self.passed:
            raise InputError(f"{self.path}: the frame after which to go on is no longer in it; use `restart`")

    def _read(self) -> Iterator[Frame | PlaneFrame | CopiedPacket]:
        """Yield frames and packets from here to the end of the cut or of the file."""
        if self.to_alpha is not None:
            self.decoder = decoder_with_alpha(self.stream, self.info)
        streams = [s for s in self.container.streams if s == self.stream or s.index in self.copied]
        finished: set[int] = set()
        for packet in self._packets(streams):
            index = packet.stream.index
            self.times(packet)
            if packet.size and packet.pts is not None and packet.time_base:
                self.last_end = max(self.last_end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if index == self.stream.index:
                yield from self._frames(packet, finished)
            elif packet.size:
                yield from self._copy(packet, finished)
            if len(finished) == len(streams) or (not self.passed and self.stream.index in finished):
                break
        self._look_for_early_end()

    def packets_to_copy(self) -> Iterator[CopiedPacket]:
        """Yield only the packets of the streams in `copied`, in the order of the file, without decoding."""
        if self.first_pts is not None and self.container.format.name in INDEXED:
            self.container.seek(self.first_pts // self.units, stream=self.stream)
        streams = [s for s in self.container.streams if s.index in self.copied]
        finished: set[int] = set()
        if not streams:
            return
        # If clocks may begin anew, the other streams follow the main stream's.
        read = [*streams, self.stream] if self.times.may_jump else streams
        for packet in self._packets(read):
            self.times(packet)
            if packet.size and packet.stream.index != self.stream.index:
                yield from self._copy(packet, finished)
            if len(finished) == len(streams):
                break

    def _packets(self, streams: list[Any]) -> Iterator[av.Packet[Any]]:
        """Yield packets up to the end of the file, or to where it cannot be read further."""
        try:
            yield from self.container.demux(*streams)
        except (av.error.FFmpegError, OSError) as error:
            self.damage.note(f"reading stopped early: {getattr(error, 'strerror', None) or error}")
            yield from self._drain()

    def _drain(self) -> Iterator[av.Packet[Any]]:
        """Yield an empty packet, which makes the decoder return the frames that it still holds."""
        last: av.Packet[Any] = av.Packet()
        last.stream = self.stream
        yield last

    def _frames(self, packet: av.Packet[Any], finished: set[int]) -> Iterator[Frame | PlaneFrame]:
        try:
            decoded: Any = packet.decode() if self.decoder is None else self.decoder.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self.damage.undecodable_packets += 1
            self.damage.note(f"damaged video data that cannot be decoded ({error.strerror})")
            return
        for picture in self._whole_pictures(decoded, last=not packet.size):
            if picture.is_corrupt:
                self.damage.corrupt_frames += 1
                self.damage.note("damaged frames, converted as the decoder could reconstruct them")
            pts = self._timestamp(picture)
            if self.first_pts is not None and pts < self.first_pts:
                continue
            if not self.passed:
                assert self.after is not None
                if pts >= self.after:
                    self.passed = pts == self.after
                    self.damage.become(self.earlier)  # earlier damage is counted in it
                if pts > self.after:
                    finished.add(self.stream.index)
                    return
                continue
            if self.end_time is not None and pts * self.info.time_base >= self.end_time:
                finished.add(self.stream.index)
                return
            yield self._frame(picture, pts - (self.first_pts or 0))

    def _whole_pictures(self, decoded: list[av.VideoFrame], last: bool) -> Iterator[av.VideoFrame]:
        """Yield the frames as they are, or the pictures made of their fields; all that are left if `last`."""
        if self.deinterlacer is None:
            yield from decoded
            return
        for frame in decoded:
            yield from self.deinterlacer(frame)
        if last:
            yield from self.deinterlacer(None)

    def _timestamp(self, picture: av.VideoFrame) -> int:
        """Return the frame's pts. If it is missing or goes back, the next one replaces it and is counted."""
        step = picture.duration or max(1, round(1 / (self.info.rate * self.info.time_base)))
        pts = picture.pts
        if pts is None or (self.last_pts is not None and pts <= self.last_pts):
            if pts is not None or self.last_pts is not None:
                self.damage.repaired_timestamps += 1
                self.damage.note("frames without a usable time stamp, placed after the one before")
            pts = (self.last_pts + (step if pts is None else 1)) if self.last_pts is not None else 0
        self.last_pts = pts
        return pts

    def _frame(self, picture: av.VideoFrame, pts: int) -> Frame | PlaneFrame:
        size, duration = (picture.width, picture.height), picture.duration or 0
        if size != stored_size(self.info):
            bars = False
            if picture.sw_format is None:  # frames on a card are scaled there
                info = self.info if self.decoder is None else replace(self.info, pixel_format="yuva420p")
                self.fitting = self.fitting or Fitting(info)
                picture, bars = self.fitting(picture)
            self.damage.note(
                f"pictures of {size[0]}x{size[1]} in mid-video, scaled to the size of the first"
                + (", with bars, since they have another shape" if bars else "")
            )
        if self.to_planes is not None:
            return self.to_planes(picture, pts, duration)
        pixels = self.to_pixels(picture)
        source: np.ndarray | PlaneFrame | None = None
        if self.keep_source:
            source = self.to_source(picture) if self.to_source else pixels
        alpha = self.to_alpha(picture) if self.to_alpha is not None else None
        return Frame(pixels, pts, duration, source, alpha=alpha)

    def _copy(self, packet: av.Packet[Any], finished: set[int]) -> Iterator[CopiedPacket]:
        """Yield the packet, moved if the video is cut at its start. Subtitles that span a cut end at it."""
        index, base = packet.stream.index, packet.time_base
        assert base is not None
        if packet.stream.disposition & av.stream.Disposition.attached_pic:
            packet.pts = packet.dts = 0  # a cover has no time
            yield CopiedPacket(packet, index)
            return
        is_text = packet.stream.type == "subtitle"
        if is_text and packet.is_discard:  # an edit list puts it before the beginning
            return
        if not self.times.place(packet):
            return
        pts = packet.pts
        assert pts is not None and packet.dts is not None
        if self.end_time is not None and pts * base >= self.end_time:
            finished.add(index)
            return
        if is_text and self.end_time is not None:
            packet.duration = min(packet.duration or 0, round(self.end_time / base) - pts)
        if self.shift:
            offset = round(self.shift / base)
            if pts < offset:
                if not is_text or pts + (packet.duration or 0) <= offset:
                    return
                packet.duration = pts + (packet.duration or 0) - offset
                packet.pts = packet.dts = pts = offset
            packet.dts -= offset
            packet.pts = pts - offset
        yield CopiedPacket(packet, index)

    def _look_for_early_end(self) -> None:
        """Compare the length read with the length stated, since some formats end early without an error."""
        if self.end_time is not None or not self.container.duration:
            return
        promised = Fraction(self.container.duration, av.time_base)
        if self.container.format.name != "matroska,webm":  # its duration counts from zero already
            promised += max(Fraction(self.container.start_time or 0, av.time_base), Fraction(0))
        streams = {self.stream.index, *self.copied}
        if len(streams) < len(self.container.streams):
            own = stream_duration(self.container, self.stream)
            promised = min(promised, Fraction(own)) if own else promised
        missing = float(promised - self.last_end)
        if missing > EARLY_END:
            self.damage.missing_seconds = missing
            self.damage.note(f"the file ends {missing:.1f} s before its stated end: it was cut short")
